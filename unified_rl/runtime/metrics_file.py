"""The metrics of a run as CSV, one row an iteration, whatever kills it."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from unified_rl.core.durable import disk_is_full, write_text
from unified_rl.core.errors import StorageError


class MetricsFile(Logger):
    """`metrics.csv`: a line for each iteration, on disk at once; columns in alphabetic order.

    Lightning's `CSVLogger` deletes the file before it writes the first row of a resumed run, and
    rewrites it in place where a column is new; a kill then takes all rows along.

    Args:
        path: of the file; what an earlier run left there is replaced at the first row, unless
            `keep` comes first.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] | None = None  # None before this run has written

    @property
    def name(self) -> str:
        """No folder of its own."""
        return ""

    @property
    def version(self) -> str:
        """The folder's name."""
        return self.path.parent.name

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return str(self.path.parent.parent)

    @property
    def log_dir(self) -> str:
        """The folder of the file."""
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `result.json` has the configuration."""

    @rank_zero_only
    def keep(self, iteration: int) -> None:
        """Goes on with the rows of a killed run that came before `iteration`."""
        self._rewrite([row for row in _whole_rows(self.path) if _iteration(row) < iteration])

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends a row.

        Raises:
            StorageError: the disk is full, for one.
        """
        row = dict(metrics) if step is None else {**metrics, "step": step}
        try:
            if self._columns is None:
                self._rewrite([])
            if set(row) <= set(self._columns):
                line = _table(self._columns, [row], header=False)
                with self.path.open("a", encoding="utf-8", newline="") as file:
                    file.write(line)
            else:
                self._rewrite([*_whole_rows(self.path), row])
        except OSError as error:
            mend = "free some space" if disk_is_full(error) else "make it writable"
            raise StorageError(
                f"writing {self.path} failed ({error.strerror or error}); {mend}, then the same "
                "command goes on from the last checkpoint"
            ) from error

    @rank_zero_only
    def save(self) -> None:
        """Flushes the rows to the disk."""
        if self.path.exists():
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        """The whole file; a kill leaves the one before."""
        self._columns = sorted({name for row in rows for name, cell in row.items() if cell != ""})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if rows:
            write_text(self.path, _table(self._columns, rows, header=True))
        else:
            self.path.unlink(missing_ok=True)


def _table(columns: list[str], rows: list[dict[str, Any]], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _whole_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file, without a last line that a kill cut off."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    return [
        {name: value for name, value in row.items() if isinstance(name, str) and value is not None}
        for row in csv.DictReader(io.StringIO(whole))
    ]


def _iteration(row: Mapping[str, str]) -> float:
    """Infinite where the row names none."""
    try:
        return float(row.get("iteration") or "inf")
    except ValueError:
        return float("inf")
