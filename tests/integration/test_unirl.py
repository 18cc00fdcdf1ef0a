"""Self-improvement from its command lines: every way, refusals, pipelines, resuming."""

import csv
import json
from pathlib import Path

import pytest

ASSETS = Path(__file__).parents[2] / "assets"
SMALL = ["data.batch_size=2", "sample_every=0", "logger.mode=disabled", "threads=1"]
ASKED = [
    *("suite.prompts_per_category=2", "suite.foreign_per_category=1", "suite.other=null"),
]


def figures(folder):
    with (folder / "metrics" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def train(run_command, tmp_path):
    def run(experiment, *overrides, name="run"):
        return run_command(
            "train",
            *(f"experiment=unirl/{experiment}", f"paths.assets={ASSETS}", *SMALL),
            *(f"paths.output={tmp_path / name}", *overrides),
        )

    return run


@pytest.mark.parametrize(
    "asked",
    [
        ["micro_sft"],
        ["micro_grpo"],
        ["micro_sft", "stage.relaxation.redraw=true"],
        ["micro_grpo", "model=micro_showo", "stage.relaxation.mask_draws=2"],
        ["micro_grpo", "stage.path=separate"],
        ["micro_janus_grpo"],
        ["micro_janus_sft"],
        ["micro_grpo", "model=micro_janus", "stage.force=true"],
    ],
    ids=" ".join,
)
def test_every_way_trains(asked, train, tmp_path):
    # enough rows that some group's answers differ: equal rewards teach nothing
    code, _, err = train(*asked, "iterations=1", "data.batch_size=8")
    assert code == 0, err
    (row,) = figures(tmp_path / "run")
    assert float(row["gradient_norm"]) > 0
    assert 0 <= float(row["drawing_visual"]) <= 1
    assert ("keywords" in row) == ("sft" not in asked[0])


def test_a_family_that_sees_otherwise_than_it_draws_says_what_to_do(train):
    code, _, err = train("micro_grpo", "model=micro_janus", "iterations=1")
    assert code == 2
    assert "stage.path=separate" in err and "stage.force=true" in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1


def test_a_run_that_is_stopped_goes_on_to_the_same_weights(train, tmp_path):
    asked = ["micro_grpo", "iterations=2", "checkpoint_every=1"]
    assert train(*asked, name="whole")[0] == 0
    assert train(*asked, "trainer.limit_train_batches=1", name="parts")[0] == 0
    assert train(*asked, name="parts")[0] == 0
    names = ("whole", "parts")
    one, other = ((tmp_path / n / "checkpoint" / "model.safetensors").read_bytes() for n in names)
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "pipeline", "phases"),
    [
        ("micro_vila_u", "unirl", ("base", "hermesflow", "sft", "grpo")),
        ("micro_janus", "unirl_apart", ("base", "sft", "grpo")),
    ],
)
def test_pipelines_end_with_the_metric_of_each_row(model, pipeline, phases, run_command, tmp_path):
    lists = {"overrides": [*SMALL[:3], "iterations=1"], "evaluation_overrides": ASKED}
    code, _, err = run_command(
        "pipeline",
        *(f"pipeline={pipeline}", f"choose.model={model}", "threads=1"),
        *(f"paths.assets={ASSETS}", f"paths.outputs={tmp_path}"),
        *(f"{name}={settings!r}" for name, settings in lists.items()),
    )
    assert code == 0, err
    root = tmp_path / pipeline / model
    summary = json.loads((root / "summary.json").read_text())
    for phase in phases:
        assert {"generation_accuracy", "understanding_accuracy"} <= set(summary[phase])
    assert "grpo" in (root / "report.html").read_text()
