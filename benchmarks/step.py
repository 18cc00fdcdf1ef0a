"""Where the seconds of a GRPO step go, and how they grow with the size of a group.

Run: python -m benchmarks.step [--groups 1,2,4,8,16] [--model micro_janus] [--iterations 5]

Each size is one run of the real training command from the shipped model; the first iteration warms
up and does not count. Writes JSON and a plot. Two completions at least make a group, so that a
size of 1 cannot be trained; the smallest here is 2.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.record import record

PARTS = ("rollout_s", "reward_s", "update_s")


def measure(options: argparse.Namespace, group: int) -> dict[str, float]:
    """Median seconds of each part of a step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "unified_rl.train"),
            *("experiment=unified_grpo/micro_grpo", f"model={options.model}"),
            f"model.checkpoint=assets/{options.model}",
            *(f"stage.group_size={group}", f"data.batch_size={options.prompts}"),
            *(f"iterations={options.iterations}", f"threads={options.threads}"),
            *("sample_every=0", "checkpoint_every=0", "logger.mode=disabled"),
            f"paths.output={folder}/run",
        ]
        subprocess.run(command, check=True, capture_output=True, text=True)
        with (Path(folder) / "run" / "metrics" / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))[1:]
    return {part: statistics.median(float(row[part]) for row in rows) for part in PARTS}


def slope(sizes: list[int], seconds: list[float]) -> float:
    """The d in seconds ~ size ** d, by least squares of the logarithms; 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def plot(sizes: list[int], found: dict[int, dict[str, float]], path: Path) -> None:
    """Seconds of each part over the size of a group, stacked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    parts = [[found[size][part] for size in sizes] for part in PARTS]
    axes.stackplot(sizes, parts, labels=[part.removesuffix("_s") for part in PARTS])
    axes.set(xlabel="completions of a prompt", ylabel="seconds a step")
    axes.legend(loc="upper left")
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    """Prints medians, and writes them as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", default="micro_janus")
    arguments.add_argument("--groups", default="2,4,8,16,32")
    arguments.add_argument("--prompts", type=int, default=4)
    arguments.add_argument("--iterations", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    options = arguments.parse_args()
    sizes = [int(size) for size in options.groups.split(",")]
    found = {size: measure(options, size) for size in sizes}
    whole = [sum(found[size].values()) for size in sizes]
    result = {
        "model": options.model,
        "prompts": options.prompts,
        "seconds": found,
        "exponent_of_group_size": slope(sizes, whole),
    }
    path = record(f"step_{options.model}", result, threads=options.threads)
    plot(sizes, found, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
