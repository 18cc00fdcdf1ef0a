"""Rows of parquet files, read a row group at a time without a copy on disk."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unified_rl.core.errors import DataError
from unified_rl.data.quarantine import BrokenRowError

if TYPE_CHECKING:
    from pyarrow import Schema, Table

GROUP_BYTES = 2 * 2**30
"""A row group whose chosen columns say to take more, unpacked, is refused."""
BATCH_ROWS = 1024


class _Group(NamedTuple):
    file: Path
    number: int
    first: int
    """Row of the data set that it begins with."""


class ParquetRows:
    """The rows of a parquet file, or of all those of a folder in the order of their names.

    Args:
        path: of the file or folder.
        columns: that are read of it, and no others.

    Attributes:
        schema: of the first file that can be read.
        lost: file and reason of each part that cannot be read or lacks a column, by now.

    Raises:
        DataError: no parquet files, or none that can be read.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
        if not files:
            raise DataError(f"{path} holds no *.parquet")
        self._columns = list(dict.fromkeys(columns))
        self.schema: Schema | None = None
        self.lost: list[tuple[str, str]] = []
        self._groups: list[_Group] = []
        self._count = 0
        for file in files:
            try:
                self._add(file)
            except Exception as error:  # the library raises whatever its parts do
                self.lost.append((file.name, f"cannot be read as parquet: {_first_line(error)}"))
        if self.schema is None:
            raise DataError(f"{path}: {self.lost[0][0]} {self.lost[0][1]}")
        self._firsts = [group.first for group in self._groups]
        self._cached: tuple[int, Table] | None = None

    def __len__(self) -> int:
        return self._count

    def column(self, name: str) -> Iterator[tuple[int, Any]]:
        """One cell of every row behind its number; those of a damaged row group are passed over."""
        import pyarrow.parquet as parquet

        for group in self._groups:
            try:
                with parquet.ParquetFile(group.file) as file:
                    batches = file.iter_batches(BATCH_ROWS, [group.number], [name])
                    row = group.first
                    for batch in batches:
                        for value in _values(batch.column(0)):
                            yield row, value
                            row += 1
            except Exception as error:
                self.lost.append(
                    (group.file.name, f"row group {group.number} is damaged: {_first_line(error)}")
                )

    def rows(self, first: int, count: int) -> list[dict[str, Any]]:
        """The chosen columns of some rows that follow one another.

        Raises:
            BrokenRowError: they cannot be read.
        """
        rows: list[dict[str, Any]] = []
        while len(rows) < count:
            index = bisect_right(self._firsts, first + len(rows)) - 1
            start = first + len(rows) - self._firsts[index]
            inside = self._group(index).slice(start, count - len(rows))
            if not inside.num_rows:
                raise BrokenRowError("lies behind the end of its file")
            try:
                inside.validate(full=True)
                rows += inside.to_pylist()
            except Exception as error:  # the library raises whatever its parts do
                raise BrokenRowError(f"is damaged: {_first_line(error)}") from error
        return rows

    def _add(self, file: Path) -> None:
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(file) as opened:
            if self.schema is None:
                self.schema = opened.schema_arrow
            missing = [name for name in self._columns if name not in opened.schema_arrow.names]
            if missing:
                known = ", ".join(opened.schema_arrow.names[:30])
                self.lost.append((file.name, f"has no column {missing[0]!r}; it has {known}"))
                return
            for number in range(opened.metadata.num_row_groups):
                group = opened.metadata.row_group(number)
                self._groups.append(_Group(file, number, self._count))
                self._count += group.num_rows

    def _group(self, index: int) -> "Table":
        import pyarrow.parquet as parquet

        if self._cached is None or self._cached[0] != index:
            file, number, _ = self._groups[index]
            try:
                with parquet.ParquetFile(file) as opened:
                    size = _unpacked_bytes(opened.metadata.row_group(number), self._columns)
                    if size > GROUP_BYTES:
                        raise BrokenRowError(
                            f"lies in a row group of {size} bytes, over {GROUP_BYTES}"
                        )
                    table = opened.read_row_group(number, self._columns)
            except BrokenRowError:
                raise
            except Exception as error:
                raise BrokenRowError(f"is damaged: {_first_line(error)}") from error
            self._cached = index, table
        return self._cached[1]


def _values(cells: Any) -> Iterator[Any]:
    """Each cell, None for one that is damaged."""
    try:
        cells.validate(full=True)
        yield from cells.to_pylist()
    except ValueError:  # Arrow's errors are ValueErrors, and so are Unicode's
        for index in range(len(cells)):
            try:
                cells.slice(index, 1).validate(full=True)
                yield cells[index].as_py()
            except ValueError:
                yield None


def _unpacked_bytes(group: Any, columns: Sequence[str]) -> int:
    parts = (group.column(index) for index in range(group.num_columns))
    return sum(
        part.total_uncompressed_size
        for part in parts
        if part.path_in_schema.partition(".")[0] in columns
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
