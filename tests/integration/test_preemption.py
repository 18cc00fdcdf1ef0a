"""SIGTERM to the command itself, as a cluster sends it."""

import os
import signal
import subprocess
import sys
import time

from tests.integration.pipelines import ROOT, save_random_model


def test_a_preempted_command_saves_and_says_so(tmp_path):
    save_random_model(tmp_path / "assets")
    output = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "unified_rl.train", "experiment=unified_grpo/micro_warmup"),
        *(f"paths.assets={tmp_path / 'assets'}", f"paths.output={output}", "threads=1"),
        *(f"paths.outputs={tmp_path}", "iterations=500", "checkpoint_every=400"),
        *("data.batch_size=2", "logger.mode=disabled", "sample_every=0"),
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (output / "metrics" / "metrics.csv").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=100)[1]
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("stopped by")]
    finished = int(line.split()[4])
    where = f"after {finished} of 500 iterations"
    assert line == f"stopped by SIGTERM {where}; the same command goes on from there"
    (manifest,) = output.glob("resumable/*/*/manifest.json")
    assert int(manifest.parent.name) == finished
