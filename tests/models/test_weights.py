"""Weight files: read lazily, one tensor at a time, and refused in one line that names the file."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unified_rl.core.errors import CheckpointError
from unified_rl.models import weights as weights_module
from unified_rl.models.specimens.tensors import write_shards
from unified_rl.models.weights import FolderWeights, StateWeights

STATE = {
    "a.weight": torch.arange(6, dtype=torch.float32).view(2, 3) / 7,
    "a.bias": torch.tensor([0.1, -0.2], dtype=torch.bfloat16),
    "b.weight": torch.arange(8.0).view(2, 2, 2),
    "table": torch.tensor([4, 2, 1]),
}


def whole_safetensors(folder):
    save_file(STATE, folder / "model.safetensors", {"format": "pt"})


def whole_bin(folder):
    torch.save(STATE, folder / "pytorch_model.bin")


def diffusers_name(folder):
    save_file(STATE, folder / "diffusion_pytorch_model.safetensors")


def safetensors_shards(folder):
    write_shards(folder, STATE, 2)


def bin_shards(folder):
    write_shards(folder, STATE, 2, ".bin")


LAYOUTS = (whole_safetensors, whole_bin, diffusers_name, safetensors_shards, bin_shards)


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def folder(request, tmp_path):
    request.param(tmp_path)
    return tmp_path


# -- reading ---------------------------------------------------------------------------------------


def test_every_tensor_is_found_and_read_bit_for_bit(folder):
    weights = FolderWeights(folder)
    assert sorted(weights.names()) == sorted(STATE)
    for name, tensor in STATE.items():
        read = weights.read(name)
        assert read.dtype == tensor.dtype and torch.equal(read, tensor)


def test_shapes_are_known_without_reading(folder):
    weights = FolderWeights(folder)
    assert {name: weights.shape(name) for name in STATE} == {
        "a.weight": (2, 3),
        "a.bias": (2,),
        "b.weight": (2, 2, 2),
        "table": (3,),
    }


def test_only_floats_are_converted(folder):
    weights = FolderWeights(folder)
    assert torch.equal(weights.read("a.weight", torch.bfloat16), STATE["a.weight"].bfloat16())
    assert torch.equal(weights.read("a.bias", torch.float32), STATE["a.bias"].float())
    assert weights.read("table", torch.bfloat16).dtype == torch.int64


def test_what_is_read_belongs_to_the_reader(folder):
    weights = FolderWeights(folder)
    weights.read("a.weight").zero_()
    assert torch.equal(weights.read("a.weight"), STATE["a.weight"])


def test_the_place_of_a_tensor_is_a_file(folder):
    weights = FolderWeights(folder)
    assert all(Path(weights.place(name)).is_file() for name in STATE)


def test_safetensors_are_preferred(tmp_path):
    whole_safetensors(tmp_path)
    torch.save({"other": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert "other" not in FolderWeights(tmp_path).names()


def test_a_bin_is_mapped_anew_after_some_bytes(tmp_path, monkeypatch):
    whole_bin(tmp_path)
    loads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: loads.append(k) or load(*a, **k))
    monkeypatch.setattr(weights_module, "_REMAP_AFTER", 30)
    weights = FolderWeights(tmp_path)  # maps it
    weights.read("a.weight")  # 24 bytes are not more than 30
    weights.read("a.bias")  # 28 bytes
    weights.read("b.weight")  # 60 bytes
    assert len(loads) == 1
    weights.read("table")
    assert len(loads) == 2
    assert all(k["weights_only"] and k["mmap"] for k in loads)


def test_a_state_dict_reads_alike():
    weights = StateWeights(STATE)
    assert list(weights.names()) == list(STATE)
    weights.read("a.weight").zero_()
    assert torch.equal(weights.read("a.weight", torch.float64), STATE["a.weight"].double())


def test_a_parameter_is_read_without_its_history(tmp_path):
    torch.save({"a": torch.nn.Parameter(torch.ones(2))}, tmp_path / "pytorch_model.bin")
    assert not FolderWeights(tmp_path).read("a").requires_grad


# -- writing ---------------------------------------------------------------------------------------


def test_a_shard_is_written_in_its_own_format(folder, tmp_path):
    weights, target = FolderWeights(folder), tmp_path / "written"
    target.mkdir()
    for shard, names in weights.shards.items():
        weights.write_shard(shard, {name: weights.read(name) for name in names}, target)
        read = load_file if shard.endswith(".safetensors") else torch.load
        assert all(torch.equal(t, STATE[name]) for name, t in read(target / shard).items())


# -- refusing --------------------------------------------------------------------------------------


def refused(folder, *words, read=None):
    with pytest.raises(CheckpointError) as caught:
        weights = FolderWeights(folder)
        if read:
            weights.read(read)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(folder), *words):
        assert word in message, message


def test_a_folder_without_weights(tmp_path):
    refused(tmp_path, "holds no weights", "model.safetensors", "pytorch_model.bin")


def test_an_unknown_format_is_named(tmp_path):
    (tmp_path / "consolidated.00.pth").touch()
    refused(tmp_path, "only consolidated.00.pth", "model.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_missing_shard_is_named(tmp_path, suffix):
    write_shards(tmp_path, STATE, 2, suffix)
    (shard,) = tmp_path.glob(f"*-00002-of-00002{suffix}")
    shard.unlink()
    refused(tmp_path, shard.name, "is missing", "index.json", "download")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("kept", [0, 5, 0.5, -10])
def test_a_truncated_file_is_named(tmp_path, layout, kept):
    layout(tmp_path)
    path = max(p for p in tmp_path.iterdir() if p.suffix in (".safetensors", ".bin"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    refused(tmp_path, path.name, "truncated")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(tmp_path, name, "git lfs pull")


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", "model.bin", ""],
)
def test_a_shard_outside_of_the_folder_is_refused(tmp_path, shard):
    save_file(STATE, tmp_path / "model.safetensors")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    text = json.dumps({"weight_map": dict.fromkeys(STATE, shard)})
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, "model.safetensors.index.json", repr(shard), ".safetensors file beside it")


@pytest.mark.parametrize(
    "text", ["", "{ not json", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    refused(tmp_path, "model.safetensors.index.json is not an index of shards")


def test_an_index_that_could_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "_LARGEST_INDEX", 100)
    write_shards(tmp_path, STATE, 2)
    refused(tmp_path, "larger than 100 bytes")


def test_an_index_of_another_revision_is_refused(tmp_path):
    write_shards(tmp_path, STATE, 2)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("a.bias", "a.shift"))
    refused(tmp_path, "disagree on 2 tensors (a.bias, a.shift)", "one revision")


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"state_dict": {"a": torch.zeros(1)}},
        {"a": torch.zeros(1).expand(2**40)},  # one number, four terabytes to copy
        {"a": torch.eye(2).to_sparse()},
    ],
    ids=["list", "nested", "expanded", "sparse"],
)
def test_a_bin_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "does not hold tensors by name", "state_dict")


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("save", [torch.save, lambda b, p: p.write_bytes(pickle.dumps(b))])
def test_a_pickle_that_runs_code_is_refused(tmp_path, save):
    mark, path = tmp_path / "exploded", tmp_path / "pytorch_model.bin"
    save({"a": Bomb(mark)}, path)
    refused(tmp_path, "pytorch_model.bin")
    assert not mark.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert mark.exists()  # the bomb is a live one
