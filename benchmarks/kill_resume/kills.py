"""Kills at moments drawn from a seed: anywhere in a run, and inside its writing of files."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.kill_resume.runs import Run, differences, kill

KINDS = ("anytime", "saving", "anytime", "published", "anytime", "saving", "anytime", "finishing")
"""In turn. Moments of "anytime" are uniform over the wall time of the whole run; the others come up
to `WINDOW_S` after a file or folder appeared."""
WINDOW_S = 0.05
POLL_S = 0.0005
FASTER = 0.7
"""Where a run ended before its kill, the next one's comes earlier by this factor."""


class Moment(NamedTuple):
    """When a kill comes.

    Attributes:
        kind: one of `KINDS`.
        delay: seconds, after the start or after what is waited for.
        skipped: saves to let pass first.
    """

    kind: str
    delay: float
    skipped: int


def moments(rng: np.random.Generator, count: int, wall_s: float) -> Iterator[Moment]:
    """As many moments as there will be kills.

    Args:
        rng: what they depend on.
        count: of kills.
        wall_s: of the whole run.
    """
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        window = wall_s if kind == "anytime" else WINDOW_S
        yield Moment(kind, float(rng.uniform(0, window)), int(rng.integers(2)))


def campaign(
    new_run: Callable[[int], Run],
    reference: Run,
    plan: Iterator[Moment],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Kills and starts again until the plan is used up; a run that came to its end is compared.

    Args:
        new_run: makes the run of a number.
        reference: the run that nothing interrupted.
        plan: when to kill.
        say: gets a line for each kill and each end.

    Returns:
        A record of each kill and of each end of a run; those with `fault` are what went wrong.
    """
    records: list[dict[str, Any]] = []
    number, last = 0, None
    run, killed = new_run(0), 0
    for moment in plan:
        while True:
            started = time.perf_counter()
            was_killed, code = killed_at(run, moment)
            if was_killed:
                break
            records.append(_compared(number, run, reference, killed, code, say))
            moment = moment._replace(delay=moment.delay * FASTER)
            number, last, killed = number + 1, None, 0
            run = new_run(number)
        killed += 1
        whole = run.snapshots.last_whole()
        newest = (run.snapshots.iterations() or [None])[-1]
        lost = not run.is_finished and (whole != newest or (last or 0) > (whole or 0))
        fault = f"a checkpoint was lost: {last} before, {newest} found, {whole} whole"
        records.append(
            {
                "run": number,
                **moment._asdict(),
                "seconds": round(time.perf_counter() - started, 3),
                "saved": whole,
                "fault": fault if lost else None,
            }
        )
        say(
            f"kill {sum('kind' in r for r in records):3}  run {number}  {moment.kind:9}  "
            f"{records[-1]['seconds']:7.3f} s  goes on from iteration {whole or 0}"
            + (f"  FAULT: {fault}" if lost else "")
        )
        last = whole
    code, _ = run.finish()
    records.append(_compared(number, run, reference, killed, code, say))
    return records


def killed_at(run: Run, moment: Moment) -> tuple[bool, int]:
    """Starts a run and kills it; whether that came before its end, and the exit code."""
    process = run.start()
    try:
        before = set(_signs(run, moment.kind))
        seen: set[str] = set()
        while moment.kind != "anytime" and process.poll() is None:
            seen |= set(_signs(run, moment.kind)) - before
            if len(seen) > (0 if moment.kind == "finishing" else moment.skipped):
                break
            time.sleep(POLL_S)
        deadline = time.perf_counter() + moment.delay
        while process.poll() is None and (left := deadline - time.perf_counter()) > 0:
            time.sleep(min(left, 0.05))
    finally:
        was_killed = kill(process)
    return was_killed, process.returncode


def _signs(run: Run, kind: str) -> list[str]:
    """What appears on the disk when the moment is near."""
    if kind == "saving":
        return [str(path) for path in run.snapshots.folder.glob("*[0-9].tmp")]
    if kind == "published":
        return [str(number) for number in run.snapshots.iterations()]
    return [str(path) for path in run.folder.glob("checkpoint.tmp")]


def _compared(
    number: int,
    run: Run,
    reference: Run,
    killed: int,
    code: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    if code or not run.is_finished:
        found = [f"exit code {code}: {' '.join(run.said.split())[-300:]}"]
    else:
        found = differences(reference, run)
    verdict = "; ".join(found[:5]) if found else "weights and metrics are identical"
    say(f"end       run {number}  after {killed} kills: {verdict}")
    return {"run": number, "kills": killed, "fault": "; ".join(found) or None}
