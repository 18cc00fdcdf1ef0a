"""Names and values between official checkpoints and modules: complete, checked, reversible."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unified_rl.core.errors import CheckpointError
from unified_rl.models.key_map import (
    FirstOfOne,
    Ignored,
    KeyMap,
    Rows,
    Rule,
    Source,
    UnitRows,
    build_empty,
    export,
    load,
)
from unified_rl.models.specimens.tensors import write_shards
from unified_rl.models.weights import FolderWeights, StateWeights


class Attention(nn.Module):
    """Three matrices, a table, a codebook, a frozen bias and buffers of both kinds."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(2, 2) for _ in range(3))
        self.position = nn.Embedding(3, 2)
        self.codebook = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 5, bias=False)
        self.frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.register_buffer("powers", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("frequencies", torch.tensor([1.0, 0.5]), persistent=False)


KEYS = KeyMap(
    "Toy",
    (
        Rule(r"qkv\.(\w+)", (r"query.\1", r"key.\1", r"value.\1"), Rows(3)),
        Rule("pos_embed", ("position.weight",), FirstOfOne()),
        Rule(r"codes\.\d", ("codebook.weight",), UnitRows()),
        Rule("lm_head", ("head.weight",), size="text.vocab_size"),
        Rule("(frozen|powers)", (r"\1",)),
        Ignored(r"pool\..+", "nothing reads it"),
    ),
    head="lm_head",
)


def official():
    state = {
        "qkv.weight": torch.arange(12.0).view(6, 2),
        "qkv.bias": torch.arange(6.0),
        "pos_embed": torch.arange(6.0).view(1, 3, 2) - 1,
        "codes.0": torch.tensor([[3.0, 4.0], [0.0, -2.0], [5.0, 12.0]]),
        "lm_head": torch.arange(10.0).view(5, 2),
        "frozen": torch.tensor([7.0, 8.0]),
        "powers": torch.tensor([2, 1]),
        "pool.latent": torch.tensor([[0.25]]),
    }
    return {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}


def loaded(state=None, dtype=torch.float32):
    model = build_empty(Attention)
    load(model, [Source(StateWeights(state or official()), KEYS)], dtype)
    return model


# -- loading ---------------------------------------------------------------------------------------


def test_an_empty_module_has_buffers_but_no_parameters():
    model = build_empty(Attention)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.frequencies.tolist() == [1.0, 0.5]


def test_values_are_where_they_belong():
    model = loaded()
    assert model.query.weight.tolist() == [[0, 1], [2, 3]]
    assert model.key.weight.tolist() == [[4, 5], [6, 7]]
    assert model.value.weight.tolist() == [[8, 9], [10, 11]]
    assert (model.query.bias.tolist(), model.value.bias.tolist()) == ([0, 1], [4, 5])
    assert model.position.weight.tolist() == [[-1, 0], [1, 2], [3, 4]]
    # 3-4-5 and 5-12-13
    expected = torch.tensor([[3 / 5, 4 / 5], [0, -1], [5 / 13, 12 / 13]])
    torch.testing.assert_close(model.codebook.weight.data, expected, rtol=0, atol=1e-7)
    assert model.frozen.tolist() == [7, 8] and model.powers.tolist() == [2, 1]


def test_gradients_are_asked_for_as_before():
    model = loaded()
    assert model.query.weight.requires_grad and not model.frozen.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_floats_take_the_dtype_asked_for(dtype):
    model = loaded(dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.powers.dtype == torch.int64


def test_parts_of_a_split_share_no_storage():
    model = loaded()
    assert model.query.weight.untyped_storage().nbytes() == 4 * 4  # 2 x 2 float32
    assert model.key.weight.untyped_storage().nbytes() == 4 * 4


def test_rows_of_unit_norm_stay_bit_for_bit():
    rows = nn.functional.normalize(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))
    state = {**official(), "codes.0": rows}
    assert torch.equal(loaded(state).codebook.weight, rows)


def test_repeated_tensors_must_agree():
    codes = official()["codes.0"]
    same = loaded({**official(), "codes.1": codes.clone()})
    assert torch.equal(same.codebook.weight, loaded().codebook.weight)
    with pytest.raises(CheckpointError, match=r"codes\.1 should repeat codebook\.weight"):
        loaded({**official(), "codes.1": codes + torch.eye(3, 2)})


def test_a_shared_parameter_is_filled_under_all_of_its_names():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = self.other = nn.Linear(2, 2, bias=False)

    model = build_empty(Shared)
    keys = KeyMap("Toy", (Rule("w", ("one.weight",)),))
    load(model, [Source(StateWeights({"w": torch.ones(2, 2)}), keys)], torch.float32)
    assert model.one.weight is model.other.weight and not model.other.weight.is_meta


def test_several_sources_fill_one_module():
    state = official()
    halves = {"pos_embed": state.pop("pos_embed"), "frozen": state.pop("frozen")}
    model = build_empty(Attention)
    sources = [Source(StateWeights(part), KEYS) for part in (state, halves)]
    load(model, sources, torch.float32)
    assert model.position.weight.tolist() == [[-1, 0], [1, 2], [3, 4]]


# -- refusing --------------------------------------------------------------------------------------


def refused(state, *words):
    with pytest.raises(CheckpointError) as caught:
        loaded(state)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def without(*names):
    return {name: tensor for name, tensor in official().items() if name not in names}


def test_unknown_names_are_counted_and_named():
    strangers = {f"stranger.{index}": torch.zeros(1) for index in range(5)}
    refused(
        {**official(), **strangers},
        "5 unknown (stranger.0, stranger.1, stranger.2, ...)",
        "Toy",
        "config.json",
    )


def test_missing_parameters_are_counted_and_named():
    refused(
        without("qkv.bias", "pos_embed"),
        "4 missing (key.bias, position.weight, query.bias, ...)",
    )


def test_a_name_for_a_layer_that_the_model_lacks_is_unknown():
    keys = KeyMap("Toy", (Rule(r"layers\.(\d)", (r"layers.\1.weight",)),))
    model = build_empty(lambda: nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(1, 1, False)])}))
    state = {f"layers.{index}": torch.zeros(1, 1) for index in range(2)}
    with pytest.raises(CheckpointError, match=r"1 unknown \(layers\.1\)"):
        load(model, [Source(StateWeights(state), keys)], torch.float32)


def test_a_tied_head_is_told():
    refused(without("lm_head"), "lm_head is missing", "tied", "tie_word_embeddings=false")


def test_a_vocabulary_mismatch_names_both_numbers_and_the_mend():
    refused(
        {**official(), "lm_head": torch.zeros(9, 2)},
        "vocabulary mismatch",
        "lm_head has 9 rows",
        "text.vocab_size=5",
        "set it to 9",
    )


def test_a_shape_that_does_not_fit_is_told():
    refused({**official(), "lm_head": torch.zeros(5, 4)}, "lm_head", "(5, 4)", "(5, 2)")
    refused({**official(), "qkv.weight": torch.zeros(9, 2)}, "qkv.weight", "(3, 2)", "(2, 2)")
    refused({**official(), "pos_embed": torch.zeros(2, 3, 2)}, "pos_embed", "(2, 3, 2)")


def test_integers_where_floats_belong_are_refused():
    quantised = torch.zeros(5, 2, dtype=torch.int8)
    refused({**official(), "lm_head": quantised}, "lm_head", "torch.int8", "quantised", "bfloat16")


# -- exporting -------------------------------------------------------------------------------------


@pytest.fixture(params=[".safetensors", ".bin"])
def original(request, tmp_path):
    folder = tmp_path / "original"
    (folder / "extra").mkdir(parents=True)
    write_shards(folder, official(), 2, request.param)
    (folder / "config.json").write_text('{"model_type": "toy"}')
    (folder / "extra" / "words.txt").write_text("a b c")
    (folder / ".cache").mkdir()
    stale = "model.safetensors" if request.param == ".bin" else "pytorch_model.bin"
    (folder / stale.replace("model", "old")).write_bytes(b"weights from before training")
    return folder


def tensors(folder):
    weights = FolderWeights(folder)
    return {name: weights.read(name) for name in weights.names()}


def from_folder(folder, dtype=torch.float32):
    model = build_empty(Attention)
    load(model, [Source(FolderWeights(folder), KEYS)], dtype)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_untrained_weights_come_back_bit_for_bit(original, tmp_path, dtype):
    export(from_folder(original, dtype), {".": KEYS}, original, tmp_path / "out")
    before, after = tensors(original), tensors(tmp_path / "out")
    assert {n: t.dtype for n, t in before.items()} == {n: t.dtype for n, t in after.items()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_split_and_the_small_files_are_the_originals(original, tmp_path):
    export(from_folder(original), {".": KEYS}, original, tmp_path / "out")
    out = FolderWeights(tmp_path / "out")
    assert out.shards == FolderWeights(original).shards
    names = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")}
    assert names == {*out.shards, out.index, "config.json", "extra", "extra/words.txt"}
    assert (tmp_path / "out" / out.index).read_text() == (original / out.index).read_text()


def test_float32_weights_survive_a_run_in_bfloat16(tmp_path):
    state = {n: t.float() + 1e-4 if t.is_floating_point() else t for n, t in official().items()}
    (tmp_path / "original").mkdir()
    save_file(state, tmp_path / "original" / "model.safetensors")
    model = from_folder(tmp_path / "original", torch.bfloat16)
    export(model, {".": KEYS}, tmp_path / "original", tmp_path / "out")
    after = tensors(tmp_path / "out")
    assert all(torch.equal(state[name], after[name]) for name in state)


@torch.no_grad()
def test_trained_weights_are_written_in_the_official_form(original, tmp_path):
    model = from_folder(original)
    model.key.weight.add_(1)
    model.position.weight.mul_(2)
    model.codebook.weight[0] = torch.tensor([1.0, 0.0])
    export(model, {".": KEYS}, original, tmp_path / "out")
    before, after = tensors(original), tensors(tmp_path / "out")
    raised = torch.tensor([[0, 1], [2, 3], [5, 6], [7, 8], [8, 9], [10, 11]]).bfloat16()
    assert torch.equal(after["qkv.weight"], raised)
    assert after["pos_embed"].tolist() == [[[-2, 0], [2, 4], [6, 8]]]
    # all rows are unit ones now, as the official code would make them: 5/13 and 12/13
    assert after["codes.0"][0].tolist() == [1, 0]
    assert after["codes.0"][2].tolist() == torch.tensor([5 / 13, 12 / 13]).bfloat16().tolist()
    for name in ("qkv.bias", "lm_head", "frozen", "powers", "pool.latent"):
        assert torch.equal(after[name], before[name])
    again = from_folder(tmp_path / "out")
    assert torch.equal(again.key.weight, model.key.weight)


def test_parts_are_written_below_the_original(tmp_path):
    state = official()
    parts = {"text": {"lm_head": state.pop("lm_head")}, "vision": state}
    for part, tensors_of_part in parts.items():
        (tmp_path / "original" / part).mkdir(parents=True)
        save_file(tensors_of_part, tmp_path / "original" / part / "model.safetensors")
        (tmp_path / "original" / part / "config.json").write_text("{}")
    keys = dict.fromkeys(parts, KEYS)
    model = build_empty(Attention)
    sources = [Source(FolderWeights(tmp_path / "original" / part), KEYS) for part in parts]
    load(model, sources, torch.float32)
    export(model, keys, tmp_path / "original", tmp_path / "out")
    for part, expected in parts.items():
        found = load_file(tmp_path / "out" / part / "model.safetensors")
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
        assert (tmp_path / "out" / part / "config.json").is_file()


def test_the_original_is_never_overwritten(original):
    with pytest.raises(CheckpointError, match="is the original itself"):
        export(from_folder(original), {".": KEYS}, original, original)


def test_a_model_of_another_shape_is_not_exported(original, tmp_path):
    model = from_folder(original)
    model.head = nn.Linear(2, 6, bias=False)
    with pytest.raises(CheckpointError, match=r"lm_head is \(5, 2\), but the trained one \(6, 2\)"):
        export(model, {".": KEYS}, original, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- memory ----------------------------------------------------------------------------------------

MEASURE = """
import sys, torch
from pathlib import Path
from torch import nn
from unified_rl.models.key_map import KeyMap, Rule, Source, build_empty, load
from unified_rl.models.weights import FolderWeights

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

def reset():
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten

folder, dtype = Path(sys.argv[1]), getattr(torch, sys.argv[2])
model = build_empty(lambda: nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(48)))
keys = KeyMap("Toy", (Rule("(.+)", (r"\\1",)),))
reset()
before = peak()
load(model, [Source(FolderWeights(folder), keys)], dtype)
print(peak() - before, sum(p.nbytes for p in model.parameters()))
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory of Linux")
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_loading_needs_little_more_than_the_weights(tmp_path, stored, suffix):
    # 48 x 1024 x 1024 floats are 192 MiB; one more tensor and up to 32 mapped MiB come on top
    state = {f"{index}.weight": torch.ones(1024, 1024, dtype=stored) for index in range(48)}
    if suffix == ".bin":
        torch.save(state, tmp_path / "pytorch_model.bin")
    else:
        save_file(state, tmp_path / "model.safetensors")
    command = [sys.executable, "-c", MEASURE, str(tmp_path), "float32"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    extra, size = map(int, done.stdout.split())
    assert size == 48 * 1024 * 1024 * 4
    assert size <= extra <= 1.3 * size, json.dumps({"extra": extra, "size": size})
