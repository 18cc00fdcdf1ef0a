"""Checks our models against folders of recorded tensors of the published ones.

Run: python -m benchmarks.parity FOLDER...

Each folder holds weights of an official model at some small size, what went into the official code
and what came out. Every tensor gets a line. The exit code is 0 if all agree, 1 if one does not, is
missing or is unknown here, and 2 for a folder that cannot be read.
"""

import argparse
import importlib
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.parity.checks import FAILURES, Golden, Line, judge_all, read
from unified_rl.core.errors import DataError, UserError, nearest

FAMILIES = {"Janus": "janus", "Show-o": "showo", "VILA-U": "vila_u"}
"""The module here that checks a model, by the name in `config.json`."""


def lines(folder: Path) -> list[Line]:
    """The verdict on every tensor of a folder.

    Raises:
        DataError: the folder cannot be read, or is of a model that has no checks.
    """
    golden = read(folder)
    family = importlib.import_module(f"benchmarks.parity.{_family(golden)}")
    return list(judge_all(family.checks(golden), golden))


def _family(golden: Golden) -> str:
    model = str(golden.config.get("model"))
    if model not in FAMILIES:
        raise DataError(f"config.json: model is {model!r}; {nearest(model, FAMILIES)}")
    return FAMILIES[model]


def report(folder: Path) -> int:
    """Prints a folder's verdicts and their sum; 1 if one of them is a failure."""
    started = time.perf_counter()
    found = lines(folder)
    width = max((len(line.name) for line in found), default=0)
    for line in found:
        print(f"{line.name:{width}}  {_difference(line):>8}  {_tolerance(line):15}  {_say(line)}")
    counts = Counter(line.verdict for line in found)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    print(f"{folder}: {len(found)} tensors: {told} ({time.perf_counter() - started:.1f} s)\n")
    return int(any(counts[verdict] for verdict in FAILURES))


def _difference(line: Line) -> str:
    return "" if line.difference is None else f"{line.difference:.1e}"


def _tolerance(line: Line) -> str:
    if line.difference is None or line.check is None:
        return ""
    absolute, relative = line.check.absolute, line.check.relative
    if not absolute and not relative:
        return "exact"
    parts = [f"{absolute:g}"] if absolute else []
    return " + ".join([*parts, f"{relative:g}|x|"] if relative else parts)


def _say(line: Line) -> str:
    return f"{line.verdict}  ({line.note})" if line.note else line.verdict


def main() -> int:
    """The exit code."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    arguments.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    codes = []
    for folder in arguments.parse_args().folders:
        try:
            codes.append(report(folder))
        except UserError as error:
            print(f"error: {folder}: {error}", file=sys.stderr)
            codes.append(error.exit_code)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
