"""Pipelines from their command line, at the smallest size: the demo, killed once, and graphs."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from unified_rl.models.checkpoint import weights_hash, write_folder
from unified_rl.runtime.cli import register_resolvers
from unified_rl.runtime.summary import HEADLINE

ROOT = Path(__file__).parents[2]
ITERATIONS = 6
PHASES = ("base", "warmup", "grpo")
TRAINED = PHASES[1:]
SMALL = [
    f"iterations={ITERATIONS}",
    "data.batch_size=2",
    "checkpoint_every=2",
    "sample_every=0",
    "logger.mode=disabled",
]
EVALUATED = [
    "suite.story_count=2",
    "suite.drawings_per_category=1",
    "suite.questions_per_category=1",
    "suite.batch_size=16",
]


def save_random_model(assets):
    """The demo's own architecture, of random weights."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", ["model.checkpoint=null"])
    torch.manual_seed(0)
    write_folder(assets / "micro_janus", instantiate(config.model, _convert_="all")().save)


def start(root):
    """The command of `make demo`, made small."""
    lists = {"overrides": SMALL, "evaluation_overrides": EVALUATED}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "unified_rl.pipeline", "pipeline=demo", "threads=1"),
            *(f"paths.assets={root / 'assets'}", f"paths.outputs={root / 'outputs'}"),
            *(f"{name}={settings!r}" for name, settings in lists.items()),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_in_training(root):
    """SIGKILL as soon as the warm-up can go on from somewhere; the iterations that are saved."""
    process, folder = start(root), root / "outputs" / "demo" / "micro_janus" / "warmup"
    try:
        while not list(folder.glob("resumable/*.ckpt")):
            if process.poll() is not None:
                pytest.fail(process.stdout.read())
            time.sleep(0.005)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.communicate()


def stamps(output):
    found = [*output.glob("*/checkpoint/*"), *output.glob("*/evaluation.json")]
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder of a demo that was killed once, started again, and run once more."""
    root = tmp_path_factory.mktemp("demo")
    save_random_model(root / "assets")
    kill_in_training(root)
    output = root / "outputs" / "demo" / "micro_janus"
    assert not (output / "warmup" / "result.json").exists(), "it was too fast to be killed"
    runs = []
    for _ in range(2):
        process = start(root)
        said = process.communicate(timeout=120)[0]
        seconds = json.loads((output / "summary.json").read_text())["base"]["wall_s"]
        runs.append((process.returncode, said, stamps(output), seconds))
    return output, runs


@pytest.fixture(scope="module")
def summary(demo):
    return json.loads((demo[0] / "summary.json").read_text())


def test_the_demo_succeeds(demo):
    code, said, *_ = demo[1][0]
    assert code == 0, said


def test_the_demo_says_where_its_results_are(demo):
    output, runs = demo
    assert f"summary: {output}/summary.json" in runs[0][1]
    assert f"report:  {output}/report.html" in runs[0][1]


@pytest.mark.parametrize("phase", PHASES)
def test_the_summary_has_every_headline_score(summary, phase):
    assert len(HEADLINE) == 6
    for name in HEADLINE:
        score = summary[phase][name]
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1


@pytest.mark.parametrize("phase", PHASES)
def test_the_summary_has_seconds(summary, phase):
    wanted = {"evaluate_s", "train_s"} if phase in TRAINED else {"evaluate_s"}
    assert set(summary[phase]["wall_s"]) == wanted
    assert all(seconds >= 0 for seconds in summary[phase]["wall_s"].values())


def test_the_report_is_there(demo):
    assert (demo[0] / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("phase", TRAINED)
def test_a_killed_demo_trains_every_iteration(demo, phase):
    assert json.loads((demo[0] / phase / "result.json").read_text())["iterations"] == ITERATIONS
    with (demo[0] / phase / "metrics" / "metrics.csv").open(newline="") as file:
        found = [float(row["iteration"]) for row in csv.DictReader(file)]
    assert found == list(range(ITERATIONS))


def test_grpo_starts_from_the_warmup(demo):
    config = json.loads((demo[0] / "grpo" / "result.json").read_text())["config"]
    assert config["model"]["checkpoint"] == str(demo[0] / "warmup" / "checkpoint")


def test_evaluations_are_as_small_as_asked(demo):
    settings = json.loads((demo[0] / "base" / "evaluation.json").read_text())["settings"]
    assert (settings["story_count"], settings["drawings_per_category"]) == (2, 1)


def test_a_finished_demo_is_not_repeated(demo):
    (_, _, first, _), (code, said, second, _) = demo[1]
    assert code == 0, said
    assert len(first) > len(PHASES)
    assert first == second


def test_a_phase_that_is_skipped_reports_what_it_took_before(demo):
    (*_, first), (*_, second) = demo[1]
    assert first == second


def test_output_is_free_of_tracebacks_and_warnings(demo):
    for _, said, *_ in demo[1]:
        assert "Traceback" not in said and "Warning" not in said


# -- graphs ----------------------------------------------------------------------------------------

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
