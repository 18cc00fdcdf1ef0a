"""Pipelines that branch and merge, from their command line, at the smallest size."""

import json

import pytest
import yaml

from tests.integration.pipelines import EVALUATED, save_random_model
from unified_rl.models.checkpoint import weights_hash

WARMUP = {"experiment": "unified_grpo/micro_warmup"}
GRAPH = [
    {"name": "trunk", **WARMUP},
    {"name": "left", **WARMUP, "overrides": ["seed=1"]},
    {"name": "right", **WARMUP, "from": "trunk", "overrides": ["seed=2"]},
    {
        "name": "merged",
        "merge": {"rule": "gaussian", "of": ["left", "right"], "base": "trunk"},
        "evaluate": True,
    },
    {"name": "after", **WARMUP, "overrides": ["seed=3"]},
    {"name": "aside", **WARMUP, "from": "trunk", "overrides": ["seed=4"], "evaluate": True},
]
ONE_STEP = ["iterations=1", "data.batch_size=2", "sample_every=0"]
ROWS = ("base", "more")
DRAWN = ["suite.story_count=0", *EVALUATED[1:]]


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    save_random_model(folder)
    return folder


@pytest.fixture
def graph(run_command, tmp_path, assets):
    """Runs a pipeline of some phases; exit code, output, and a hash of each phase's weights."""

    def start(phases, *arguments, mode="disabled"):
        folder = tmp_path / "conf" / "pipeline"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"name": "toy", "suite": "micro", "publish": False, "report": False}
        content |= {"phases": phases}
        (folder / "toy.yaml").write_text(f"# Toy.\n{yaml.safe_dump(content)}")
        lists = {
            "overrides": [*ONE_STEP, f"logger.mode={mode}"],
            "evaluation_overrides": DRAWN,
        }
        found = run_command(
            "pipeline",
            *("pipeline=toy", "--config-dir", tmp_path / "conf", "threads=1"),
            *(f"paths.assets={assets}", f"paths.outputs={tmp_path / 'outputs'}"),
            *(f"{name}={settings!r}" for name, settings in lists.items()),
            *arguments,
        )
        return *found, made(tmp_path / "outputs" / "toy" / "micro_janus")

    return start


def made(output):
    """What each phase left: its weights, and when they were written."""
    folders = {path.parent.name: path for path in output.glob("*/checkpoint")}
    return {
        name: (weights_hash(path), (path / "provenance.json").stat().st_mtime_ns)
        for name, path in folders.items()
    }


def moved(before, after):
    return {name for name in after if after[name] != before.get(name)}


def changed(**settings):
    """The graph with other overrides for some of its phases."""
    return [
        phase | ({"overrides": settings[phase["name"]]} if phase["name"] in settings else {})
        for phase in GRAPH
    ]


@pytest.mark.slow
def test_a_graph_branches_merges_and_does_again_only_what_changed(graph, tmp_path):
    code, out, err, first = graph(GRAPH)
    assert code == 0, err
    assert set(first) == {phase["name"] for phase in GRAPH}
    root = tmp_path / "outputs" / "toy" / "micro_janus"
    cards = {
        name: json.loads((root / name / "checkpoint/provenance.json").read_text()) for name in first
    }
    starts = {name: card["start_weights"] for name, card in cards.items()}
    trunk, merged = first["trunk"][0], first["merged"][0]
    assert {starts[name] for name in ("left", "right", "merged", "aside")} == {trunk}
    assert starts["after"] == merged
    assert len({weights for weights, _ in first.values()}) == len(GRAPH)
    assert [model["weights"] for model in cards["merged"]["models"]] == [
        first["left"][0],
        first["right"][0],
    ]
    summary = json.loads((root / "summary.json").read_text())
    assert "generation_accuracy" in summary["merged"] and "generation_accuracy" in summary["aside"]
    assert "generation_accuracy" not in summary["left"]

    code, _, err, second = graph(GRAPH)
    assert code == 0, err
    assert moved(first, second) == set()

    code, _, err, third = graph(changed(merged=["rule.spread=0"]))
    assert code == 0, err
    assert moved(second, third) == {"merged", "after"}  # after started from other weights

    code, _, err, fourth = graph(changed(merged=["rule.spread=0"], right=["seed=9"]))
    assert code == 0, err
    assert moved(third, fourth) == {"right", "merged", "after"}


def test_a_choice_trains_what_it_needs_and_scores_itself(graph, tmp_path):
    code, _, err, found = graph(GRAPH, "choose.only=[aside]")
    assert code == 0, err
    assert set(found) == {"trunk", "aside"}
    assert "[2/2] aside" in err
    evaluations = tmp_path.glob("outputs/toy/micro_janus/*/evaluation.json")
    assert [path.parent.name for path in evaluations] == ["aside"]


def test_a_phase_that_only_scores_may_set_how(graph, tmp_path):
    setting = "suite.behaviour_image.image_step_count"
    more = {"name": "more", "evaluate": True, "overrides": [f"{setting}=5"]}
    plain = {"name": "base", "evaluate": True}
    code, _, err, _ = graph([plain, more])
    assert code == 0, err
    root = tmp_path / "outputs/toy/micro_janus"
    written = {name: json.loads((root / name / "evaluation.json").read_text()) for name in ROWS}
    drawn = {name: record["settings"]["behaviour_image"] for name, record in written.items()}
    assert {name: drawn[name]["image_step_count"] for name in ROWS} == {"base": 12, "more": 5}
    assert set(ROWS) <= set(json.loads((root / "summary.json").read_text()))
    code, _, err, _ = graph([plain, more | {"overrides": [f"{setting[:-1]}=5"]}])
    assert code == 2 and "phase 'more'" in err and f"{setting[:-1]}" in err


def test_the_headline_is_the_pipelines(graph, tmp_path):
    headline = "generation_accuracy/counting"
    code, out, err, _ = graph(
        [{"name": "base", "evaluate": True}], f"pipeline.headline=[{headline}]"
    )
    assert code == 0, err
    summary = json.loads((tmp_path / "outputs/toy/micro_janus/summary.json").read_text())
    assert set(summary["base"]) == {headline, "wall_s", "checkpoint"}
    assert "generation accuracy/counting" in out and "joint correctness" not in out


REFUSED = {
    "an experiment that is not there": (
        [GRAPH[0], {"name": "next", "experiment": "unified_grpo/micro_warm"}],
        "phase 'next': In 'train': Could not find 'experiment/unified_grpo/micro_warm'",
    ),
    "an override of nothing": (
        [GRAPH[0], {"name": "next", **WARMUP, "overrides": ["iteratoins=1"]}],
        "phase 'next': Could not override 'iteratoins'",
    ),
    "a start that is not there": (
        [GRAPH[0], {"name": "next", **WARMUP, "from": "trunc"}],
        "phase 'next' needs 'trunc'; did you mean 'trunk'?",
    ),
    "a rule without its base": (
        [*GRAPH[:3], {"name": "next", "merge": {"rule": "gaussian", "of": ["left", "right"]}}],
        "phase 'next': merge.rule=gaussian needs merge.base",
    ),
    "a rule for one adapter": (
        [*GRAPH[:3], {"name": "next", "merge": {"rule": "adapter", "of": ["left", "right"]}}],
        "phase 'next': Could not override 'checkpoints'",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_in_the_last_phase_shows_before_the_first_runs(graph, mistake):
    phases, says = REFUSED[mistake]
    code, out, err, found = graph(phases)
    assert (code, out, err.count("\n"), found) == (2, "", 1, {}), err
    assert err.startswith("error: conf/pipeline/toy.yaml, ") and says in err


def test_what_is_published_is_not_chosen_from(graph):
    code, _, err, found = graph(GRAPH, "choose.only=[aside]", "pipeline.publish=true")
    assert (code, err.count("\n"), found) == (2, 1, {})
    assert "add pipeline.publish=false" in err


def test_runs_are_grouped_by_pipeline_and_named_by_phase_and_seed(graph, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    code, _, err, _ = graph(GRAPH[:1], "seed=5", mode="offline")
    assert code == 0, err
    (path,) = tmp_path.glob("outputs/toy/micro_janus/trunk/wandb/offline-run-*/*.wandb")
    content = path.read_bytes()
    assert b"toy-micro_janus" in content and b"trunk-seed5" in content
