"""How the seconds of a rollout and of an update grow with image tokens, rows and processes.

Run: python -m benchmarks.scaling [--tokens 36,64,144,256,576,1024] [--groups 1,2,4,8,16,32,64]

Image tokens and rows: a Janus of the micro sizes and random weights draws one group, guided, and
its log-probs go backward. Processes: the real training command with `strategy=ddp` over the same
completions in one and in two processes, each with one thread. Writes JSON and a plot.
"""

import argparse
import csv
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.cost import timed
from benchmarks.record import record
from benchmarks.rollout import build
from benchmarks.step import PARTS, slope
from unified_rl.core.behaviour import Behaviour
from unified_rl.data.microworld import drawing_sample
from unified_rl.microworld.prompts import prompts
from unified_rl.models.janus.policy import JanusPolicy

PATCH = 4
"""Side of what one code covers at the micro sizes, px."""


def seconds_of(run: Callable[[], object], repeats: int) -> float:
    """Median, after one that warms up."""
    run()
    return statistics.median(timed(run) for _ in range(repeats))


def parts(policy: JanusPolicy, rows: int, repeats: int) -> dict[str, float]:
    """Seconds of drawing one group, and of its log-probs with their gradient."""
    samples = [drawing_sample(prompts("attribution", "test")[0])] * rows
    behaviour = Behaviour(guidance_scale=3.0)

    def draw() -> object:
        generator = torch.Generator(device=policy.device).manual_seed(0)
        return policy.draw(samples, behaviour, generator)[0]

    trajectory = draw()

    def replay() -> None:
        policy.logprobs(trajectory).sum().backward()
        policy.zero_grad()

    return {"rollout_s": seconds_of(draw, repeats), "update_s": seconds_of(replay, repeats)}


def of_processes(count: int, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of the parts of a step of GRPO."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "unified_rl.train", "experiment=unified_grpo/micro_grpo"),
            "model.checkpoint=assets/micro_janus",
            *("strategy=ddp", f"trainer.devices={count}", "threads=1"),
            *("stage.group_size=8", "data.batch_size=4", f"iterations={options.iterations}"),
            *("sample_every=0", "checkpoint_every=0", "logger.mode=disabled"),
            f"paths.output={folder}/run",
        ]
        subprocess.run(command, check=True, capture_output=True, text=True)
        with (Path(folder) / "run" / "metrics" / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))[1:]
    return {part: statistics.median(float(row[part]) for row in rows) for part in PARTS}


def grown(found: dict[int, dict[str, float]]) -> dict[str, float]:
    """Exponents of each part; 1 is linear."""
    sizes = list(found)
    names = next(iter(found.values()))
    return {name: slope(sizes, [found[size][name] for size in sizes]) for name in names}


def plot(found: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Seconds over tokens and over rows, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    labels = {"image_tokens": "codes of an image", "rows": "completions of a prompt"}
    for axis, (name, label) in zip(axes, labels.items(), strict=True):
        sizes = list(found[name])
        for part in ("rollout_s", "update_s"):
            values = [found[name][size][part] for size in sizes]
            axis.loglog(sizes, values, "o-", label=part.removesuffix("_s"))
        axis.set(xlabel=label, ylabel="seconds")
        axis.legend()
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    """Prints medians, and writes them as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tokens", default="36,64,144,256,576,1024", help="square numbers")
    arguments.add_argument("--groups", default="1,2,4,8,16,32,64")
    arguments.add_argument("--rows", type=int, default=8, help="while tokens grow")
    arguments.add_argument("--processes", default="1,2")
    arguments.add_argument("--iterations", type=int, default=6)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "bfloat16" if device == "cuda" else "float32"
    tokens, groups, processes = (
        [int(size) for size in text.split(",")]
        for text in (options.tokens, options.groups, options.processes)
    )
    by_tokens, by_rows = {}, {}
    for count in tokens:
        policy = build("micro", device, dtype, image_size=PATCH * math.isqrt(count))
        by_tokens[count] = parts(policy, options.rows, options.repeats)
    policy = build("micro", device, dtype)
    for rows in groups:
        by_rows[rows] = parts(policy, rows, options.repeats)
    by_processes = {count: of_processes(count, options) for count in processes if device == "cpu"}
    result = {
        "image_tokens": {"rows": options.rows, "seconds": by_tokens, "exponent": grown(by_tokens)},
        "rows": {
            "image_tokens": policy.image_positions,
            "seconds": by_rows,
            "exponent": grown(by_rows),
        },
        "processes": {"threads_each": 1, "completions": 32, "seconds": by_processes},
    }
    path = record("scaling", result, device, options.threads)
    plot({"image_tokens": by_tokens, "rows": by_rows}, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
