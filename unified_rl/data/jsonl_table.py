"""Rows of a JSONL file as a table, read one at a time."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unified_rl.data.jsonl import (
    LINE_BYTES,
    BrokenRowError,
    existing_file,
    numbered_lines,
    parse_row,
)

NAMING_ROWS = 256
"""Rows whose keys are the columns of a file."""


class JsonlTable:
    """One JSON object a line; see `tables.Table`. Only places of lines are held in memory.

    Args:
        path: of the file; its folder is the one that image paths are relative to.

    Raises:
        DataError: no such file.
    """

    def __init__(self, path: Path) -> None:
        self._file = existing_file(path)
        self.path, self.folder = str(path), path.parent
        self._offsets, self._lines = array("Q"), array("Q")
        columns: dict[str, None] = {}
        with path.open("rb") as file:
            for number, offset, line in numbered_lines(file):
                self._offsets.append(offset)
                self._lines.append(number)
                if len(self._offsets) <= NAMING_ROWS:
                    columns.update(dict.fromkeys(_keys(line)))
        self.columns = tuple(columns)

    def __len__(self) -> int:
        return len(self._offsets)

    def number(self, index: int) -> int:
        """The number of its line, from 1; blank lines count."""
        return self._lines[index]

    def row(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """Those of the named cells that the row has."""
        with self._file.open("rb") as file:
            file.seek(self._offsets[index])
            row = parse_row(file.readline(LINE_BYTES + 1))
        return {name: row[name] for name in names if name in row}

    def column(self, name: str) -> Iterator[Any]:
        """One cell of every row, None where there is none."""
        with self._file.open("rb") as file:
            for _, _, line in numbered_lines(file):
                try:
                    yield parse_row(line).get(name)
                except BrokenRowError:
                    yield None


def _keys(line: bytes) -> tuple[str, ...]:
    try:
        return tuple(parse_row(line))
    except BrokenRowError:
        return ()
