"""Checkpoint folders: replaced whole or not at all, and read with a clear word."""

import errno
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.killing import survivors
from tests.toys import build
from unified_rl.core.errors import CheckpointError
from unified_rl.models.checkpoint import require_folder, weights_hash, write_folder
from unified_rl.models.janus.load import janus

OLD, NEW = b"old" * 1000, b"new" * 10


def writer(content):
    def write(folder):
        (folder / "model.safetensors").write_bytes(content)
        (folder / "config.json").write_text('{"model_type": "toy"}')
        (folder / f"{content[:3].decode()}.txt").touch()

    return write


def full(folder):
    (folder / "model.safetensors").write_bytes(NEW)
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def folder(tmp_path):
    """A checkpoint folder that was written before."""
    write_folder(tmp_path / "checkpoint", writer(OLD), {"seed": 1})
    return tmp_path / "checkpoint"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- writing ---------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_previous_folder(folder):
    before = contents(folder)
    with pytest.raises(CheckpointError, match=f"{folder} failed .*No space.*previous .* intact"):
        write_folder(folder, full, {})
    assert contents(folder) == before


def test_a_full_disk_leaves_no_litter(folder):
    with pytest.raises(CheckpointError):
        write_folder(folder, full)
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_a_device_that_is_really_full_is_told(folder):
    def write(beside):
        (beside / "model.safetensors").symlink_to("/dev/full")
        with (beside / "model.safetensors").open("wb") as file:
            file.write(NEW)

    with pytest.raises(CheckpointError, match=r"No space left on device\); the previous"):
        write_folder(folder, write)
    assert contents(folder)["model.safetensors"] == OLD


def test_a_first_save_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="nothing was written"):
        write_folder(tmp_path / "checkpoint", full)
    assert not list(tmp_path.iterdir())


def test_a_card_that_json_cannot_hold_leaves_the_previous_folder(folder):
    with pytest.raises(CheckpointError, match="not JSON serializable"):
        write_folder(folder, writer(NEW), {"seed": object()})
    assert contents(folder)["model.safetensors"] == OLD


def test_a_rename_that_fails_puts_the_previous_folder_back(folder, monkeypatch):
    before = contents(folder)

    def fail(self, target):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(CheckpointError, match="intact"):
        write_folder(folder, writer(NEW))
    assert contents(folder) == before and list(folder.parent.iterdir()) == [folder]


def test_success_replaces_the_folder_as_a_whole(folder):
    write_folder(folder, writer(NEW))
    assert set(contents(folder)) == {"model.safetensors", "config.json", "new.txt"}
    assert contents(folder)["model.safetensors"] == NEW
    assert list(folder.parent.iterdir()) == [folder]


def test_the_card_lies_beside_the_weights(folder):
    assert json.loads((folder / "provenance.json").read_text()) == {"seed": 1}


# -- a save that was killed between its two renames ------------------------------------------------


@pytest.fixture
def swapped(folder):
    """The previous folder is away already, the new one not there yet."""
    folder.rename(folder.with_name("checkpoint.old"))
    folder.with_name("checkpoint.tmp").mkdir()
    return folder


def test_reading_finds_the_previous_folder(swapped):
    require_folder(swapped, "model.checkpoint")
    assert contents(swapped)["model.safetensors"] == OLD


def test_the_next_save_that_fails_still_has_the_previous_folder(swapped):
    with pytest.raises(CheckpointError, match="intact"):
        write_folder(swapped, full)
    assert contents(swapped)["model.safetensors"] == OLD


def test_no_kill_leaves_half_a_folder(tmp_path):
    def found(root):
        require_folder(root / "checkpoint", "model.checkpoint")
        return contents(root / "checkpoint")

    after = survivors(
        tmp_path,
        lambda root: write_folder(root / "checkpoint", writer(OLD), {"seed": 1}),
        lambda root: write_folder(root / "checkpoint", writer(NEW), {"seed": 2}),
        found,
    )
    assert len(after) > 10
    whole = [after[0], after[-1]]
    assert all(folder in whole for folder in after)
    assert whole[0]["model.safetensors"] == OLD and whole[1]["model.safetensors"] == NEW


def test_the_next_save_replaces_the_previous_folder(swapped):
    write_folder(swapped, writer(NEW))
    assert contents(swapped)["model.safetensors"] == NEW
    assert list(swapped.parent.iterdir()) == [swapped]


# -- finding ---------------------------------------------------------------------------------------


def test_a_missing_folder_gets_the_nearest_name(folder):
    with pytest.raises(CheckpointError, match=r"model\.checkpoint=.*did you mean 'checkpoint'"):
        require_folder(folder.with_name("chekpoint"), "model.checkpoint")


def test_unfinished_folders_are_not_suggested(tmp_path):
    (tmp_path / "checkpoint.tmp").mkdir()
    with pytest.raises(CheckpointError) as caught:
        require_folder(tmp_path / "checkpoint", "model.checkpoint")
    assert ".tmp" not in str(caught.value)


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds none of model.safetensors"):
        require_folder(folder, "model.checkpoint")


def test_another_kind_of_model_is_refused(folder):
    require_folder(folder, "model.checkpoint", "toy")
    with pytest.raises(CheckpointError, match="model_type 'toy', not 'janus'"):
        require_folder(folder, "model.checkpoint", "janus")


@pytest.mark.parametrize("config", ["", "{ not json", "[]", "{}"])
def test_a_config_without_a_kind_is_refused(folder, config):
    # transformers would build the default architecture, of 7 billion parameters
    (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=r"no config\.json that names a model_type"):
        require_folder(folder, "model.checkpoint")


# -- reading what is broken ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    write_folder(folder, build("janus").save)
    return folder


@pytest.fixture
def broken(saved, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def rewrite(path, change):
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def cut_header(folder):
    (folder / "model.safetensors").write_bytes(b"\x08")


def garble_config(folder):
    (folder / "config.json").write_text("{ not json")


def drop_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def add_tensor(folder):
    tensors = {**load_file(folder / "model.safetensors"), "stranger.weight": torch.zeros(1)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def widen(folder):
    rewrite(folder / "config.json", lambda c: c["text_config"].update(intermediate_size=96))


def call_it_llama(folder):
    rewrite(folder / "config.json", lambda c: c.update(model_type="llama"))


def lose_config(folder):
    (folder / "config.json").unlink()


def lose_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def garble_template(folder):
    (folder / "template.json").write_text("[]")


FAULTS = (
    truncate,
    cut_header,
    garble_config,
    drop_tensor,
    add_tensor,
    widen,
    call_it_llama,
    lose_config,
    lose_tokenizer,
    garble_template,
)


def test_a_whole_folder_is_read(saved):
    original = build("janus").state_dict()
    assert all(torch.equal(original[name], w) for name, w in janus(str(saved)).state_dict().items())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_broken_folder_is_told_in_one_line(broken, fault):
    fault(broken)
    with pytest.raises(CheckpointError) as caught:
        janus(str(broken))
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("beside", ["nothing", "truncated weights"])
def test_pickles_are_never_loaded(broken, tmp_path, beside):
    mark = tmp_path / "exploded"
    (broken / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    truncate(broken) if beside == "truncated weights" else (broken / "model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        janus(str(broken))
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))  # the bomb is a live one
    assert mark.exists()


# -- telling weights apart -------------------------------------------------------------------------


def test_weights_in_folders_of_a_folder_count(tmp_path):
    for name in ("llm", "vision_tower"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(name.encode())
    before = weights_hash(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert weights_hash(tmp_path) == before
    (tmp_path / "vision_tower" / "model.safetensors").write_bytes(b"another")
    assert weights_hash(tmp_path) != before


def test_a_folder_without_weights_has_no_hash(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no weights"):
        weights_hash(tmp_path)
