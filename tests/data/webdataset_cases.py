"""The case of our own schema in tar shards, and shards with anything in them."""

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.data.adapter_cases import AdapterCase, bomb, cut, hundred_megapixels, outside
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.data.webdataset import WebDatasetSource
from unified_rl.data.webdataset_writer import write_shard

Members = list[tuple[tarfile.TarInfo, bytes]]


def story(number: int) -> Sample:
    """A sample with a picture in its prompt and one in its target."""
    pictures = np.random.default_rng(number).integers(0, 256, (2, 7, 9, 3), dtype=np.uint8)
    return Sample(
        id=f"story {number}",
        task=Task.INTERLEAVED,
        prompt=(Text(f"go on {number}"), Image(pictures[0])),
        target=(Text("so"), Image(pictures[1])),
        facts={"number": number},
    )


def write_webdataset(folder: Path) -> None:
    for shard in range(2):
        samples = [story(4 * shard + number) for number in range(4)]
        write_shard(folder / f"stories-{shard}.tar", samples)


def changed(shard: Path, change: Callable[[Members], Members], **settings: object) -> None:
    """Writes a shard anew with other members."""
    with tarfile.open(shard) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]
    write_tar(shard, change(members), **settings)


def write_tar(shard: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], **settings) -> None:
    settings = {"format": tarfile.USTAR_FORMAT, **settings}
    with tarfile.open(shard, "w", **settings) as archive:
        for member, content in members:
            member.size = len(content) if member.isfile() else member.size
            archive.addfile(member, io.BytesIO(content) if member.isfile() else None)


def with_content(part: str, content: bytes) -> Callable[[Members], Members]:
    return lambda members: [(m, content if m.name == part else c) for m, c in members]


def named(old: str, new: str) -> Callable[[Members], Members]:
    def change(members: Members) -> Members:
        for member, _ in members:
            member.name = new if member.name == old else member.name
        return members

    return change


def first(folder: Path) -> Path:
    return folder / "stories-0.tar"


WEBDATASET = AdapterCase(
    name="webdataset",
    row_count=8,
    write=write_webdataset,
    open=lambda folder, **settings: WebDatasetSource(str(folder), **settings),
    hazards={
        "truncated": lambda folder: cut(first(folder)),
        "bomb": lambda folder: changed(first(folder), with_content("000002.1.png", bomb())),
        "climbing": lambda folder: changed(
            first(folder), named("000002.1.png", f"{outside(folder)}")
        ),
        "not_utf8": lambda folder: changed(
            first(folder), named("000002.1.png", "000002.\udcff.png")
        ),
        "hundred_megapixels": lambda folder: changed(
            first(folder), with_content("000002.0.png", hundred_megapixels())
        ),
        "missing": lambda folder: changed(
            first(folder), lambda members: [m for m in members if m[0].name != "000002.1.png"]
        ),
    },
)

CASES = [WEBDATASET]
