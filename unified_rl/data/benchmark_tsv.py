"""Benchmarks as VLMEvalKit keeps them: one TSV, images in base64, answers of choices in columns.

Read are the columns `index` and `question`, and where they are there `image` (base64, a list of
such texts, or the index of another row that shows the same image), `hint`, and `A` to `Z`.
"""

import base64
import binascii
import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import BinaryIO

from unified_rl.core.errors import DataError
from unified_rl.data.jsonl import BrokenRowError, existing_file

LINE_BYTES = 256 * 2**20
"""A longer line is passed over without being held in memory."""
FIELD_LENGTH = 192 * 2**20
"""Characters of one cell; a row with a longer one is broken."""
REFERENCE_LENGTH = 64
"""A text in `image` of up to so many characters is the index of another row."""
MOST_IMAGES = 32


@dataclass(frozen=True)
class TsvRow:
    """One row.

    Attributes:
        place: from 1, the header not counted.
        cells: its columns.
    """

    place: int
    cells: Mapping[str, str]

    @property
    def index(self) -> str:
        """Unique in the file."""
        return self.cells["index"]

    def prompt(self, suffix: str = "") -> str:
        """The question as VLMEvalKit asks it by default; some of its benchmarks ask otherwise.

        Source: VLMEvalKit, the prompts of its classes for choices and for plain questions.

        Args:
            suffix: put behind it, such as a request to answer by a single word.
        """
        options = {
            letter: self.cells[letter] for letter in ascii_uppercase if self.cells.get(letter)
        }
        if not options:
            return self.cells["question"] + suffix
        hint = f"Hint: {self.cells['hint']}\n" if self.cells.get("hint") else ""
        listed = "".join(f"{letter}. {text}\n" for letter, text in options.items())
        return (
            f"{hint}Question: {self.cells['question']}\nOptions:\n{listed}"
            f"Please select the correct answer from the options above. \n{suffix}"
        )


class BenchmarkTsv:
    """The rows of a file, read one by one; broken ones are passed over and told.

    Args:
        path: of the file.

    Raises:
        DataError: no such file, or one without the columns `index` and `question`.
    """

    def __init__(self, path: Path) -> None:
        self._path = existing_file(path)
        self.columns = self._header()
        self.broken: list[tuple[int, str]] = []
        self._referenced = self._shared_images()

    def rows(self) -> Iterator[TsvRow]:
        """Each good row; `broken` then lists place and reason of the others."""
        self.broken = []
        seen: set[str] = set()
        for place, cells in self._cells():
            if isinstance(cells, str):
                self.broken.append((place, cells))
            elif not cells["index"]:
                self.broken.append((place, "has no index"))
            elif cells["index"] in seen:
                self.broken.append((place, f"index {cells['index'][:100]!r} is there twice"))
            elif not cells["question"].strip():
                self.broken.append((place, "has no question"))
            else:
                seen.add(cells["index"])
                yield TsvRow(place, cells)

    def images(self, row: TsvRow) -> list[bytes]:
        """The image files that a row shows.

        Raises:
            BrokenRowError: they are not base64, too many, or of a row that is not there.
        """
        cell = row.cells.get("image", "").strip()
        if not cell:
            return []
        if len(cell) <= REFERENCE_LENGTH:
            if cell not in self._referenced:
                raise BrokenRowError(f"shows the image of row {cell!r}, which there is not")
            cell = self._referenced[cell]
        texts = [cell]
        if cell.startswith("["):
            count = 1 + cell.count(",")  # before there are as many texts
            if count > MOST_IMAGES:
                raise BrokenRowError(f"shows {count} images; {MOST_IMAGES} are the most")
            texts = [part.strip().strip("'\"") for part in cell.strip("[]").split(",")]
        try:
            return [base64.b64decode(text, validate=True) for text in texts]
        except (binascii.Error, ValueError) as error:
            raise BrokenRowError(f"shows an image that is not base64: {error}") from error

    def _header(self) -> list[str]:
        with self._path.open("rb") as file:
            first = next(_lines(file), b"")
        try:
            columns = next(csv.reader([first.decode("utf-8-sig")], delimiter="\t"), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self._path} has no readable header: {error}") from error
        for name in ("index", "question"):
            if name not in columns:
                raise DataError(f"{self._path} has no column {name!r}; it has {columns[:20]}")
        return columns

    def _shared_images(self) -> dict[str, str]:
        """The images of rows whose index stands in the place of another row's image."""
        if "image" not in self.columns:
            return {}
        wanted = {
            cells["image"].strip()
            for _, cells in self._cells()
            if isinstance(cells, dict) and 0 < len(cells["image"].strip()) <= REFERENCE_LENGTH
        }
        shared: dict[str, str] = {}
        if wanted:
            for _, cells in self._cells():
                if isinstance(cells, dict) and cells["index"] in wanted:
                    shared[cells["index"]] = cells["image"].strip()
        return {index: image for index, image in shared.items() if len(image) > REFERENCE_LENGTH}

    def _cells(self) -> Iterator[tuple[int, dict[str, str] | str]]:
        """Place and cells of each row, or what is wrong with it."""
        limit = csv.field_size_limit(FIELD_LENGTH)
        try:
            with self._path.open("rb") as file:
                lines = _lines(file)
                next(lines, None)
                reader = csv.reader(map(_decoded, lines), delimiter="\t")
                place = 0
                while True:
                    place += 1
                    try:
                        values = next(reader)
                    except StopIteration:
                        return
                    except csv.Error as error:
                        yield place, f"is not TSV: {error}"
                        continue
                    if len(values) != len(self.columns):
                        count = len(self.columns)
                        yield place, f"has {len(values)} cells under {count} columns"
                        continue
                    yield place, dict(zip(self.columns, values, strict=True))
        finally:
            csv.field_size_limit(limit)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines; of one over `LINE_BYTES` only the beginning, which then has too few cells."""
    while line := file.readline(LINE_BYTES):
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(LINE_BYTES)):
            pass
        yield line


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace")
