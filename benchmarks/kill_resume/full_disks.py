"""Disks that are full at a place drawn from a seed, and have room again afterwards."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.kill_resume.kills import Moment, killed_at
from benchmarks.kill_resume.runs import Run, differences
from unified_rl.core.errors import StorageError

NAMESPACE = "UNIFIED_RL_BENCHMARK_NAMESPACE"
"""Set where this process may mount a file system that nobody else sees."""
ROOMY = "size=4g"


def enter_namespace() -> None:
    """Starts the command again where it may mount; returns where the system does not let it."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if NAMESPACE in os.environ:
        return
    try:
        probe = [*unshare, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        return
    command = [sys.executable, "-m", "benchmarks.kill_resume", *sys.argv[1:]]
    os.execvpe("unshare", [*unshare, *command], {**os.environ, NAMESPACE: "1"})


def means() -> str:
    """How a disk is made full here."""
    if NAMESPACE in os.environ:
        return "a tmpfs of limited size (ENOSPC)"
    return "a limit on the size of files (RLIMIT_FSIZE, EFBIG), as this system lets nobody mount"


def inject(
    run: Run, reference: Run, size: int, rng: np.random.Generator, say: Callable[[str], None]
) -> dict[str, Any]:
    """Lets a run come upon a full disk, makes room, and lets it go on.

    Args:
        run: has not begun.
        reference: the run that nothing interrupted.
        size: of a checkpoint, in bytes.
        rng: where the disk is full.
        say: gets a line.
    """
    if NAMESPACE in os.environ:
        # from before the first checkpoint is whole to the third beside two others
        room = int(size * rng.uniform(0.3, 2.9))
        run.folder.mkdir(parents=True)
        _mount(run, f"size={room}")
        try:
            return _refused_then_whole(run, reference, None, room, say)
        finally:
            subprocess.run(["umount", str(run.folder)], check=True)
    room = int(size * rng.uniform(0.05, 0.95))
    killed_at(run, Moment("published", 0.0, int(rng.integers(2))))  # so that something can be lost
    return _refused_then_whole(run, reference, room, room, say)


def _refused_then_whole(
    run: Run, reference: Run, file_limit: int | None, room: int, say: Callable[[str], None]
) -> dict[str, Any]:
    before = run.snapshots.last_whole()
    code, said = run.finish(file_limit)
    lines = [line for line in said.splitlines() if line.startswith("error:")]
    whole, iterations = run.snapshots.last_whole(), run.snapshots.iterations()
    faults = []
    if code != StorageError.exit_code or len(lines) != 1 or "Traceback" in said:
        faults.append(f"exit code {code}: {' '.join(said.split())[-300:]}")
    if iterations and whole != iterations[-1]:
        faults.append(f"checkpoint {iterations[-1]} is broken")
    if (before or 0) > (whole or 0):
        faults.append(f"checkpoint {before} was lost")
    if file_limit is None:
        _mount(run, f"remount,{ROOMY}")
    code, said = run.finish()
    faults += [f"exit code {code}"] if code else differences(reference, run)
    verdict = "; ".join(faults) or "weights and metrics are identical"
    say(f"full disk  {room / 1e6:6.1f} MB  goes on from iteration {whole or 0}: {verdict}")
    return {
        "room_bytes": room,
        "saved": whole,
        "said": lines[0] if lines else None,
        "fault": "; ".join(faults) or None,
    }


def _mount(run: Run, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(run.folder)], check=True)
