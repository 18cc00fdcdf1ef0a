"""A training command in a process of its own, and what it left."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from unified_rl.runtime.snapshots import Snapshots

ROOT = Path(__file__).parents[2]
TIMED = "_s"
"""Columns of metrics that end so are seconds, which no two runs share; all others are compared."""


@dataclass(frozen=True)
class Run:
    """GRPO from the shipped micro policy.

    Attributes:
        folder: of everything that it writes.
        iterations: of the whole run.
        every: iterations between resumable checkpoints.
        model: folder of the policy it starts from.
        keep_every: iterations between checkpoints that stay; 0 leaves none.
    """

    folder: Path
    iterations: int
    every: int
    model: Path
    keep_every: int = 0

    @property
    def command(self) -> list[str]:
        """What a user would type, and would type again after a kill."""
        return [
            *(sys.executable, "-m", "unified_rl.train", "experiment=unified_grpo/micro_grpo"),
            *("model=micro_janus", f"model.checkpoint={self.model}", "threads=2", "seed=0"),
            *(f"iterations={self.iterations}", f"checkpoint_every={self.every}"),
            *("data.batch_size=2", "stage.group_size=2", "optimisation.warmup=2"),
            *("logger.mode=disabled", "sample_every=0", f"survival.keep_every={self.keep_every}"),
            *(f"paths.output={self.folder}", f"paths.outputs={self.folder / 'hydra'}"),
        ]

    @property
    def snapshots(self) -> Snapshots:
        """The resumable checkpoints."""
        found = sorted(self.folder.glob("resumable/*"))
        return Snapshots(found[0] if found else self.folder / "resumable")

    @property
    def is_finished(self) -> bool:
        """Whether there is a result."""
        return (self.folder / "result.json").is_file()

    @property
    def said(self) -> str:
        """What the latest start wrote to stderr."""
        return self.folder.with_suffix(".stderr").read_text()

    def start(self, file_limit: int | None = None) -> subprocess.Popen:
        """The command, running.

        Args:
            file_limit: bytes beyond which the kernel lets no file grow; None sets no limit.
        """

        def limit() -> None:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, most))

        # beside the folder, whose disk may be full
        with self.folder.with_suffix(".stderr").open("w") as stderr:
            return subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                preexec_fn=limit if file_limit is not None else None,
            )

    def finish(self, file_limit: int | None = None) -> tuple[int, str]:
        """Runs to the end; its exit code, and what it wrote to stderr."""
        process = self.start(file_limit)
        try:
            process.wait()
        finally:
            process.kill()
        return process.returncode, self.said


def kill(process: subprocess.Popen) -> bool:
    """SIGKILL; whether the process was still alive."""
    process.send_signal(signal.SIGKILL)  # does nothing to one whose end is known
    return process.wait() == -signal.SIGKILL


def differences(one: Run, other: Run) -> list[str]:
    """In what two finished runs differ; nothing where they are the same to the last bit."""
    found = []
    weights = [load_file(run.folder / "checkpoint" / "model.safetensors") for run in (one, other)]
    if weights[0].keys() != weights[1].keys():
        found.append("names of weights")
    else:
        moved = [n for n in weights[0] if not torch.equal(weights[0][n], weights[1][n])]
        if moved:
            found.append(f"{len(moved)} of {len(weights[0])} weights, first {moved[0]}")
    rows = [_metrics(run) for run in (one, other)]
    if len(rows[0]) != len(rows[1]):
        found.append(f"{len(rows[0])} against {len(rows[1])} rows of metrics")
    for first, second in zip(*rows, strict=False):
        names = [n for n in {**first, **second} if first.get(n) != second.get(n)]
        if names:
            found.append(f"iteration {first.get('iteration')}: {', '.join(sorted(names))}")
    results = [json.loads((run.folder / "result.json").read_text()) for run in (one, other)]
    found += [
        f"{name} of result.json"
        for name in ("iterations", "config_hash", "start_weights", "seed")
        if results[0][name] != results[1][name]
    ]
    return found


def _metrics(run: Run) -> list[dict[str, str]]:
    with (run.folder / "metrics" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{n: value for n, value in row.items() if not n.endswith(TIMED)} for row in rows]
