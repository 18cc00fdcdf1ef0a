"""The benchmark of kills: that it would see a difference, and a short form of the whole."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.kill_resume.kills import KINDS, WINDOW_S, moments
from benchmarks.kill_resume.runs import ROOT, Run, differences

ROWS = [{"iteration": 0.0, "loss": 2.0, "rollout_s": 0.1}, {"iteration": 1.0, "loss": 1.0}]
RESULT = {"iterations": 2, "config_hash": "c", "start_weights": "w", "seed": 0, "wall_s": 3.0}


def finished(folder, weight=1.0, rows=ROWS, **result):
    """What a run leaves, made by hand."""
    (folder / "checkpoint").mkdir(parents=True)
    weights = {"a": torch.tensor([0.5]), "b": torch.tensor([weight])}
    save_file(weights, folder / "checkpoint" / "model.safetensors")
    (folder / "metrics").mkdir()
    with (folder / "metrics" / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["iteration", "loss", "rollout_s"])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "result.json").write_text(json.dumps(RESULT | result))
    return Run(folder, 2, 1, Path("unused"))


def test_seconds_are_no_difference(tmp_path):
    slower = [{**ROWS[0], "rollout_s": 9.9}, ROWS[1]]
    one, other = finished(tmp_path / "a"), finished(tmp_path / "b", rows=slower, wall_s=8.0)
    assert differences(one, other) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"weight": float(np.nextafter(np.float32(1), 2))}, "1 of 2 weights, first b"),
        ({"rows": ROWS[:1]}, "2 against 1 rows of metrics"),
        ({"rows": [*ROWS, ROWS[1]]}, "2 against 3 rows of metrics"),
        ({"rows": [ROWS[0], {**ROWS[1], "loss": 1.0000000001}]}, "iteration 1.0: loss"),
        ({"config_hash": "d"}, "config_hash of result.json"),
    ],
)
def test_the_least_difference_is_seen(tmp_path, changes, expected):
    one, other = finished(tmp_path / "a"), finished(tmp_path / "b", **changes)
    assert differences(one, other) == [expected]


def test_moments_are_spread_and_depend_on_the_seed_alone():
    drawn = [list(moments(np.random.default_rng(seed), 40, wall_s=30.0)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {moment.kind for moment in drawn[0]} == set(KINDS)
    anytime = [moment.delay for moment in drawn[0] if moment.kind == "anytime"]
    assert min(anytime) < 6 and max(anytime) > 24 and max(anytime) <= 30
    assert all(m.delay <= WINDOW_S for m in drawn[0] if m.kind != "anytime")


@pytest.mark.slow
def test_kills_and_a_full_disk_change_nothing(tmp_path):
    results = tmp_path / "results.json"
    sizes = {"--kills": 2, "--full-disk": 1, "--iterations": 3, "--every": 1}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.kill_resume", "--results", str(results)),
            *(str(part) for pair in sizes.items() for part in pair),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(results.read_text())
    assert found["agree"] is True
    assert [record["kind"] for record in found["kills"] if "kind" in record] == list(KINDS[:2])
    assert len(found["full_disks"]) == 1
    assert "2 kills, 1 full disks: every result is identical" in done.stdout
