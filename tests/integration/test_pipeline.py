"""The demo from its command line: killed, gone on with, and run once more, at the smallest size."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.integration.pipelines import EVALUATED, ROOT, save_random_model
from unified_rl.runtime.summary import HEADLINE

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
        while not list(folder.glob("resumable/*/[0-9]*/state.ckpt")):
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
