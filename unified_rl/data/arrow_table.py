"""Tables of the `datasets` library: parquet files, folders of `save_to_disk`, the Hugging Face Hub.

Rows are mapped from disk, so that a table of any size takes little memory. Cells are read as they
are stored and never through the library's decoders, which would open whatever path or address a
row names.
"""

import glob
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.data.images import IMAGE_BYTES
from unified_rl.data.jsonl import LINE_BYTES, BrokenRowError

if TYPE_CHECKING:
    from datasets import Dataset

ROW_BYTES = IMAGE_BYTES + LINE_BYTES
"""A row that takes more is broken: more than the largest image and the longest texts."""

_SHARD = re.compile(r"(\w+?)-\d+-of-\d+.*\.parquet")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class ArrowTable:
    """Rows of a data set in memory or mapped from disk; see `tables.Table`.

    Args:
        dataset: of the `datasets` library.
        path: what messages call it.
        folder: that paths of images are relative to; None where it has none.
    """

    def __init__(self, dataset: "Dataset", path: str, folder: Path | None = None) -> None:
        self.path, self.folder = path, folder
        self.columns = tuple(dataset.column_names)
        self._dataset = dataset.with_format("arrow")
        self._views: dict[tuple[str, ...], Dataset] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def number(self, index: int) -> int:
        """Rows are counted from 1."""
        return index + 1

    def row(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """The named cells, images as they are stored."""
        try:
            cells = self._view(tuple(names))[index]
            # an offset in a damaged file would lead outside of it
            cells.validate(full=True)
            if cells.nbytes > ROW_BYTES:
                raise BrokenRowError(f"takes {cells.nbytes} bytes, over {ROW_BYTES}")
            return cells.to_pylist()[0]
        except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors, as ours is
            if isinstance(error, BrokenRowError):
                raise
            raise BrokenRowError(f"is damaged: {_first_line(error)}") from error

    def column(self, name: str) -> Iterator[Any]:
        """One cell of every row."""
        for part in self._view((name,)).iter(batch_size=1000):
            yield from part.column(name).to_pylist()

    def _view(self, names: tuple[str, ...]) -> "Dataset":
        if names not in self._views:  # choosing columns takes longer than reading a row
            self._views[names] = self._dataset.select_columns(list(names))
        return self._views[names]


def parquet_table(path: Path, split: str, cache_folder: str | None) -> ArrowTable:
    """A parquet file, or the shards of a split in a folder or its subfolder `data`.

    The library copies the rows into its cache once, as Arrow files, for a row of a parquet file
    cannot be read alone. That takes as much disk again.

    Raises:
        DataError: no parquet files, none of that split, or files that cannot be read.
    """
    from datasets import load_dataset

    files = [path] if path.is_file() else _shards(path, split)
    names = [glob.escape(str(file.resolve())) for file in files]
    try:
        dataset = load_dataset("parquet", data_files=names, split="train", cache_dir=cache_folder)
    except Exception as error:  # the library raises whatever its parts do
        raise DataError(f"{path} cannot be read as parquet: {_cause(error)}") from error
    return ArrowTable(dataset, str(path), path.parent if path.is_file() else path)


def saved_table(path: Path, split: str) -> ArrowTable:
    """A folder that `datasets.save_to_disk` wrote, of one data set or of several splits.

    Raises:
        DataError: no such split, or files that cannot be read or lie elsewhere.
    """
    from datasets import Dataset

    folder = path
    if (path / "dataset_dict.json").is_file():
        splits = [entry.name for entry in path.iterdir() if (entry / "state.json").is_file()]
        if split not in splits:
            raise DataError(f"{path} has no split {split!r}; {nearest(split, splits)}")
        folder = path / split
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        for name in (file["filename"] for file in state["_data_files"]):
            if Path(name).name != name or "\\" in name:
                raise ValueError(f"state.json names {name!r}, which is no file of the folder")
        return ArrowTable(Dataset.load_from_disk(str(folder)), str(path), path)
    except Exception as error:
        raise DataError(f"{folder} cannot be read: {_cause(error)}") from error


def hub_table(name: str, split: str, revision: str | None, cache_folder: str | None) -> ArrowTable:
    """A data set of the Hugging Face Hub, downloaded into the library's cache. No code is run.

    Raises:
        ConfigError: a name that is no "owner/name", or that is a folder here.
        DataError: it cannot be loaded.
    """
    from datasets import load_dataset

    if not _HUB_ID.fullmatch(name):
        raise ConfigError(f"path={name} is no data set of the Hub; give owner/name, or hub=false")
    if Path(name).exists():
        raise ConfigError(f"path={name} is on this machine; set hub=false to read it")
    try:
        dataset = load_dataset(name, split=split, revision=revision, cache_dir=cache_folder)
    except Exception as error:
        raise DataError(
            f"{name} (split {split}) cannot be loaded from the Hugging Face Hub: {_cause(error)}"
        ) from error
    return ArrowTable(dataset, name)


def _shards(folder: Path, split: str) -> list[Path]:
    """Parquet files of a folder in order; where names tell splits apart, those of one split."""
    files = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no *.parquet, nor does {folder / 'data'}")
    splits = {file: named[1] for file in files if (named := _SHARD.fullmatch(file.name))}
    if not splits:
        return files
    chosen = [file for file in files if splits.get(file) == split]
    if not chosen:
        raise DataError(f"{folder} has no split {split!r}; {nearest(split, set(splits.values()))}")
    return chosen


def _cause(error: BaseException) -> str:
    """What went wrong, on one line."""
    from datasets.exceptions import DatasetGenerationError

    # it says no more than that a data set was being made
    while isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
