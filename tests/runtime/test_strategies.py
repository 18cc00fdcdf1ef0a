"""Several processes on the CPU do what one does: ten steps of GRPO over ragged stories.

Each run is a command of its own; Lightning starts the second process. Rollouts are drawn anew at
every step from the policy as it then is, so a step that differed would change all that follow.
"""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.runtime.sharing import STEPS

ROOT = Path(__file__).parents[2]
COMPARED = ("loss", "policy_loss", "gradient_norm", "reward", "text_tokens", "images")
PATIENCE_S = 400


def go(output: Path, name: str, ranks: int, *rest: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.runtime.sharing", output, name, ranks, STEPS, *rest]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def rows(output: Path) -> list[dict[str, float]]:
    with (output / "metrics" / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def furthest(one: Path, other: Path, folder: str = "checkpoint") -> float:
    """Greatest distance between two weights."""
    own, theirs = (load_file(path / folder / "model.safetensors") for path in (one, other))
    assert own.keys() == theirs.keys()
    return max(float((own[name] - theirs[name]).abs().max()) for name in own)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    output = tmp_path_factory.mktemp("alone")
    assert go(output, "single", 1).returncode == 0
    return output


@pytest.mark.slow
def test_the_steps_compared_are_ragged_and_teach_something(alone):
    found = rows(alone)
    assert len(found) == STEPS
    assert all(row["gradient_norm"] > 0.1 for row in found)
    assert len({row["text_tokens"] for row in found}) > STEPS / 2
    assert any(not row["images"].is_integer() for row in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_two_processes_equal_one(alone, tmp_path, name):
    done = go(tmp_path, name, 2)
    assert done.returncode == 0, done.stderr[-2000:]
    for own, theirs in zip(rows(alone), rows(tmp_path), strict=True):
        for metric in COMPARED:
            assert own[metric] == pytest.approx(theirs[metric], abs=1e-4), (metric, own)
    assert furthest(alone, tmp_path) < 1e-5
    assert furthest(alone, tmp_path, "middle") < 1e-5


@pytest.mark.slow
def test_a_lost_rank_ends_the_run_which_goes_on_with_another_strategy(alone, tmp_path):
    died = go(tmp_path, "zero3", 2, 7)  # rank 1 is killed in iteration 7; 6 are saved
    assert died.returncode != 0
    assert "rank 0 of 2" in died.stderr and "others are lost" in died.stderr
    assert not (tmp_path / "checkpoint").exists()
    assert go(tmp_path, "zero2", 2).returncode == 0
    assert [row["iteration"] for row in rows(tmp_path)] == list(range(STEPS))
    assert furthest(alone, tmp_path) < 1e-5
    assert math.isfinite(float(torch.tensor([r["loss"] for r in rows(tmp_path)]).sum()))
