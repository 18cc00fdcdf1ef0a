"""Writes the samples of any source in our own schema; a build that is killed goes on."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from unified_rl.core.durable import put, write_text
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Sample
from unified_rl.data.interleaved_row import written_row
from unified_rl.data.jsonl import LINE_BYTES
from unified_rl.data.jsonl_writer import ImageFolder
from unified_rl.data.quarantine import Quarantine
from unified_rl.data.source_walk import SourceWalk
from unified_rl.data.webdataset_writer import ShardWriter

ROWS, CARD, STATE, IDS, REFUSED = (
    "rows.jsonl",
    "build.json",
    "unfinished.json",
    "ids.bin",
    "refused.jsonl",
)
"""Files of a built folder: the rows (of format jsonl), how it was built, and while it is being
built where it stands and which ids there are; samples that could not be written, if there are any.
"""
FORMATS = ("jsonl", "webdataset")
_DIGEST = 12


@dataclass
class BuildCounts:
    """How far a build is.

    Attributes:
        passed: places of the source that are done.
        written: samples.
        broken: places whose row was broken.
        repeated: samples left out because their id was written before.
        refused: samples that cannot be written in our schema.
        parts: shards, or flushes of the file.
        size: bytes of the JSONL file.
    """

    passed: int = 0
    written: int = 0
    broken: int = 0
    repeated: int = 0
    refused: int = 0
    parts: int = 0
    size: int = 0


def build(
    walk: SourceWalk,
    output: Path,
    form: Literal["jsonl", "webdataset"],
    samples_per_part: int,
    settings: Mapping[str, Any],
    report: Callable[[int], None],
) -> BuildCounts:
    """Writes a folder: `rows.jsonl` and `images`, or `<folder>-000000.tar` and so on.

    Everything is written in `output`.part beside, which is renamed at the end. If it is there
    already, of a build that was killed, the build goes on from its last whole part.

    Args:
        walk: of the source.
        output: folder; must not exist.
        form: what is written.
        samples_per_part: a shard; of JSONL what a kill may cost.
        settings: JSON-able; a build only goes on under the same.
        report: called with the places that are done.

    Raises:
        ConfigError: the folder exists, or other settings than those of the build that was killed.
        DataError: nothing could be written, or too many rows are broken.
    """
    if form not in FORMATS:
        raise ConfigError(f"format={form!r} is none of {', '.join(FORMATS)}")
    if samples_per_part < 1:
        raise ConfigError(f"samples_per_part={samples_per_part} must be at least 1")
    if output.exists():
        raise ConfigError(f"output={output} exists; builds never overwrite, name another folder")
    unfinished = output.with_name(f"{output.name}.part")
    unfinished.mkdir(parents=True, exist_ok=True)
    counts = _begun(unfinished, settings, CARD)
    if counts is None:  # a card is what comes last
        counts = _begun(unfinished, settings, STATE) or BuildCounts()
        _go_on(walk, unfinished, output.name, form, samples_per_part, settings, report, counts)
        if not counts.written:
            shutil.rmtree(unfinished)
            raise DataError(f"nothing was written of {len(walk)} places of the source")
        card = {"format": form, "settings": dict(settings), "counts": asdict(counts)}
        write_text(unfinished / CARD, json.dumps(card, indent=2) + "\n")
    for name in (IDS, STATE):
        (unfinished / name).unlink(missing_ok=True)
    put(unfinished, output)
    return counts


def _go_on(
    walk: SourceWalk,
    folder: Path,
    name: str,
    form: str,
    samples_per_part: int,
    settings: Mapping[str, Any],
    report: Callable[[int], None],
    counts: BuildCounts,
) -> None:
    """Writes part after part, from where the counts stand, which it moves on."""
    for half in folder.rglob("*.tmp"):
        half.unlink()
    ids = _Ids(folder / IDS, counts.written)
    refused = _Refused(folder / REFUSED, counts.refused)
    while counts.passed < len(walk):
        with _part(form, folder, name, counts) as write:
            begun = counts.written
            while counts.passed < len(walk) and counts.written - begun < samples_per_part:
                samples = walk.samples_at(counts.passed)
                counts.broken += not samples
                for sample in samples:
                    _put(sample, write, ids, counts, refused)
                counts.passed += 1
                report(counts.passed)
        counts.parts += counts.written > begun
        ids.flush()
        state = {"settings": dict(settings), "counts": asdict(counts)}
        write_text(folder / STATE, json.dumps(state))


def _begun(folder: Path, settings: Mapping[str, Any], name: str) -> BuildCounts | None:
    """Where the build in a folder stands by one of its files; None where there is no such file."""
    try:
        state = json.loads((folder / name).read_text(encoding="utf-8"))
        if state["settings"] == json.loads(json.dumps(dict(settings))):
            return BuildCounts(**state["counts"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder / name} is damaged; delete {folder} to start anew") from error
    raise ConfigError(f"{folder} was begun with other settings; delete it, or name another output")


def _put(
    sample: Sample,
    write: Callable[[Sample], None],
    ids: "_Ids",
    counts: BuildCounts,
    refused: "_Refused",
) -> None:
    if sample.id in ids:
        counts.repeated += 1
        return
    try:
        write(sample)
    except DataError as error:
        counts.refused += 1
        refused.put(counts.passed, sample.id, str(error))
        return
    ids.add(sample.id)
    counts.written += 1


@contextmanager
def _part(
    form: str, folder: Path, name: str, counts: BuildCounts
) -> Iterator[Callable[[Sample], None]]:
    """A shard, or a stretch of the JSONL file, that is on the disk when the context ends."""
    if form == "webdataset":
        begun = counts.written
        path = folder / f"{name}-{counts.parts:06}.tar"
        with ShardWriter(path) as shard:
            yield shard.put
        if counts.written == begun:
            path.unlink()
        return
    images = ImageFolder(folder / ROWS)
    with _opened_at(folder / ROWS, counts.size) as file:
        yield lambda sample: file.write(written_row(sample, images.put, LINE_BYTES)) and None
        file.flush()
        os.fsync(file.fileno())
        counts.size = file.tell()


@contextmanager
def _opened_at(path: Path, size: int) -> Iterator[BinaryIO]:
    """A file to go on writing, what stands behind `size` cut off."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(size)
        yield file


class _Ids:
    """Digests of the ids that are written, kept in a file for who goes on."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count
        path.touch()
        with path.open("r+b") as file:
            file.truncate(count * _DIGEST)
            content = file.read()
        self._known = {content[i : i + _DIGEST] for i in range(0, len(content), _DIGEST)}
        if len(self._known) != count:
            raise ConfigError(f"{path} is damaged; delete {path.parent} to start anew")
        self._new: list[bytes] = []

    def __contains__(self, sample_id: str) -> bool:
        return _digest(sample_id) in self._known

    def add(self, sample_id: str) -> None:
        self._known.add(_digest(sample_id))
        self._new.append(_digest(sample_id))

    def flush(self) -> None:
        """Puts the new ones on the disk."""
        with self._path.open("ab") as file:
            file.write(b"".join(self._new))
            file.flush()
            os.fsync(file.fileno())
        self._new.clear()


class _Refused:
    """The list of samples that cannot be written; who goes on drops what the kill made untrue."""

    def __init__(self, path: Path, count: int) -> None:
        self._list = Quarantine(path)
        if path.exists():
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
            write_text(path, "".join(kept))
            if not kept:
                path.unlink()

    def put(self, place: int, sample_id: str, reason: str) -> None:
        self._list.append(f"place {place}", sample_id, reason)


def _digest(sample_id: str) -> bytes:
    return hashlib.blake2b(sample_id.encode("utf-8", "replace"), digest_size=_DIGEST).digest()
