"""Whether a long run stays as it began: memory and seconds of a step over hundreds of iterations.

Run: python -m benchmarks.endurance [--iterations 500]

One small GRPO run of the real training command, watched from outside. Growth is that from the
first fifth, which still fills caches, to the last fifth of the iterations, as medians. Linux only.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import record

WATCHED_S = 0.5
PARTS = ("rollout_s", "reward_s", "update_s")


def resident_bytes(process: int) -> int | None:
    """Memory that a process holds; None for one that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith("VmRSS")]
    return int(found[0].split()[1]) * 1024 if found else None


def finished(metrics: Path) -> int:
    """Iterations that are in the metrics by now."""
    return max(0, metrics.read_text().count("\n") - 1) if metrics.is_file() else 0


def watch(command: list[str], metrics: Path) -> list[tuple[int, int]]:
    """(iterations done, bytes held) of a run, from time to time."""
    seen = []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        held = resident_bytes(process.pid)
        if held is not None:
            seen.append((finished(metrics), held))
        time.sleep(WATCHED_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seen


def growth(values: list[float]) -> float:
    """Median of the last fifth over that of the first one."""
    first, last = ends(values)
    return last / first


def ends(values: list[float]) -> tuple[float, float]:
    """Medians of the first and of the last fifth."""
    fifth = max(1, len(values) // 5)
    return statistics.median(values[:fifth]), statistics.median(values[-fifth:])


def main() -> None:
    """Prints growths, and writes them as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default="micro_janus")
    arguments.add_argument("--iterations", type=int, default=500)
    arguments.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "run" / "metrics" / "metrics.csv"
        command = [
            *(sys.executable, "-m", "unified_rl.train"),
            *("experiment=unified_grpo/micro_grpo", f"model={options.model}"),
            f"model.checkpoint=assets/{options.model}",
            *("stage.group_size=2", "data.batch_size=2", "checkpoint_every=50"),
            *(f"iterations={options.iterations}", f"threads={options.threads}"),
            *("sample_every=0", "logger.mode=disabled", f"paths.output={folder}/run"),
        ]
        seen = watch(command, metrics)
        with metrics.open() as file:
            steps = [sum(float(row[part]) for part in PARTS) for row in csv.DictReader(file)]
    held = [float(size) for iteration, size in seen if 0 < iteration < options.iterations]
    result = {
        "model": options.model,
        "iterations": len(steps),
        "memory_growth": growth(held),
        "memory_mb": [size / 1e6 for size in ends(held)],
        "step_growth": growth(steps),
        "step_s": statistics.median(steps),
    }
    record(f"endurance_{options.model}", result, threads=options.threads)


if __name__ == "__main__":
    main()
