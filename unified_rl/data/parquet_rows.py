"""Rows of parquet files, read a row group at a time without a copy on disk."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unified_rl.core.errors import DataError
from unified_rl.data.images import IMAGE_BYTES
from unified_rl.data.quarantine import BrokenRowError

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema, Table

GROUP_BYTES = 2**30
"""A row group whose chosen columns take more memory is refused."""
CELL_BYTES = IMAGE_BYTES
"""A row group with a longer cell is refused."""
KEY_BYTES = 2**16
"""The same of a column that is read as a whole."""
BATCH_BYTES = 64 * 2**20
BATCH_ROWS = 4096


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
        self._texts: dict[Path, list[str]] = {}
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
        """One cell of every row behind its number; None for one that is damaged.

        Those of a damaged row group, or of one with a cell over `KEY_BYTES`, are passed over.
        """
        for group in self._groups:
            row = group.first
            try:
                for batch in self._batches(group, [name], KEY_BYTES):
                    for cell in batch.column(0):
                        yield row, _value(cell)
                        row += 1
            except Exception as error:  # the library raises whatever its parts do
                self.lost.append(
                    (group.file.name, f"row group {group.number} is damaged: {_first_line(error)}")
                )

    def rows(self, first: int, count: int) -> Iterator[dict[str, Any]]:
        """The chosen columns of some rows that follow one another.

        Raises:
            BrokenRowError: one of them cannot be read.
        """
        for row in range(first, first + count):
            index = bisect_right(self._firsts, row) - 1
            cells = self._group(index).slice(row - self._firsts[index], 1)
            if not cells.num_rows or not set(self._columns) <= set(cells.column_names):
                raise BrokenRowError("is not in its row group, which is damaged")
            try:
                yield cells.to_pylist()[0]
            except ValueError as error:  # text that is not UTF-8
                raise BrokenRowError(f"is damaged: {_first_line(error)}") from error

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
            leaves = (opened.schema.column(index) for index in range(len(opened.schema)))
            self._texts[file] = [
                leaf.path
                for leaf in leaves
                if leaf.physical_type == "BYTE_ARRAY" and leaf.path.split(".")[0] in self._columns
            ]
            for number in range(opened.metadata.num_row_groups):
                group = opened.metadata.row_group(number)
                self._groups.append(_Group(file, number, self._count))
                self._count += group.num_rows

    def _group(self, index: int) -> "Table":
        import pyarrow

        if self._cached is None or self._cached[0] != index:
            batches, size = [], 0
            try:
                for batch in self._batches(self._groups[index], self._columns, CELL_BYTES):
                    # what a file says of its sizes need not be true
                    size += batch.nbytes
                    if size > GROUP_BYTES:
                        raise BrokenRowError(f"lies in a row group of over {GROUP_BYTES} bytes")
                    batches.append(batch)
            except BrokenRowError:
                raise
            except Exception as error:  # the library raises whatever its parts do
                raise BrokenRowError(f"is damaged: {_first_line(error)}") from error
            table = pyarrow.Table.from_batches(batches) if batches else pyarrow.table({})
            self._cached = index, table
        return self._cached[1]

    def _batches(
        self, group: _Group, names: list[str], longest_cell: int
    ) -> "Iterator[RecordBatch]":
        """The rows of a group, so many at a time as fit into `BATCH_BYTES`.

        A file may hold a long text once for a million rows, which reading unfolds. Such texts are
        in its dictionaries, which are read first.
        """
        import pyarrow.parquet as parquet

        longest = 1
        with parquet.ParquetFile(group.file, read_dictionary=self._texts[group.file]) as file:
            for batch in islice(file.iter_batches(1, [group.number], names), 1):
                longest = max(longest, *map(_longest, batch.columns))
        if longest > longest_cell:
            raise BrokenRowError(f"lies beside a cell of {longest} bytes, over {longest_cell}")
        row_count = min(max(BATCH_BYTES // longest, 1), BATCH_ROWS)
        with parquet.ParquetFile(group.file) as file:
            yield from file.iter_batches(row_count, [group.number], names)


def _longest(cells: Any) -> int:
    """Bytes of the longest text or content in the dictionaries of a column."""
    from pyarrow import compute, types

    if types.is_dictionary(cells.type):
        return compute.max(compute.binary_length(cells.dictionary)).as_py() or 0
    if types.is_struct(cells.type):
        return max(map(_longest, cells.flatten()), default=0)
    if types.is_list(cells.type) or types.is_large_list(cells.type):
        return _longest(cells.flatten())
    return 0


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except ValueError:  # text that is not UTF-8
        return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
