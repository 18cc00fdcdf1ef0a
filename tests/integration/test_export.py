"""`python -m unified_rl.export` from its command line, on random models in the authors' layouts."""

import functools
import json

import pytest
import torch

from unified_rl.models.checkpoint import write_folder
from unified_rl.models.janus.load import janus
from unified_rl.models.specimens import showo as official_showo
from unified_rl.models.specimens.janus import (
    ARCHITECTURE,
    SETTINGS,
    official_shapes,
    random_state,
    write_official,
)
from unified_rl.models.weights import FolderWeights

CHANGE = 0.5


def trained_janus(root):
    """The authors' folder of a Janus in bfloat16, and a policy of which one weight was changed."""
    state = random_state(official_shapes(), torch.bfloat16)
    original = write_official(root / "original", state, "safetensors-shards")
    policy = janus(str(original), ARCHITECTURE)
    with torch.no_grad():
        policy.janus.model.aligner.fc1.bias.add_(CHANGE)
    return original, policy, "janus_pro_1b", "aligner.layers.0.bias"


def trained_showo(root):
    """The same of a Show-o, whose codec and tokenizer lie in folders of their own."""
    folders = official_showo.write_folders(root, layout=".bin")
    policy = official_showo.load(folders)
    with torch.no_grad():
        policy.showo.language_model.lm_head.bias.add_(CHANGE)
    return folders["checkpoint"], policy, "showo_512", "showo.lm_head.bias"


FAMILIES = {"janus": trained_janus, "showo": trained_showo}


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request, tmp_path_factory):
    """Original, folder of the trained policy, model config, official name of the changed weight."""
    root = tmp_path_factory.mktemp(request.param)
    original, policy, model, changed = FAMILIES[request.param](root)
    write_folder(root / "trained", policy.save)
    return original, root / "trained", model, changed


@pytest.fixture
def start(run_command):
    """Runs the command."""
    return functools.partial(run_command, "export")


@pytest.fixture
def exported(trained, start, tmp_path):
    """Original and exported folder, and the name of the changed weight."""
    original, checkpoint, model, changed = trained
    output = tmp_path / "out"
    settings = [f"checkpoint={checkpoint}", f"original={original}", f"output={output}"]
    code, out, err = start(f"model={model}", *settings)
    lines = out.splitlines()
    assert (code, lines[0]) == (0, f"checkpoint: {output}"), err
    left_out = ["not written: codec"] if "showo" in model else []
    assert [line.partition(";")[0] for line in lines[1:]] == left_out
    return original, output, changed


def test_names_shapes_dtypes_and_files_are_those_of_the_original(exported):
    original, output, _ = exported
    before, after = FolderWeights(original), FolderWeights(output)
    assert after.shards == before.shards
    for name in before.names():
        old, new = before.read(name), after.read(name)
        assert (new.shape, new.dtype) == (old.shape, old.dtype), name
    assert {p.name for p in output.iterdir()} == {p.name for p in original.iterdir()}
    assert (output / "config.json").read_bytes() == (original / "config.json").read_bytes()


def test_the_changed_weight_alone_differs(exported):
    original, output, changed = exported
    before, after = FolderWeights(original), FolderWeights(output)
    differing = [n for n in before.names() if not torch.equal(before.read(n), after.read(n))]
    assert differing == [changed]
    expected = (before.read(changed).float() + CHANGE).to(before.read(changed).dtype)
    assert torch.equal(after.read(changed), expected)


def test_what_is_exported_is_read_as_the_authors_layout_again(tmp_path, start):
    original, policy, model, _ = trained_janus(tmp_path)
    write_folder(tmp_path / "trained", policy.save)
    output = tmp_path / "out"
    settings = [f"checkpoint={tmp_path / 'trained'}", f"original={original}", f"output={output}"]
    assert start(f"model={model}", *settings)[0] == 0
    assert json.loads((output / "config.json").read_text()) == SETTINGS
    found = janus(str(output), ARCHITECTURE).janus.state_dict()
    for name, tensor in policy.janus.state_dict().items():
        # the change was made in float32 and is rounded to the original's bfloat16, 8 bits
        torch.testing.assert_close(found[name], tensor, rtol=2**-8, atol=0)


# -- bad input -------------------------------------------------------------------------------------


def mistakes(original, checkpoint, root):
    """Settings, and what their line must say."""
    (root / "full").mkdir()
    (root / "full" / "precious.txt").write_text("kept")
    (root / "file").write_text("kept")
    good = {"checkpoint": checkpoint, "original": original, "output": root / "out"}
    return {
        "nothing": ({}, "error: checkpoint, original and output have no value; give checkpoint="),
        "no original": (
            {**good, "original": "null"},
            "error: original=None is empty; give a folder",
        ),
        "absent original": (
            {**good, "original": root / "nowhere"},
            f"error: original={root}/nowhere is not a folder; give the authors' checkpoint",
        ),
        "original of ours": (
            {**good, "original": checkpoint},
            f"error: original={checkpoint} was saved here, not by the authors (template.json is",
        ),
        "full output": (
            {**good, "output": root / "full"},
            f"error: output={root}/full exists already; give a new folder, or remove it first",
        ),
        "file as output": ({**good, "output": root / "file"}, f"output={root}/file exists already"),
        "checkpoint as output": ({**good, "output": checkpoint}, "exists already; give a new"),
        "output within original": (
            {**good, "output": original / "out"},
            f"error: output={original}/out is original={original} or lies in it",
        ),
        "original as output": ({**good, "output": original}, "or lies in it"),
    }


@pytest.mark.parametrize("trained", ["janus"], indirect=True)
def test_a_mistake_ends_in_one_line_and_leaves_all_folders_alone(trained, start, tmp_path):
    original, checkpoint, model, _ = trained
    cases = mistakes(original, checkpoint, tmp_path)
    before = sorted(path for root in (original, checkpoint) for path in root.rglob("*"))
    for name, (settings, expected) in cases.items():
        code, out, err = start(f"model={model}", *(f"{n}={v}" for n, v in settings.items()))
        assert (code, out, err.count("\n")) == (2, "", 1), (name, err)
        assert expected in err, name
    after = sorted(path for root in (original, checkpoint) for path in root.rglob("*"))
    assert before == after
    assert (tmp_path / "full" / "precious.txt").read_text() == "kept"
    assert not (tmp_path / "out").exists()


def test_an_original_of_other_sizes_is_refused(start, tmp_path):
    settings = {**SETTINGS, "language_config": {**SETTINGS["language_config"], "vocab_size": 71}}
    original, policy, model, _ = trained_janus(tmp_path)
    write_folder(tmp_path / "trained", policy.save)
    other = random_state(official_shapes(settings), torch.bfloat16)
    write_official(tmp_path / "other", other, settings=settings)
    code, _, err = start(
        f"model={model}",
        f"checkpoint={tmp_path / 'trained'}",
        f"original={tmp_path / 'other'}",
        f"output={tmp_path / 'out'}",
    )
    assert code == 2 and err.count("\n") == 1
    assert "but the trained one (70, 48); export against the checkpoint that training" in err
    assert not (tmp_path / "out").exists()


def test_an_original_of_another_family_is_refused(start, tmp_path):
    _, policy, model, _ = trained_janus(tmp_path)
    write_folder(tmp_path / "trained", policy.save)
    showo = official_showo.write_folders(tmp_path / "showo")["checkpoint"]
    code, _, err = start(
        f"model={model}",
        f"checkpoint={tmp_path / 'trained'}",
        f"original={showo}",
        f"output={tmp_path / 'out'}",
    )
    assert code == 2 and err.count("\n") == 1
    assert f"error: {showo}/config.json is of model_type 'Showo'" in err
