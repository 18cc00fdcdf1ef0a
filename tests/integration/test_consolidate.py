"""`python -m unified_rl.consolidate` on the state of a stage over the shipped Janus."""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file

from tests.toys import ASSETS
from unified_rl.models.janus.load import janus

START = ASSETS / "micro_janus"
CHANGED = "janus.lm_head.weight"


@pytest.fixture
def resumable(tmp_path):
    """A file as a run leaves it, with one changed weight."""
    state = janus(str(START)).state_dict()
    state[CHANGED] = state[CHANGED] + 1
    path = tmp_path / "state.ckpt"
    saved = {f"policy.{name}": value for name, value in state.items()}
    torch.save({"state_dict": saved, "iteration": 4}, path)
    return path


@pytest.fixture
def start(run_command, tmp_path):
    return functools.partial(
        run_command, "consolidate", f"model.checkpoint={START}", f"output={tmp_path / 'out'}"
    )


def test_the_folder_holds_the_weights_of_the_run(resumable, start, tmp_path):
    code, out, _ = start(f"resumable={resumable}")
    assert code == 0 and out.endswith("out (of iteration 4)\n")
    before, after = (load_file(f / "model.safetensors") for f in (START, tmp_path / "out"))
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert differing == {"lm_head.weight"}
    assert torch.equal(after["lm_head.weight"], before["lm_head.weight"] + 1)
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["iteration"] == 4


def test_what_does_not_fit_ends_in_one_line(resumable, start, tmp_path):
    saved = torch.load(resumable, weights_only=True)
    others = {
        "lacking": {n: v for n, v in saved["state_dict"].items() if CHANGED not in n},
        "surplus": {**saved["state_dict"], "policy.other": torch.zeros(1)},
        "narrow": {**saved["state_dict"], f"policy.{CHANGED}": torch.zeros(2, 2)},
    }
    for state in others.values():
        torch.save({"state_dict": state, "iteration": 4}, resumable)
        code, _, err = start(f"resumable={resumable}")
        assert code == 2 and "does not fit the model" in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_what_is_no_checkpoint_ends_in_one_line(start, tmp_path, content):
    path = tmp_path / "odd.ckpt"
    path.write_bytes(content)
    code, _, err = start(f"resumable={path}")
    assert code == 2 and "not a run's resumable checkpoint" in err and err.count("\n") == 1
