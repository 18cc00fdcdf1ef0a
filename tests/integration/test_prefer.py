"""Preferences and Pair-DPO from their command lines, alone and as phases of a pipeline."""

import json

import pytest
import yaml

from tests.integration.pipelines import EVALUATED, save_random_model
from unified_rl.models.checkpoint import weights_hash

FEW = ["count=3", "builder.image_count=2", "builder.answer_count=1", "builder.threshold=-1"]
ONE_STEP = ["iterations=1", "data.batch_size=2", "sample_every=0", "logger.mode=disabled"]
DPO = {"experiment": "unirl/micro_hermesflow"}
LENGTH = {"length": {"_target_": "tests.integration.lengths.Length"}}
"""A reward that tells answers of random weights apart, which state no keyword."""


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    save_random_model(folder)
    return folder


@pytest.fixture
def start(run_command, tmp_path, assets):
    """Runs a command of the package with these assets; exit code, output and errors."""
    folder = tmp_path / "conf" / "reward"
    folder.mkdir(parents=True)
    (folder / "length.yaml").write_text(f"# Toy.\n{yaml.safe_dump(LENGTH)}")

    def run(name, *arguments):
        paths = f"paths.assets={assets}", f"paths.outputs={tmp_path / 'outputs'}"
        return run_command(name, "--config-dir", tmp_path / "conf", "threads=1", *paths, *arguments)

    return run


def written(folder):
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.glob("*.json")}


def test_preferences_are_made_once_and_learnt_from(start, tmp_path):
    pairs = tmp_path / "pairs"
    asked = ["reward=length", *FEW, f"paths.output={pairs}"]
    code, out, err = start("prefer", *asked)
    assert code == 0, err
    assert out.startswith(f"preferences: {pairs}, of 3 prompts ")
    assert "3/3" in err
    first = written(pairs)
    assert len(first) == 3 + 2  # manifest and summary
    assert start("prefer", *asked)[0] == 0
    again = written(pairs)
    again.pop("summary.json"), first.pop("summary.json")
    assert again == first

    code, out, err = start(
        "train",
        *("experiment=unirl/micro_hermesflow", *ONE_STEP, f"paths.output={tmp_path / 'run'}"),
        f"data.sources.preferences.path={pairs}",
    )
    assert code == 0, err
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()


def test_mistakes_are_one_line(start, tmp_path):
    pairs = tmp_path / "pairs"
    there = [*FEW, "reward=length", f"paths.output={pairs}"]
    assert start("prefer", *there)[0] == 0
    before = written(pairs)
    cases = [
        ([*there, "builder.image_count=3"], "other settings (builder.image_count)"),
        ([*there, "seed=1"], "(builder.seed, data.seed, seed); give another folder"),
        ([*there, f"previous={pairs}"], "is where the new preferences are written"),
        ([*there, f"previous={tmp_path / 'none'}"], "has no preferences; make them with"),
        ([*there, "count=0"], "count=0 must be at least 1"),
        ([*there, "data=drawings"], "has no fact 'question'"),
        ([*there, "data=stories"], "which is no prompt to draw; choose data"),
    ]
    for arguments, says in cases:
        code, out, err = start("prefer", *arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert says in err.splitlines()[-1], arguments
    assert written(pairs) == before


ROUNDS = [
    {"name": "pairs", "prefer": {"count": 3}, "overrides": ["reward=length", *FEW[1:]]},
    {"name": "one", **DPO, "pairs": "pairs", "evaluate": True},
    {
        "name": "more",
        "prefer": {"count": 3, "previous": "pairs"},
        "overrides": ["reward=length", *FEW[1:]],
    },
    {"name": "two", **DPO, "pairs": "more"},
]


@pytest.fixture
def pipeline(start, tmp_path):
    """Runs a pipeline; exit code, errors, and hashes of preferences and weights by phase."""

    def run(phases, *arguments):
        folder = tmp_path / "conf" / "pipeline"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"name": "toy", "suite": "micro", "publish": False, "report": True}
        (folder / "toy.yaml").write_text(f"# Toy.\n{yaml.safe_dump(content | {'phases': phases})}")
        lists = {
            "overrides": ONE_STEP,
            "evaluation_overrides": ["suite.story_count=0", *EVALUATED[1:]],
        }
        settings = [f"{name}={values!r}" for name, values in lists.items()]
        code, _, err = start("pipeline", "pipeline=toy", *settings, *arguments)
        root = tmp_path / "outputs" / "toy" / "micro_janus"
        found = {p.parent.name: weights_hash(p) for p in root.glob("*/checkpoint")}
        for path in root.glob("*/preferences/summary.json"):
            found[path.parents[1].name] = json.loads(path.read_text())["digest"]
        return code, err, found

    return run


@pytest.mark.slow
def test_rounds_in_a_pipeline(pipeline, tmp_path):
    code, err, first = pipeline(ROUNDS)
    assert code == 0, err
    assert set(first) == {"pairs", "one", "more", "two"}
    assert first["one"] != first["two"]
    root = tmp_path / "outputs" / "toy" / "micro_janus"
    made = {
        name: json.loads((root / name / "preferences/manifest.json").read_text())
        for name in ("pairs", "more")
    }
    assert made["pairs"]["previous"] is None and made["more"]["previous"] == first["pairs"]
    assert made["more"]["weights"] == first["one"]
    card = json.loads((root / "two/result.json").read_text())
    assert card["start_weights"] == first["one"]
    assert card["config"]["data"]["sources"]["preferences"]["digest"] == first["more"]
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/*/*.safetensors")}

    code, err, second = pipeline(ROUNDS)
    assert (code, second) == (0, first), err
    assert before == {path: path.stat().st_mtime_ns for path in root.glob("*/*/*.safetensors")}

    changed = [{**phase} for phase in ROUNDS]
    changed[0]["overrides"] = [*ROUNDS[0]["overrides"], "builder.seed=9"]
    code, err, third = pipeline(changed)
    assert code == 0, err
    assert all(third[name] != first[name] for name in first)  # all of it went on from these


def test_a_mistake_in_the_last_phase_shows_before_the_first_runs(pipeline):
    phases = [*ROUNDS[:2], {"name": "last", "prefer": {"count": 3}, "overrides": ["cuont=1"]}]
    code, err, found = pipeline(phases)
    assert (code, found) == (2, {}) and "phase 'last': Could not override 'cuont'" in err
    phases = [ROUNDS[0], {"name": "last", "experiment": "corl/micro_base", "pairs": "pairs"}]
    code, err, found = pipeline(phases)
    assert (code, found) == (2, {}) and "phase 'last': Could not override" in err
