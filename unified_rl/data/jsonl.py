"""Interleaved samples from a JSONL file of one's own, broken rows set aside.

One JSON object a line, in UTF-8:

    {"id": "a1",                      unique within the file
     "task": "interleaved",           a value of `core.sample.Task`
     "prompt": [{"text": "draw a cat"}, {"image": "cats/1.png"}],    at least one segment
     "target": [{"text": "<think> .. <vis>"}, {"image": "cats/2.png"}],    optional
     "facts": {"answer": "two"}}      optional; anything that rewards and evaluations check

Image paths are relative to `image_root`; PNG, JPEG and WebP with 8 bits a channel are read. Blank
lines are passed over.
"""

import hashlib
import json
import logging
import os
import warnings
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.core.sample import DrawnImage, Image, Sample, Segment, Task, Text
from unified_rl.data.images import (
    EIGHT_BIT_MODES,
    IMAGE_PIXELS,
    ImageError,
    check_fit,
    check_header,
    fit,
    path_inside,
    read_image,
)

LINE_BYTES = 4 * 2**20
"""A longer line is refused without being held in memory."""
REQUIRED_KEYS = ("id", "task", "prompt")
KEYS = (*REQUIRED_KEYS, "target", "facts")

logger = logging.getLogger(__name__)


class BrokenRowError(ValueError):
    """Why a row is set aside."""


class JsonlSource:
    """Rows of a JSONL file, drawn at random; the schema is this module's docstring.

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
        self._path = existing_file(Path(path))
        self._image_root = self._path.parent if image_root is None else Path(image_root)
        if not self._image_root.is_dir():
            raise DataError(f"image_root={image_root} is not a folder")
        self.image_size, self._image_fit = image_size, image_fit
        self._max_broken = max_broken
        self._quarantine = Quarantine(Path(quarantine or f"{path}.quarantine.jsonl"))
        self._offsets, self._lines = array("Q"), array("Q")
        self._spoilt: set[int] = set()
        self._broken_count = 0
        self._index()
        self._check_share()

    def __len__(self) -> int:
        """Number of rows that were good at the start."""
        return len(self._offsets)

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
                return self._load(index)
            except BrokenRowError as error:
                self._spoil(index, str(error))

    def sample(self, index: int) -> Sample:
        """The sample of a good row, counted from 0.

        Raises:
            IndexError: there is no such row.
            DataError: the row has broken since the start.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} is outside 0..{len(self) - 1}")
        try:
            return self._load(index)
        except BrokenRowError as error:
            raise DataError(f"{self._path} line {self._lines[index]}: {error}") from error

    def _index(self) -> None:
        seen: dict[bytes, int] = {}
        with self._path.open("rb") as file, self._quarantine as quarantine:
            for number, offset, line in numbered_lines(file):
                row_id = None
                try:
                    row = parse_row(line)
                    row_id = row.get("id")
                    self._check(row)
                    # digests, for ids may be long
                    digest = hashlib.blake2b(row["id"].encode(), digest_size=12).digest()
                    if seen.setdefault(digest, number) != number:
                        raise BrokenRowError(f"id {row_id!r} is taken by line {seen[digest]}")
                except BrokenRowError as error:
                    self._broken_count += 1
                    quarantine.put(number, row_id, str(error))
                else:
                    self._offsets.append(offset)
                    self._lines.append(number)
        logger.info("%s: %d rows, %d broken", self._path, len(self), self._broken_count)

    def _check_share(self) -> None:
        total = len(self) + self._broken_count
        broken = self._broken_count + len(self._spoilt)
        if not total:
            raise DataError(f"{self._path} holds no rows")
        if broken == total or broken > self._max_broken * total:
            listed = f"listed in {self._quarantine.path}"
            if not self._quarantine.written:
                listed = f"{self._quarantine.path} could not be written"
            raise DataError(
                f"{self._path}: {broken} of {total} rows are broken, more than "
                f"max_broken={self._max_broken} or all of them; {listed}"
            )

    def _spoil(self, index: int, reason: str) -> None:
        self._spoilt.add(index)
        line = self._lines[index]
        logger.warning("%s line %d: %s", self._path, line, reason)
        with self._path.open("rb") as file:
            row_id = _id_of(file, self._offsets[index])
        self._quarantine.append(line, row_id, reason)

    def _load(self, index: int) -> Sample:
        with self._path.open("rb") as file:
            file.seek(self._offsets[index])
            row = parse_row(file.readline(LINE_BYTES + 1))
        self._check(row)
        return Sample(
            id=row["id"],
            task=Task(row["task"]),
            prompt=tuple(map(self._segment, row["prompt"])),
            target=tuple(map(self._segment, row.get("target", ()))),
            facts=row.get("facts", {}),
        )

    def _segment(self, segment: Mapping[str, str]) -> Segment:
        if "text" in segment:
            return Text(segment["text"])
        with _naming(segment["image"]):
            image = read_image(path_inside(self._image_root, segment["image"]))
            if self.image_size is None:
                return Image(np.array(image))
            return Image(fit(image, self.image_size, self._image_fit))

    def _check(self, row: dict[str, Any]) -> None:
        """Raises BrokenRowError unless the row fits the schema and its images have good headers."""
        for key in REQUIRED_KEYS:
            if key not in row:
                raise BrokenRowError(f"has no {key!r}")
        for key in row:
            if key not in KEYS:
                raise BrokenRowError(f"{key!r} is none of {', '.join(KEYS)}; {nearest(key, KEYS)}")
        if not isinstance(row["id"], str) or not row["id"]:
            raise BrokenRowError(f"id {row['id']!r} is not a text")
        tasks = [task.value for task in Task]
        if row["task"] not in tasks:
            raise BrokenRowError(f"task {row['task']!r}: {nearest(str(row['task']), tasks)}")
        if not isinstance(row.get("facts", {}), dict):
            raise BrokenRowError("facts are not an object")
        if not row["prompt"]:
            raise BrokenRowError("the prompt is empty")
        for key in ("prompt", "target"):
            segments = row.get(key, [])
            if not isinstance(segments, list):
                raise BrokenRowError(f"{key} is not a list")
            for place, segment in enumerate(segments):
                self._check_segment(f"{key}[{place}]", segment)

    def _check_segment(self, where: str, segment: Any) -> None:
        if (
            not isinstance(segment, dict)
            or list(segment) not in (["text"], ["image"])
            or not isinstance(next(iter(segment.values())), str)
        ):
            raise BrokenRowError(f'{where} is neither {{"text": ..}} nor {{"image": ..}}')
        if "image" in segment:
            with _naming(segment["image"]):
                mode = check_header(path_inside(self._image_root, segment["image"]))
                if mode not in EIGHT_BIT_MODES:
                    raise ImageError(f"of mode {mode} has not 8 bits a channel")


@contextmanager
def _naming(image: str) -> Iterator[None]:
    """Makes what is wrong with an image a reason to set its row aside."""
    try:
        yield
    except ImageError as error:
        raise BrokenRowError(f"image {image!r} {error}") from error


def write_jsonl(path: str, samples: Iterable[Sample], image_folder: str = "images") -> int:
    """Writes samples in the schema of `JsonlSource`, which reads them back unchanged.

    Images become PNG files named by a hash of their content, so that equal ones are stored once.
    Every file is written beside its place and renamed: a half-written one is never seen.

    Args:
        path: of the JSONL file; replaced if it exists.
        samples: with ids of their own and JSON-able facts (tuples come back as lists).
        image_folder: for the images, relative to the folder of `path` and inside it.

    Returns:
        Number of samples written.

    Raises:
        DataError: a sample that would not be read back: names its id. `path` is left untouched.
    """
    target = Path(path)
    root = target.parent.resolve()
    folder = (root / image_folder).resolve()
    if not folder.is_relative_to(root):
        raise ConfigError(f"image_folder={image_folder} must lie inside {root}, beside {path}")
    folder.mkdir(parents=True, exist_ok=True)
    ids: set[str] = set()
    beside = _beside(target)
    try:
        with beside.open("wb") as file:
            for sample in samples:
                if not sample.id or sample.id in ids:
                    raise DataError(f"sample id {sample.id!r} is empty or given twice")
                ids.add(sample.id)
                file.write(_line(sample, folder, root))
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return len(ids)


def _line(sample: Sample, folder: Path, root: Path) -> bytes:
    if not sample.prompt:
        raise DataError(f"sample {sample.id!r} has an empty prompt")
    if any(isinstance(segment, DrawnImage) for segment in (*sample.prompt, *sample.target)):
        raise DataError(
            f"sample {sample.id!r} has codes that a policy drew, which JSONL has no place for; "
            "give their pixels"
        )
    row = {
        "id": sample.id,
        "task": sample.task.value,
        "prompt": [_written(segment, folder, root) for segment in sample.prompt],
        "target": [_written(segment, folder, root) for segment in sample.target],
        "facts": dict(sample.facts),
    }
    row = {key: value for key, value in row.items() if value or key in REQUIRED_KEYS}
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"sample {sample.id!r} cannot be written as JSON: {error}") from error
    if len(line) > LINE_BYTES:
        raise DataError(f"sample {sample.id!r} takes {len(line)} bytes, limit {LINE_BYTES}")
    return line


def _written(segment: Segment, folder: Path, root: Path) -> dict[str, str]:
    if isinstance(segment, Text):
        return {"text": segment.text}
    pixels = np.ascontiguousarray(segment.pixels)
    height, width, _ = pixels.shape
    if not 0 < height * width <= IMAGE_PIXELS:
        raise DataError(f"an image of {width} x {height} pixels is outside 1..{IMAGE_PIXELS}")
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:24]
    file = folder / f"{digest}.png"
    if not file.exists():
        beside = _beside(file)
        try:
            PillowImage.fromarray(pixels).save(beside, format="PNG")
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
    return {"image": file.relative_to(root).as_posix()}


class Quarantine:
    """The list of broken rows: written beside at the start and renamed, later appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = True
        self._beside = _beside(path)
        self._file: BinaryIO | None = None

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._file is None:
                if self.written and kind is None:
                    self.path.unlink(missing_ok=True)  # an old list, now untrue
                return
            self._file.close()
            if kind is None:
                self._beside.replace(self.path)
        except OSError as error:
            self._give_up(error)
        finally:
            self._file = None
            with suppress(OSError):
                self._beside.unlink()

    def put(self, place: int | str, row_id: Any, reason: str) -> None:
        if not self.written:
            return
        try:
            self._file = self._file or self._beside.open("wb")
            self._file.write(_record(place, row_id, reason))
        except OSError as error:
            self._give_up(error)

    def append(self, place: int | str, row_id: Any, reason: str) -> None:
        if not self.written:
            return
        try:
            # one short write in append mode, so that several processes do not mix their lines
            with self.path.open("ab", buffering=0) as file:
                file.write(_record(place, row_id, reason))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.written = False
        warnings.warn(f"broken rows are not listed in {self.path}: {error}", stacklevel=2)


def _record(place: int | str, row_id: Any, reason: str) -> bytes:
    row_id = row_id[:200] if isinstance(row_id, str) else None
    place = {"line": place} if isinstance(place, int) else {"place": place[:1000]}
    return json.dumps({**place, "id": row_id, "reason": reason[:1000]}).encode() + b"\n"


def _beside(path: Path) -> Path:
    """Where a file is written before it is renamed; one place a process."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


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
        BrokenRowError: the line is too long, no JSON object, or holds text that is not Unicode.
    """
    if len(line) > LINE_BYTES:
        raise BrokenRowError(f"is longer than {LINE_BYTES} bytes")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BrokenRowError(f"is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BrokenRowError("is not a JSON object")
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
