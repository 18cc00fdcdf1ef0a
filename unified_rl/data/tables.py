"""One way to rows, whatever holds them: JSONL, parquet, `datasets.save_to_disk`, the Hub."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.data.arrow_table import hub_table, parquet_table, saved_table
from unified_rl.data.jsonl_table import JsonlTable

JSONL_SUFFIXES = (".jsonl", ".ndjson")


class Table(Protocol):
    """Rows of named cells, any of which is read without the others.

    Attributes:
        path: what messages call it.
        folder: that paths of images are relative to; None where it has none.
        columns: their names.
    """

    path: str
    folder: Path | None
    columns: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows, good or broken."""
        ...

    def number(self, index: int) -> int:
        """The number from 1 by which people find a row; `index` is from 0."""
        ...

    def row(self, index: int, names: Sequence[str]) -> Mapping[str, Any]:
        """The named cells of a row; one that it lacks is None or absent.

        Raises:
            BrokenRowError: it cannot be read.
        """
        ...

    def column(self, name: str) -> Iterator[Any]:
        """One cell of every row in order; None where there is none."""
        ...


def open_table(
    path: str,
    split: str = "train",
    hub: bool = False,
    revision: str | None = None,
    cache_folder: str | None = None,
) -> Table:
    """The table of a file, a folder, or a data set of the Hugging Face Hub.

    Args:
        path: a .jsonl or .parquet file, a folder of parquet shards, a folder that
            `datasets.save_to_disk` wrote, or with `hub` a name like "owner/name".
        split: which one to read of a folder or data set that has several. Shards are told apart
            by names like "train-00000-of-00002.parquet".
        hub: whether `path` is a data set of the Hub, to be downloaded; nothing is otherwise.
        revision: of the data set: a branch, tag or commit; None is the newest.
        cache_folder: for downloads and for parquet as it is read; None is the `datasets` library's.

    Raises:
        ConfigError: settings that do not go together.
        DataError: nothing there, or nothing that can be read.
    """
    if hub:
        return hub_table(path, split, revision, cache_folder)
    if revision is not None:
        raise ConfigError(f"revision={revision} has no effect on files; set hub=true or drop it")
    place = Path(path)
    if place.is_dir():
        if any((place / name).is_file() for name in ("state.json", "dataset_dict.json")):
            return saved_table(place, split)
        return parquet_table(place, split, cache_folder)
    if not place.exists():
        raise DataError(_nothing_at(place))
    suffix = place.suffix.lower()
    if suffix in JSONL_SUFFIXES:
        return JsonlTable(place)
    if suffix == ".parquet":
        return parquet_table(place, split, cache_folder)
    raise DataError(f"{path} is neither .jsonl nor .parquet, nor a folder of a data set")


def _nothing_at(place: Path) -> str:
    hint = "set hub=true if it is a data set of the Hugging Face Hub"
    if not place.parent.is_dir():
        return f"there is no {place}, nor a folder {place.parent}; {hint}"
    entries = [entry.name for entry in place.parent.iterdir()]
    return f"there is no {place}; {nearest(place.name, entries)} Or {hint}"
