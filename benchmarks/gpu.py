"""The GPU checklist as one command: everything here that needs a CUDA device, one after another.

Run: python -m benchmarks.gpu [--minutes 8]

What fails, or takes longer than is left, is listed, and the rest goes on. Figures land beside
those of the CPU in `benchmarks/results`; nothing is downloaded. Exit code 1 if anything failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from unified_rl.runtime.provenance import provenance

RESULTS = Path(__file__).parent / "results"
_TRAIN = (
    *("-m", "unified_rl.train", "experiment=unified_grpo/micro_grpo", "trainer=gpu"),
    *("model.checkpoint=assets/micro_janus", "iterations=3", "logger.mode=disabled"),
)
CHECKS: dict[str, tuple[str, ...]] = {
    "tests": ("-m", "pytest", "-m", "gpu", "-q"),
    "rollout": (
        *("-m", "benchmarks.rollout", "--size", "1b", "--rows", "8", "--group", "8"),
        *("--guidance", "5", "--repeats", "3"),
    ),
    "logprob_memory": ("-m", "benchmarks.logprob_memory", "--width", "2048"),
    "single": (*_TRAIN, "strategy=single"),
    "fsdp2": (*_TRAIN, "strategy=fsdp2"),
    "deepspeed_zero2": (*_TRAIN, "strategy=deepspeed_zero2"),
    "deepspeed_zero3": (*_TRAIN, "strategy=deepspeed_zero3"),
    "rollout_of_64": (
        *("-m", "benchmarks.rollout", "--size", "1b", "--rows", "64", "--group", "64"),
        *("--guidance", "5", "--repeats", "1", "--label", "of_64"),
    ),
    "unified_step": (
        *("-m", "benchmarks.unified_step", "--size", "1b", "--group", "8", "--guidance", "5"),
        *("--repeats", "2"),
    ),
    "unified_step_of_64": (
        *("-m", "benchmarks.unified_step", "--size", "1b", "--group", "64", "--guidance", "5"),
        *("--repeats", "1", "--only", "ours"),
    ),
}
"""What to run, by name; each is given to the interpreter."""


def check(arguments: tuple[str, ...], seconds: float) -> dict[str, object]:
    """Runs one of them: whether it went well, its seconds, and the end of what it said."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        output = [f"paths.output={folder}/run"] if arguments[:4] == _TRAIN[:4] else []
        try:
            done = subprocess.run(
                [sys.executable, *arguments, *output],
                capture_output=True,
                text=True,
                timeout=seconds,
            )
            code, said = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            code, said = 124, f"took longer than the {seconds:.0f} s that were left"
    wall = time.perf_counter() - started
    return {"ok": code == 0, "exit_code": code, "wall_s": round(wall, 1), "end": said[-800:]}


def main() -> int:
    """Runs all, prints a line each, and writes what came of them."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=8.0)
    options = arguments.parse_args()
    if not torch.cuda.is_available():
        print("error: torch finds no CUDA device here; this list needs one", file=sys.stderr)
        return 2
    end = time.perf_counter() + 60 * options.minutes
    found: dict[str, dict[str, object]] = {}
    for name, command in CHECKS.items():
        found[name] = check(command, max(1.0, end - time.perf_counter()))
        print(f"{name}: {'ok' if found[name]['ok'] else 'FAILED'}, {found[name]['wall_s']} s")
    result = {
        "hardware": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "commit": provenance({}, 0)["commit"],
        "checks": found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")
    return int(not all(one["ok"] for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
