"""SIGKILLs and full disks against a GRPO run; whatever came between, the results are the same.

Run: python -m benchmarks.kill_resume [--kills 20] [--full-disk 5] [--iterations 12] [--seed 0]

The command is `python -m unified_rl.train experiment=unified_grpo/micro_grpo` from the shipped
micro policy. A run is killed and started again by the same command until it ends, then the next
one begins. Weights and metrics have to be those of a run that nothing interrupted, bit for bit;
columns of metrics that end in `_s` are seconds and are left out. Prints a line a kill and a
verdict; exits with 0 only if all agree.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.kill_resume import full_disks, kills
from benchmarks.kill_resume.runs import ROOT, Run
from unified_rl.runtime.provenance import provenance

RESULTS = ROOT / "benchmarks" / "results" / "kill_resume_cpu.json"


def main() -> int:
    """Runs, kills, compares; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs")
    parser.add_argument("--full-disk", type=int, default=5, help="disks that are full")
    parser.add_argument("--iterations", type=int, default=12, help="of a run")
    parser.add_argument("--every", type=int, default=2, help="iterations between checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--model", type=Path, default=ROOT / "assets" / "micro_janus")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args()
    full_disks.enter_namespace()
    with tempfile.TemporaryDirectory(prefix="kill_resume_") as folder:
        return _measure(options, Path(folder))


def _measure(options: argparse.Namespace, folder: Path) -> int:
    rng, started = np.random.default_rng(options.seed), time.perf_counter()

    def new_run(name: str, keep_every: int = 0) -> Run:
        model = options.model.resolve()
        return Run(folder / name, options.iterations, options.every, model, keep_every)

    reference = new_run("reference", options.every)
    code, said = reference.finish()
    wall_s, size = time.perf_counter() - started, reference.snapshots.size()
    if code or size is None:
        print(said or "the run saved nothing; give more --iterations", file=sys.stderr)
        return 1
    _say(f"reference: {options.iterations} iterations in {wall_s:.1f} s, nothing interrupted it")
    plan = kills.moments(rng, options.kills, wall_s)
    records = kills.campaign(lambda number: new_run(f"run_{number}"), reference, plan, _say)
    _say(f"full disks: {full_disks.means()}")
    disks = [
        full_disks.inject(new_run(f"disk_{number}"), reference, size, rng, _say)
        for number in range(options.full_disk)
    ]
    faults = [record["fault"] for record in (*records, *disks) if record["fault"]]
    _say(
        f"{options.kills} kills, {options.full_disk} full disks: "
        + (f"{len(faults)} FAULTS" if faults else "every result is identical, no checkpoint lost")
    )
    names = ("kills", "full_disk", "iterations", "every", "seed")
    settings = {name: getattr(options, name) for name in names} | {"model": options.model.name}
    origin = provenance({}, options.seed)
    result = {
        "settings": settings,
        "command": " ".join(reference.command[1:]),
        "agree": not faults,
        "reference_s": round(wall_s, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "checkpoint_bytes": size,
        "kills": records,
        "full_disk_means": full_disks.means(),
        "full_disks": disks,
        **{key: origin[key] for key in ("commit", "dirty", "hardware", "versions")},
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2).replace(str(folder), "FOLDER")
    options.results.write_text(text.replace(f"{options.model.resolve().parents[1]}/", "") + "\n")
    return 1 if faults else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
