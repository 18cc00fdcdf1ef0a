"""Where the samples of a tar shard stand: found by its headers once, and remembered beside."""

import hashlib
import json
import logging
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from unified_rl.data.checked_rows import Fault
from unified_rl.data.quarantine import beside
from unified_rl.data.tar_members import BLOCK, TarDamageError, tar_members

SUFFIX = ".index.json"
"""Behind the name of a shard."""
INDEX_BYTES = 256 * 2**20
"""A larger index is not read, but made anew."""
_VERSION = 1

logger = logging.getLogger(__name__)


class ShardIndex(NamedTuple):
    """Samples of a shard, in its order.

    Attributes:
        starts: offset of each sample's first header.
        ends: offset of what follows each.
        faults: what is no sample.
    """

    starts: array
    ends: array
    faults: list[Fault]


def sample_key(name: str) -> tuple[str, str]:
    """The key of a member's sample, and what the member is to it: "a/b.0.png" is ("a/b", "0.png").

    Source: the convention of webdataset: up to the first dot of the last part.
    """
    folder, slash, file = name.rpartition("/")
    key, _, part = file.partition(".")
    return folder + slash + key, part


def shard_index(shard: Path) -> ShardIndex:
    """The index of a shard: the remembered one if the shard has not changed since, by its size and
    time, else a new one. No more is believed of it than that each sample stands somewhere inside.
    """
    stat = shard.stat()
    stamp = {"version": _VERSION, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    place = shard.with_name(shard.name + SUFFIX)
    index = _remembered(place, stamp)
    if index is None:
        index = _scanned(shard, stat.st_size)
        _remember(place, stamp, index)
    return index


def _scanned(shard: Path, size: int) -> ShardIndex:
    starts, ends, faults = array("Q"), array("Q"), []
    seen: set[bytes] = set()
    last = None
    is_sample, end = False, 0
    with shard.open("rb") as file:
        try:
            for member in tar_members(file, size):
                end = member.end
                key, _ = sample_key(member.name)
                if key != last:
                    last = key
                    digest = hashlib.blake2b(key.encode(), digest_size=12).digest()
                    is_sample = digest not in seen
                    seen.add(digest)
                    if is_sample:
                        starts.append(member.start)
                        ends.append(end)
                    else:
                        faults.append(Fault(f"{shard.name} {key}", "has a key that is taken"))
                elif is_sample:
                    ends[-1] = end
            if end >= size:
                faults.append(Fault(shard.name, "has no mark at its end; it may be cut off"))
        except TarDamageError as error:
            faults.append(Fault(shard.name, f"{error}; what follows is lost"))
    return ShardIndex(starts, ends, faults)


def _remembered(place: Path, stamp: dict[str, int]) -> ShardIndex | None:
    try:
        if not place.is_file() or place.stat().st_size > INDEX_BYTES:
            return None
        read = json.loads(place.read_bytes())
        if {key: read[key] for key in stamp} != stamp:
            return None
        starts, ends = array("Q", read["starts"]), array("Q", read["ends"])
        faults = [Fault(str(where), str(reason)) for where, reason in read["faults"]]
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    size = stamp["size"]
    # what fills the last block up may have been cut off
    inside = all(s < min(e, size) and e < size + BLOCK for s, e in zip(starts, ends, strict=False))
    return ShardIndex(starts, ends, faults) if inside and len(starts) == len(ends) else None


def _remember(place: Path, stamp: dict[str, int], index: ShardIndex) -> None:
    content: dict[str, Any] = {**stamp, "starts": list(index.starts), "ends": list(index.ends)}
    content["faults"] = [list(fault) for fault in index.faults]
    unfinished = beside(place)
    try:
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(place)
    except OSError as error:
        logger.info("the index %s is not remembered: %s", place, error)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
