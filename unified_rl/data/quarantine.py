"""The list of broken rows, and what makes a row broken."""

import json
import os
import re
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from unified_rl.core.printable import printable

REASONS = 256
"""Different kinds of reasons that are told apart; further ones count as one."""
FURTHER = "(further reasons)"

_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


class BrokenRowError(ValueError):
    """Why a row is set aside."""


class ReasonCounts:
    """How many rows are broken for which kind of reason, names and numbers left out."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def put(self, reason: str) -> None:
        """Counts one."""
        kind = _PARTICULAR.sub("..", printable(reason[:300]))
        full = len(self._counts) >= REASONS and kind not in self._counts
        self._counts[FURTHER if full else kind] += 1

    def most_common(self) -> list[tuple[str, int]]:
        """Kinds of reasons with their counts, the most frequent first."""
        return self._counts.most_common()


class Quarantine:
    """The list of broken rows: written beside at the start and renamed, later appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = True
        self._beside = beside(path)
        self._file: BinaryIO | None = None

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._file is None:
                if self.written and kind is None:
                    self.path.unlink(missing_ok=True)  # an old list, now untrue
                return
            self._file.close()
            if kind is None:
                self._beside.replace(self.path)
        except OSError as error:
            self._give_up(error)
        finally:
            self._file = None
            with suppress(OSError):
                self._beside.unlink()

    def put(self, place: int | str, row_id: Any, reason: str) -> None:
        if not self.written:
            return
        try:
            self._file = self._file or self._beside.open("wb")
            self._file.write(_record(place, row_id, reason))
        except OSError as error:
            self._give_up(error)

    def append(self, place: int | str, row_id: Any, reason: str) -> None:
        if not self.written:
            return
        try:
            # one short write in append mode, so that several processes do not mix their lines
            with self.path.open("ab", buffering=0) as file:
                file.write(_record(place, row_id, reason))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.written = False
        warnings.warn(f"broken rows are not listed in {self.path}: {error}", stacklevel=2)


def _record(place: int | str, row_id: Any, reason: str) -> bytes:
    row_id = row_id[:200] if isinstance(row_id, str) else None
    place = {"line": place} if isinstance(place, int) else {"place": place[:1000]}
    return json.dumps({**place, "id": row_id, "reason": reason[:1000]}).encode() + b"\n"


def beside(path: Path) -> Path:
    """Where a file is written before it is renamed; one place a process."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")
