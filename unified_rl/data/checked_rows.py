"""Rows too many to be checked at the start, read at random or in order, broken ones set aside."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.printable import printable
from unified_rl.data.quarantine import BrokenRowError, Quarantine, ReasonCounts

CHECKED_ROWS = 32
"""Rows, evenly spread, that are read at the start."""
_UNREAD, _GOOD, _BROKEN = range(3)

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class Fault(NamedTuple):
    """What was lost before it became a row: a line that is no row, the rest of an archive.

    Attributes:
        place: where it stands: a number from 1, or words.
        reason: a clause to put behind the place.
    """

    place: int | str
    reason: str


class CheckedRows(Generic[Item]):
    """What is made of rows, drawn at random or taken one by one.

    Some rows are read at the start, so that data of another format fails before anything is
    trained; the others when they are drawn. A broken row is listed and another one drawn: what
    `draw` returns depends on its generator alone, whatever was drawn before.

    Attributes:
        reasons: why rows are broken, counted by kind.

    Args:
        name: what messages call the rows: a path.
        place: where the row at an index stands: a number from 1, or words.
        indices: rows to draw from, one at least, ascending.
        load: makes an item of the row at an index; raises BrokenRowError for one that is broken.
        quarantine: file that lists place, id (none here) and reason of broken rows; None lists
            them nowhere. It exists only if there are any.
        max_broken: share of broken ones among the rows read so far, from 0 to 1, above which
            the rows are refused.
        faults: found before; each counts as a broken row, their share is of all rows.

    Raises:
        DataError: too many broken rows, or all of them.
        ConfigError: `max_broken` outside of its range.
    """

    def __init__(
        self,
        name: str,
        place: Callable[[int], int | str],
        indices: Sequence[int],
        load: Callable[[int], Item],
        quarantine: str | None,
        max_broken: float,
        faults: Sequence[Fault] = (),
    ) -> None:
        if not 0 <= max_broken <= 1:
            raise ConfigError(f"max_broken={max_broken} must be from 0 to 1")
        self._name, self._place = name, place
        self._indices, self._load = indices, load
        self._max_broken = max_broken
        self._states = bytearray(int(indices[-1]) + 1 if len(indices) else 0)
        self._read_count = self._broken_count = 0
        self._fault_count = len(faults)
        self._first = faults[0] if faults else None
        self.reasons = ReasonCounts()
        for fault in faults:
            self.reasons.put(fault.reason)
        self._quarantine = None if quarantine is None else Quarantine(Path(quarantine))
        self._check_some(faults)

    def __len__(self) -> int:
        """Number of rows to draw from, good or broken."""
        return len(self._indices)

    @property
    def broken_count(self) -> int:
        """Number of rows found broken so far, faults included."""
        return self._broken_count + self._fault_count

    def draw(self, rng: np.random.Generator) -> Item:
        """What is made of a random good row.

        Raises:
            DataError: too many rows have turned out broken.
        """
        while True:
            before = self._broken_count
            item = self._read(int(self._indices[int(rng.integers(len(self)))]))
            if item is not None:
                return item
            if self._broken_count > before:
                self._check_share(self._broken_count, self._read_count)

    def take(self, index: int) -> Item | None:
        """What is made of the row at an index; None where it is broken.

        Neighbours often break together, so that the share of broken ones is of all rows here.

        Raises:
            DataError: too many rows have turned out broken.
        """
        before = self._broken_count
        item = self._read(index)
        if self._broken_count > before:
            self._check_share(self.broken_count, len(self) + self._fault_count)
        return item

    def _read(self, index: int) -> Item | None:
        if self._states[index] == _BROKEN:
            return None
        try:
            item = self._load(index)
        except BrokenRowError as error:
            fault = Fault(self._place(index), str(error))
            self._set_aside(index, fault)
            if self._quarantine is not None:
                self._quarantine.append(fault.place, None, fault.reason)
            return None
        self._mark(index, _GOOD)
        return item

    def _check_some(self, faults: Sequence[Fault]) -> None:
        places = np.linspace(0, len(self) - 1, min(len(self), CHECKED_ROWS)).astype(int)
        found = list(faults)
        for index in (int(self._indices[place]) for place in places):
            try:
                self._load(index)
                self._mark(index, _GOOD)
            except BrokenRowError as error:
                found.append(Fault(self._place(index), str(error)))
                self._set_aside(index, found[-1])
        if self._quarantine is not None:
            with self._quarantine as listed:
                for fault in found:
                    listed.put(fault.place, None, fault.reason)
        self._check_share(self._broken_count, self._read_count)
        self._check_share(self._fault_count, len(self) + self._fault_count)

    def _set_aside(self, index: int, fault: Fault) -> None:
        if self._first is None:
            self._first = fault
            logger.warning("%s %s; broken rows are passed over", self._name, _clause(fault))
        self._mark(index, _BROKEN)
        self._broken_count += 1
        self.reasons.put(fault.reason)

    def _mark(self, index: int, state: int) -> None:
        self._read_count += self._states[index] == _UNREAD
        self._states[index] = state

    def _check_share(self, broken: int, total: int) -> None:
        if self._broken_count < len(self) and broken <= self._max_broken * total:
            return
        if self._first is None:
            raise DataError(f"{self._name} holds no rows")
        listed = f"; listed in {self._quarantine.path}" if self._quarantine is not None else ""
        if not len(self):
            raise DataError(f"{self._name} holds no good row; {_clause(self._first)}{listed}")
        raise DataError(
            f"{self._name}: {broken} of {total} rows read are broken, more than "
            f"max_broken={self._max_broken} or all of them; {_clause(self._first)}{listed}"
        )


def _clause(fault: Fault) -> str:
    place = f"row {fault.place}" if isinstance(fault.place, int) else fault.place
    return printable(f"{place} {fault.reason}")
