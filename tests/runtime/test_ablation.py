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
    "runs": "outputs/toy",
    "claims": [{"text": "it helps", "lower": "low", "higher": "high"}],
}


def job(runs: Path, rung: str | None, seed: int, joint: float, **phases: float) -> None:
    folder = runs / f"{rung}_{seed}_{joint}"
    folder.mkdir(parents=True)
    scores = {key: {"value": joint, "low": 0, "high": 1, "n": 500} for key in HEADLINE}
    provenance = {"config": {"choose": {"rung": rung}}, "seed": seed, "commit": "abc"}
    provenance |= {"config_hash": "x", "hardware": {}, "versions": {}}
    summary = {"grpo": scores, "provenance": provenance}
    for name, value in phases.items():
        summary[name] = {key: {"value": value, "n": 500} for key in HEADLINE}
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


# -- rows of several phases, and differences seed by seed ------------------------------------------

TASKS = PAPER | {
    "rows_are": "phases",
    "model": "1B model",
    "columns": ["draws", "answers"],
    "metrics": ["drawing", "answering"],
    "comparison": "paired",
    "rows": {
        "base": [1.0, 2.0],
        "drawer": {"paper": [3.0, "/"], "from": {"drawing": "left"}},
        "pair": {"from": {"drawing": "left", "answering": "right"}},
    },
    "labels": {"base": "before", "drawer": "one", "pair": "two"},
    "claims": [{"text": "it draws", "metric": "drawing", "lower": "base", "higher": "drawer"}],
}
SEEDS = {  # drawing and answering of each phase
    0: {"base": (0.1, 0.5), "left": (0.3, 0.1), "right": (0.1, 0.5)},
    1: {"base": (0.3, 0.6), "left": (0.4, 0.1), "right": (0.1, 0.6)},
    2: {"base": (0.5, 0.7), "left": (0.8, 0.1), "right": (0.1, 0.7)},
}


def tree(runs: Path, seed: int, name: str = "", n: int = 500, **phases: tuple[float, float]):
    """A run whose phases were scored on two tasks; one without scores was trained only."""
    folder = runs / f"{seed}{name}"
    folder.mkdir(parents=True)
    summary = {
        phase: {
            key: {"value": value, "n": n}
            for key, value in zip(("drawing", "answering"), values, strict=False)
        }
        | {"wall_s": {}, "checkpoint": "somewhere"}
        for phase, values in phases.items()
    }
    provenance = {"config": {"choose": {"rung": None}}, "seed": seed, "commit": "abc"}
    provenance |= {"config_hash": "x", "hardware": {}, "versions": {}}
    (folder / "summary.json").write_text(json.dumps(summary | {"provenance": provenance}))


@pytest.fixture
def tasks(table, tmp_path):
    """Renders the table of two tasks, with claims of its own if they are given."""

    def start(*claims: dict, **settings: object) -> str:
        paper = TASKS | ({"claims": list(claims)} if claims else {}) | settings
        (table / "paper.yaml").write_text(yaml.safe_dump(paper))
        return render(table, tmp_path / "runs").read_text()

    return start


@pytest.fixture
def three(tmp_path):
    for seed, phases in SEEDS.items():
        tree(tmp_path / "runs", seed, **phases)


def test_a_row_takes_each_score_from_its_own_phase(three, tasks, table):
    page = tasks()
    assert "| row | paper: draws | paper: answers | drawing | answering | seeds |" in page
    # drawing of left: (.3 + .4 + .8) / 3 = .5, deviations -.2, -.1, .3: sqrt(.14 / 2) = .265
    assert "| one | 3.0 | / | 0.500 ± 0.265 | / | 3 |" in page
    # answering of right: .5, .6, .7
    assert "| two | - | - | 0.500 ± 0.265 | 0.600 ± 0.100 | 3 |" in page
    assert "numbers (1B model, its benchmarks)" in page
    results = json.loads((table / "results.json").read_text())["results"]
    assert results["pair"]["drawing"]["values"] == [0.3, 0.4, 0.8]
    assert results["pair"]["answering"]["values"] == [0.5, 0.6, 0.7]
    assert results["pair"]["seeds"] == [0, 1, 2]
    assert "answering" not in results["drawer"]


def test_differences_are_taken_seed_by_seed(three, tasks):
    # .2, .1, .3: mean .2, deviation .1, error .1 / sqrt(3) = .0577; twice that is .115
    assert "| it draws | reproduced (+0.200, standard error 0.058) |" in tasks()


def test_rows_as_if_seeds_were_not_shared(three, tasks):
    # base: deviation .2; left: .265; sqrt((.04 + .07) / 3) = .191; twice that is .383
    assert "inconclusive (+0.200, standard error 0.191)" in tasks(comparison="independent")


NO_GAIN = {"text": "no gain", "metric": "answering", "row": "pair", "than": "base"}


def test_no_gain_holds_where_there_is_none(three, tasks):
    # right answers as base does, seed by seed
    page = tasks(NO_GAIN | {"expect": "no_gain"})
    assert "| no gain | reproduced (+0.000, standard error 0.000) |" in page


def test_no_gain_fails_where_there_is_one(three, tasks):
    page = tasks(NO_GAIN | {"metric": "drawing", "expect": "no_gain"})
    assert "| no gain | not reproduced (+0.200, standard error 0.058) |" in page


GAIN = {"metric": "drawing", "lower": "base", "higher": "pair"}
SAME = {"metric": "answering", "lower": "base", "higher": "pair"}
LOSS = {"metric": "drawing", "lower": "pair", "higher": "base"}


@pytest.mark.parametrize(
    ("parts", "overall"),
    [
        ((GAIN, GAIN), "reproduced"),
        ((GAIN, SAME), "inconclusive"),
        ((GAIN, SAME, LOSS), "not reproduced"),
    ],
)
def test_all_parts_of_a_claim_have_to_hold(three, tasks, parts, overall):
    page = tasks({"text": "all of it", "all": list(parts)})
    said = "drawing, two against before: reproduced (+0.200, standard error 0.058)"
    assert f"| all of it | {overall}<br>{said}<br>" in page


def test_few_prompts_bear_no_claim(tasks, tmp_path):
    for seed, phases in SEEDS.items():
        tree(tmp_path / "runs", seed, n=499 if seed == 1 else 500, **phases)
    assert "inconclusive (n = 499, fewer than 500)" in tasks()


def test_only_seeds_that_both_rows_have_are_compared(tasks, tmp_path):
    for seed, phases in SEEDS.items():
        tree(tmp_path / "runs", seed, **phases)
    tree(tmp_path / "runs", 3, base=(0.9, 0.9))
    tree(tmp_path / "runs", 4, left=(0.0, 0.0))
    page = tasks()
    assert "reproduced (+0.200, standard error 0.058)" in page
    # base also has seed 3, left seed 4; two need both left and right
    assert "| before | 1.0 | 2.0 | 0.450 " in page
    assert [line.split("|")[-2] for line in page.splitlines()[7:10]] == [" 4 ", " 4 ", " 3 "]


def test_rows_of_one_seed_come_from_several_jobs(tasks, tmp_path):
    for seed, phases in SEEDS.items():
        tree(tmp_path / "runs", seed, "base", base=phases["base"])
        # what a row needs was trained beside it, and not scored
        tree(tmp_path / "runs", seed, "left", base=(), left=phases["left"])
        tree(tmp_path / "runs", seed, "right", base=(), right=phases["right"])
    assert "| it draws | reproduced (+0.200, standard error 0.058) |" in tasks()


def test_a_score_that_was_not_kept_is_named(tasks, tmp_path):
    tree(tmp_path / "runs", 0, base=(0.1,))
    with pytest.raises(ConfigError, match="base has no answering; name it in pipeline.headline"):
        tasks()


MISTAKES = {
    "an unknown row": ({"claims": [GAIN | {"text": "x", "lower": "bas"}]}, "no row 'bas'; did you"),
    "a score not given": (
        {"claims": [SAME | {"text": "x", "higher": "drawer"}]},
        "row 'drawer' has no answering; did you mean 'drawing'?",
    ),
    "a claim of nothing": ({"claims": [{"text": "x", "all": []}]}, "all must list comparisons"),
    "a claim by halves": ({"claims": [{"text": "x", "lower": "base"}]}, "give lower and higher"),
    "an unknown key": ({"metric": []}, "has no 'metric'; did you mean 'metrics'?"),
    "an unknown score": ({"rows": {"base": {"from": {"draw": "base"}}}}, "has no 'draw'; did you"),
    "too few numbers": ({"rows": {"base": [1.0]}}, "row 'base' has 1 numbers for 2 columns"),
    "a comparison": ({"comparison": "pairs"}, "comparison=pairs must be one of paired, indep"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_table_is_one_line(tasks, name):
    settings, says = MISTAKES[name]
    with pytest.raises(ConfigError) as error:
        tasks(**settings)
    assert says in str(error.value) and "paper.yaml" in str(error.value)
