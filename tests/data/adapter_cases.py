"""One case for each adapter: a fixture in its layout, and what can be wrong with it.

A new adapter joins `test_every_adapter.py` by a case in `CASES`; a part of it that lives in another
file appends to that list through `CASE_MODULES`.
"""

import importlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from unified_rl.data.jsonl import JsonlSource
from unified_rl.data.ordered_rows import OrderedRows

HAZARDS = (
    "truncated",  # the file or archive ends in the middle
    "bomb",  # a small file that unpacks to a huge one
    "climbing",  # a name that leads out of its folder, to a picture that is there
    "not_utf8",  # a line, name or text that is not UTF-8
    "hundred_megapixels",  # by its header
    "missing",  # a file that is not there
)


@dataclass(frozen=True)
class AdapterCase:
    """An adapter with its fixture.

    Attributes:
        name: of the case.
        row_count: good rows of the fixture; six or more.
        write: writes the fixture into an empty folder.
        open: opens it: `open(folder, **settings)` with settings of `DatasetAdapter`.
        hazards: each of `HAZARDS` by a function that spoils a fixture; at least one row breaks or
            is lost, and at least one stays good.
        without: hazards that the layout cannot have, and why.
    """

    name: str
    row_count: int
    write: Callable[[Path], None]
    open: Callable[..., OrderedRows]
    hazards: Mapping[str, Callable[[Path], None]]
    without: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def picture(path: Path, seed: int = 0, width: int = 9, height: int = 7) -> None:
    """A PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(path, format="PNG")


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A grey PNG of eight bits whose compressed pixels are what is given, fitting or not."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def hundred_megapixels() -> bytes:
    """A picture of 10 000 x 10 000 by its header, with nothing behind."""
    return png(10_000, 10_000)


def bomb() -> bytes:
    """150 KB that say they are 12 000 x 12 000 pixels and unpack to that."""
    return png(12_000, 12_000, bytes(12_001 * 12_000))


def cut(path: Path) -> None:
    """Ends a file at 55 of 100 bytes, which is the end of no line where all are alike."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 55 // 100])


def outside(folder: Path) -> str:
    """A path that leads from `folder` to a good picture that is not in it."""
    picture(folder.parent / "outside.png", seed=99)
    return "../outside.png"


def replace_bytes(path: Path, old: bytes, new: bytes) -> None:
    """Replaces what stands once in a file."""
    content = path.read_bytes()
    assert content.count(old) == 1, (path, old, content.count(old))
    path.write_bytes(content.replace(old, new))


def write_jsonl_fixture(folder: Path) -> None:
    rows = []
    for number in range(8):
        picture(folder / f"images/{number}.png", number)
        prompt = [{"text": f"what is {number}?"}, {"image": f"images/{number}.png"}]
        rows.append({"id": f"row {number}", "task": "understanding", "prompt": prompt})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


JSONL = AdapterCase(
    name="jsonl",
    row_count=8,
    write=write_jsonl_fixture,
    open=lambda folder, **settings: JsonlSource(str(folder / "rows.jsonl"), **settings),
    hazards={
        "truncated": lambda folder: cut(folder / "rows.jsonl"),
        "bomb": lambda folder: (folder / "images/2.png").write_bytes(bomb()),
        "climbing": lambda folder: replace_bytes(
            folder / "rows.jsonl", b"images/2.png", outside(folder).encode()
        ),
        "not_utf8": lambda folder: replace_bytes(
            folder / "rows.jsonl", b"what is 2?", b"what is \xff?"
        ),
        "hundred_megapixels": lambda folder: (folder / "images/2.png").write_bytes(
            hundred_megapixels()
        ),
        "missing": lambda folder: (folder / "images/2.png").unlink(),
    },
)

CASE_MODULES = (
    "tests.data.published_cases",
    "tests.data.webdataset_cases",
    "tests.data.paper_cases",
)
"""Modules that hold a list `CASES` of their own."""


def all_cases() -> list[AdapterCase]:
    """Every case, those of other files included."""
    cases = [JSONL]
    for module in CASE_MODULES:
        cases += importlib.import_module(module).CASES
    return cases
