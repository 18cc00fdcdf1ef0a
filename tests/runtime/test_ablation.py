"""Tables beside the paper's: rows, spreads and verdicts by hand."""

import json
from pathlib import Path

import pytest
import yaml

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.ablation import render
from unified_rl.runtime.summary import HEADLINE

PAPER = {
    "title": "Toy",
    "columns": ["paper score"],
    "rows_are": "rungs",
    "rows": {"low": [1.0], "high": [2.0]},
    "labels": {"low": "without", "high": "with"},
    "run": "make toy",
    "claims": [{"text": "it helps", "lower": "low", "higher": "high"}],
}


def job(runs: Path, rung: str | None, seed: int, joint: float, **phases: float) -> None:
    folder = runs / f"{rung}_{seed}_{joint}"
    folder.mkdir(parents=True)
    scores = {key: {"value": joint, "low": 0, "high": 1, "n": 9} for key in HEADLINE}
    provenance = {"config": {"choose": {"rung": rung}}, "seed": seed, "commit": "abc"}
    provenance |= {"config_hash": "x", "hardware": {}, "versions": {}}
    summary = {"grpo": scores, "provenance": provenance}
    for name, value in phases.items():
        summary[name] = {key: {"value": value} for key in HEADLINE}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "paper.yaml").write_text(yaml.safe_dump(PAPER))
    return folder


def test_three_seeds_apart_reproduce_a_claim(table, tmp_path):
    for seed, (low, high) in enumerate([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]):
        job(tmp_path / "runs", "low", seed, low)
        job(tmp_path / "runs", "high", seed, high)
    page = render(table, tmp_path / "runs").read_text()
    assert "0.200 ± 0.100" in page and "0.600 ± 0.100" in page
    # sqrt((.1**2 + .1**2) / 3) = .0816; .4 is more than twice that
    assert "reproduced (+0.400, standard error 0.082)" in page
    results = json.loads((table / "results.json").read_text())["results"]
    assert results["low"]["joint_correctness"]["values"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("highs", "verdict"),
    [((0.1, 0.25, 0.4), "inconclusive (+0.050"), ((0.0, 0.01, 0.02), "not reproduced (-0.190")],
)
def test_a_difference_within_its_error_is_inconclusive(table, tmp_path, highs, verdict):
    for seed, high in enumerate(highs):
        job(tmp_path / "runs", "low", seed, 0.1 * (seed + 1))
        job(tmp_path / "runs", "high", seed, high)
    assert verdict in render(table, tmp_path / "runs").read_text()


def test_two_seeds_are_too_few(table, tmp_path):
    for seed in (0, 1):
        job(tmp_path / "runs", "low", seed, 0.1)
        job(tmp_path / "runs", "high", seed, 0.9)
    assert "inconclusive (fewer than 3 seeds)" in render(table, tmp_path / "runs").read_text()


def test_a_repeat_is_no_seed(table, tmp_path):
    job(tmp_path / "runs", "low", 0, 0.1)
    job(tmp_path / "runs", "low", 0, 0.2)
    with pytest.raises(ConfigError, match="a repeat is no new seed"):
        render(table, tmp_path / "runs")


def test_phases_are_rows_of_every_run(table, tmp_path):
    paper = PAPER | {
        "rows_are": "phases",
        "rows": {"warmup": [1.0], "grpo": [2.0]},
        "labels": {"warmup": "before", "grpo": "after"},
        "claims": [],
    }
    (table / "paper.yaml").write_text(yaml.safe_dump(paper))
    job(tmp_path / "runs", None, 0, 0.9, warmup=0.25)
    page = render(table, tmp_path / "runs").read_text()
    assert "| before | 1.0 | 0.250 |" in page and "| after | 2.0 | 0.900 |" in page


def test_an_unknown_table_gets_the_nearest_name(table, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'toy'"):
        render(table.with_name("toi"), tmp_path)


def test_no_run_says_which_command_makes_one(table, tmp_path):
    with pytest.raises(ConfigError, match="make toy"):
        render(table, tmp_path)
