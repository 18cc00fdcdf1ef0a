"""Interleaved samples from a JSONL file of one's own, broken rows set aside.

One JSON object a line, in UTF-8, as `interleaved_row` has it. Image paths are relative to
`image_root`; PNG, JPEG and WebP with 8 bits a channel are read. Blank lines are passed over.
"""

import hashlib
import json
import logging
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.core.printable import printable
from unified_rl.core.sample import Image, Sample
from unified_rl.data.images import (
    EIGHT_BIT_MODES,
    ImageError,
    check_fit,
    check_header,
    fit,
    path_inside,
    read_image,
)
from unified_rl.data.interleaved_row import check_row, sample_of
from unified_rl.data.nesting import NESTING, nested_too_deep
from unified_rl.data.ordered_rows import OrderedRows
from unified_rl.data.quarantine import BrokenRowError, Quarantine, ReasonCounts

LINE_BYTES = 4 * 2**20
"""A longer line is refused without being held in memory."""

logger = logging.getLogger(__name__)


class JsonlSource(OrderedRows):
    """Rows of a JSONL file, at random or in order; see `interleaved_row` for the schema.

    Every row is checked once at the start, images by their headers; images are decoded when drawn.
    Broken rows are passed over and listed in the quarantine file. What `draw` returns depends on
    its generator alone: a row found broken later is drawn anew, never taken out of the draw.

    Args:
        path: of the JSONL file.
        image_root: folder that image paths are relative to; None is the folder of the file.
        quarantine: file that lists line, id and reason of broken rows; None puts
            `.quarantine.jsonl` behind `path`. It exists only if there are any.
        image_size: side in pixels of the squares that images are made; None leaves them as they
            are.
        image_fit: how they are made squares: "crop", "pad" or "stretch", see `images.fit`; the
            policy's `capabilities.image_fit` says what its family does.
        max_broken: share of broken rows from 0 to 1 above which the file is refused.

    Raises:
        DataError: no such file or folder, no good row, or too many broken ones.
        ConfigError: a setting outside of its range.
    """

    def __init__(
        self,
        path: str,
        image_root: str | None = None,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        if image_size is not None and image_size < 1:
            raise ConfigError(f"image_size={image_size} must be at least 1, or null")
        check_fit(image_fit)
        if not 0 <= max_broken <= 1:
            raise ConfigError(f"max_broken={max_broken} must be from 0 to 1")
        self.path = existing_file(Path(path))
        self._image_root = self.path.parent if image_root is None else Path(image_root)
        if not self._image_root.is_dir():
            raise DataError(f"image_root={image_root} is not a folder")
        self.image_size, self._image_fit = image_size, image_fit
        self._max_broken = max_broken
        self._quarantine = Quarantine(Path(quarantine or f"{path}.quarantine.jsonl"))
        self._offsets, self._lines = array("Q"), array("Q")
        self._spoilt: set[int] = set()
        self._broken_count = 0
        self._reasons = ReasonCounts()
        self._index()
        self._check_share()

    def __len__(self) -> int:
        """Number of rows that were good at the start."""
        return len(self._offsets)

    def place(self, index: int) -> int:
        """The number of a row's line, from 1."""
        return self._lines[index]

    @property
    def broken_count(self) -> int:
        """Number of rows that were broken at the start or have been found so since."""
        return self._broken_count + len(self._spoilt)

    @property
    def broken_reasons(self) -> list[tuple[str, int]]:
        """Kinds of reasons why they are broken, with their counts; the most frequent first."""
        return self._reasons.most_common()

    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample; a row whose image turns out broken is quarantined and another one drawn.

        Raises:
            DataError: too many rows have turned out broken.
        """
        while True:
            self._check_share()
            index = int(rng.integers(len(self)))
            if index in self._spoilt:
                continue
            try:
                return self.load(index)
            except BrokenRowError as error:
                self._spoil(index, str(error))

    def take(self, index: int) -> Sample | None:
        """The sample of a row that was good at the start; None where it has broken since.

        Raises:
            DataError: too many rows have turned out broken.
        """
        if index not in self._spoilt:
            try:
                return self.load(index)
            except BrokenRowError as error:
                self._spoil(index, str(error))
                self._check_share()
        return None

    def sample(self, index: int) -> Sample:
        """The sample of a good row, counted from 0.

        Raises:
            IndexError: there is no such row.
            DataError: the row has broken since the start.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} is outside 0..{len(self) - 1}")
        try:
            return self.load(index)
        except BrokenRowError as error:
            raise DataError(f"{self.path} line {self._lines[index]}: {error}") from error

    def _index(self) -> None:
        seen: dict[bytes, int] = {}
        with self.path.open("rb") as file, self._quarantine as quarantine:
            for number, offset, line in numbered_lines(file):
                row_id = None
                try:
                    row = parse_row(line)
                    row_id = row.get("id")
                    check_row(row, self._check_image)
                    # digests, for ids may be long
                    digest = hashlib.blake2b(row["id"].encode(), digest_size=12).digest()
                    if seen.setdefault(digest, number) != number:
                        raise BrokenRowError(f"id {row_id!r} is taken by line {seen[digest]}")
                except BrokenRowError as error:
                    self._broken_count += 1
                    self._reasons.put(str(error))
                    quarantine.put(number, row_id, str(error))
                else:
                    self._offsets.append(offset)
                    self._lines.append(number)
        logger.info("%s: %d rows, %d broken", self.path, len(self), self._broken_count)

    def _check_share(self) -> None:
        total = len(self) + self._broken_count
        broken = self._broken_count + len(self._spoilt)
        if not total:
            raise DataError(f"{self.path} holds no rows")
        if broken == total or broken > self._max_broken * total:
            listed = f"listed in {self._quarantine.path}"
            if not self._quarantine.written:
                listed = f"{self._quarantine.path} could not be written"
            raise DataError(
                f"{self.path}: {broken} of {total} rows are broken, more than "
                f"max_broken={self._max_broken} or all of them; {listed}"
            )

    def _spoil(self, index: int, reason: str) -> None:
        self._spoilt.add(index)
        self._reasons.put(reason)
        line = self._lines[index]
        logger.warning("%s line %d: %s", self.path, line, printable(reason))
        with self.path.open("rb") as file:
            row_id = _id_of(file, self._offsets[index])
        self._quarantine.append(line, row_id, reason)

    def load(self, index: int) -> Sample:
        """The sample of a row.

        Raises:
            BrokenRowError: it has broken since the start.
        """
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            row = parse_row(file.readline(LINE_BYTES + 1))
        check_row(row, self._check_image)
        return sample_of(row, self._image)

    def _image(self, name: str) -> Image:
        try:
            image = read_image(path_inside(self._image_root, name))
            if self.image_size is None:
                return Image(np.array(image))
            return Image(fit(image, self.image_size, self._image_fit))
        except ImageError as error:
            raise BrokenRowError(f"image {name!r} {error}") from error

    def _check_image(self, name: str) -> None:
        try:
            mode = check_header(path_inside(self._image_root, name))
        except ImageError as error:
            raise BrokenRowError(f"image {name!r} {error}") from error
        if mode not in EIGHT_BIT_MODES:
            raise BrokenRowError(f"image {name!r} of mode {mode} has not 8 bits a channel")


def existing_file(path: Path) -> Path:
    """The path of a file that exists.

    Raises:
        DataError: it does not; names the nearest that does.
    """
    if path.is_file():
        return path
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {path.parent} for {path.name}")
    files = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    raise DataError(f"there is no file {path}; {nearest(path.name, files)}")


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number (from 1), offset and bytes of each line but blank ones; never much over LINE_BYTES."""
    number = offset = 0
    while line := file.readline(LINE_BYTES + 1):
        number, start = number + 1, offset
        offset += len(line)
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(LINE_BYTES + 1)):
            offset += len(rest)
        if line.strip():
            yield number, start, line


def parse_row(line: bytes) -> dict[str, Any]:
    """One JSON object.

    Raises:
        BrokenRowError: the line is too long, no JSON object, nested deeper than `NESTING`, or holds
            text that is not Unicode.
    """
    if len(line) > LINE_BYTES:
        raise BrokenRowError(f"is longer than {LINE_BYTES} bytes")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BrokenRowError(f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BrokenRowError("is not a JSON object")
    if line.count(b"[") + line.count(b"{") > NESTING and nested_too_deep(row):
        raise BrokenRowError(f"is nested deeper than {NESTING} lists and objects")
    try:  # half of a surrogate pair passes as JSON, but no tokenizer takes it
        if b"\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BrokenRowError(f"holds text that is not Unicode: {error.reason}") from error
    return row


def _id_of(file: BinaryIO, offset: int) -> Any:
    file.seek(offset)
    try:
        return parse_row(file.readline(LINE_BYTES + 1)).get("id")
    except BrokenRowError:
        return None
