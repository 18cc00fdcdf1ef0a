"""Random draws from a table too large to be checked at the start, broken rows set aside."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.data.jsonl import BrokenRowError, Quarantine
from unified_rl.data.tables import Table

CHECKED_ROWS = 32
"""Rows, evenly spread, that are read at the start."""

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class CheckedRows(Generic[Item]):
    """What is made of the rows of a table, drawn at random.

    Some rows are read at the start, so that a table of another format fails before anything is
    trained; the others when they are drawn. A broken row is listed and another one drawn: what
    `draw` returns depends on its generator alone, whatever was drawn before.

    Args:
        table: of the rows.
        indices: rows to draw from, one at least.
        load: makes an item of the row at an index; raises BrokenRowError for one that is broken.
        quarantine: file that lists number, id (none here) and reason of broken rows; None is
            `.quarantine.jsonl` behind a local table's path. It exists only if there are any.
        max_broken: share of broken ones among the rows read so far, from 0 to 1, above which
            the table is refused.

    Raises:
        DataError: too many broken rows, or all of them.
        ConfigError: `max_broken` outside of its range.
    """

    def __init__(
        self,
        table: Table,
        indices: Sequence[int],
        load: Callable[[int], Item],
        quarantine: str | None,
        max_broken: float,
    ) -> None:
        if not 0 <= max_broken <= 1:
            raise ConfigError(f"max_broken={max_broken} must be from 0 to 1")
        self._table, self._indices, self._load = table, indices, load
        self._max_broken = max_broken
        self._read: set[int] = set()
        self._broken: dict[int, str] = {}
        if quarantine is None and table.folder is not None:
            quarantine = f"{table.path}.quarantine.jsonl"
        self._quarantine = None if quarantine is None else Quarantine(Path(quarantine))
        self._check_some()

    def __len__(self) -> int:
        """Number of rows to draw from, good or broken."""
        return len(self._indices)

    @property
    def broken_count(self) -> int:
        """Number of rows found broken so far."""
        return len(self._broken)

    def draw(self, rng: np.random.Generator) -> Item:
        """What is made of a random good row.

        Raises:
            DataError: too many rows have turned out broken.
        """
        while True:
            index = int(self._indices[int(rng.integers(len(self)))])
            if index in self._broken:
                continue
            try:
                item = self._load(index)
            except BrokenRowError as error:
                self._set_aside(index, str(error))
                if self._quarantine is not None:
                    self._quarantine.append(self._table.number(index), None, str(error))
                self._check_share()
            else:
                self._read.add(index)
                return item

    def _check_some(self) -> None:
        places = np.linspace(0, len(self) - 1, min(len(self), CHECKED_ROWS)).astype(int)
        for index in (int(self._indices[place]) for place in places):
            try:
                self._load(index)
                self._read.add(index)
            except BrokenRowError as error:
                self._set_aside(index, str(error))
        if self._quarantine is not None:
            with self._quarantine as listed:
                for index, reason in self._broken.items():
                    listed.put(self._table.number(index), None, reason)
        self._check_share()

    def _set_aside(self, index: int, reason: str) -> None:
        if not self._broken:
            logger.warning(
                "%s row %d %s; broken rows are passed over",
                self._table.path,
                self._table.number(index),
                reason,
            )
        self._read.add(index)
        self._broken[index] = reason

    def _check_share(self) -> None:
        read, broken = len(self._read), self.broken_count
        if broken < len(self) and broken <= self._max_broken * read:
            return
        first = next(iter(self._broken))
        listed = f"; listed in {self._quarantine.path}" if self._quarantine is not None else ""
        raise DataError(
            f"{self._table.path}: {broken} of {read} rows read are broken, more than "
            f"max_broken={self._max_broken} or all of them; row {self._table.number(first)} "
            f"{self._broken[first]}{listed}"
        )
