"""Interleaved samples from tar shards in the manner of WebDataset, read in place.

A sample is the members of a shard that stand together and share the key before the first dot:

    000017.json      the row as `interleaved_row` has it; its images are named without the key
    000017.0.png     {"image": "0.png"}
    000017.1.jpg     {"image": "1.jpg"}

Nothing is unpacked. Other members of a sample are passed over; one that is no plain file breaks it.
"""

from array import array
from bisect import bisect_right
from pathlib import Path
from typing import BinaryIO, Literal

from unified_rl.core.errors import DataError
from unified_rl.core.sample import Image, Sample
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.images import IMAGE_BYTES
from unified_rl.data.interleaved_row import check_row, sample_of
from unified_rl.data.jsonl import LINE_BYTES, parse_row
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.tar_members import Member, TarDamageError, tar_members
from unified_rl.data.webdataset_index import sample_key, shard_index

MEMBERS = 4096
"""A sample with more members is broken."""
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst")


class WebDatasetSource(DatasetAdapter):
    """Rows of tar shards, at random or in order; see this module's docstring for the layout.

    Headers are read once and their places remembered in `.index.json` beside each shard, which is
    made anew when the shard changes. Order is that of the shards' names, and of samples in them.

    Args:
        path: of a .tar file, or of a folder of them.
        quarantine: file that lists place and reason of broken rows; None puts `.quarantine.jsonl`
            behind `path`. It exists only if there are any.
        image_size: side in pixels of the squares that images are made; None leaves them as they
            are.
        image_fit: how they are made squares; see `images.fit`.
        max_broken: share of broken rows from 0 to 1 above which the shards are refused.

    Raises:
        DataError: no such file or folder, no shards, no good row, or too many broken ones.
        ConfigError: a setting outside of its range.
    """

    def __init__(
        self,
        path: str,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        super().__init__(path, None, quarantine, image_size, image_fit, max_broken)
        self._shards = _shards(self.path)
        self._starts, self._ends, self._last = array("Q"), array("Q"), []
        for shard in self._shards:
            index = shard_index(shard)
            self._starts += index.starts
            self._ends += index.ends
            self._last.append(len(self._starts))
            self._faults += index.faults
        self._check_rows()

    def __len__(self) -> int:
        """Number of samples in all shards."""
        return len(self._starts)

    def place(self, index: int) -> str:
        """The shard, and the key of the sample where it can be read."""
        shard = self._shard(index)
        try:
            with shard.open("rb") as file:
                members = tar_members(file, self._ends[index], self._starts[index])
                return f"{shard.name} {sample_key(next(members).name)[0][:200]}"
        except (OSError, TarDamageError, StopIteration):
            return f"{shard.name} byte {self._starts[index]}"

    def load(self, index: int) -> Sample:
        """A sample in our own schema.

        Raises:
            BrokenRowError: no or a broken row, or an image that is not there or broken.
        """
        try:
            with self._shard(index).open("rb") as file:
                members = self._members(file, index)
                row = parse_row(_content(file, members, "json", LINE_BYTES))
                check_row(row, lambda name: _check(members, name, IMAGE_BYTES))
                return sample_of(row, lambda name: self._shown(file, members, name))
        except OSError as error:
            raise BrokenRowError(f"cannot be read: {error.strerror}") from error
        except TarDamageError as error:
            raise BrokenRowError(f"stands in an archive that {error}") from error

    def _shard(self, index: int) -> Path:
        return self._shards[bisect_right(self._last, index)]

    def _members(self, file: BinaryIO, index: int) -> dict[str, Member]:
        """The members of a sample by what they are to it."""
        members: dict[str, Member] = {}
        for member in tar_members(file, self._ends[index], self._starts[index]):
            if member.refusal is not None:
                raise BrokenRowError(f"member {member.name[:200]!r} {member.refusal}")
            part = sample_key(member.name)[1]
            if part in members:
                raise BrokenRowError(f"has two members {part[:200]!r}")
            if len(members) >= MEMBERS:
                raise BrokenRowError(f"has over {MEMBERS} members")
            members[part] = member
        return members

    def _shown(self, file: BinaryIO, members: dict[str, Member], name: str) -> Image:
        try:
            return self._image(_content(file, members, name, IMAGE_BYTES))
        except BrokenRowError as error:
            raise BrokenRowError(f"member {name[:200]!r}: {error}") from error


def _content(file: BinaryIO, members: dict[str, Member], name: str, limit: int) -> bytes:
    _check(members, name, limit)
    member = members[name]
    file.seek(member.offset)
    return file.read(member.size)


def _check(members: dict[str, Member], name: str, limit: int) -> None:
    if name not in members:
        raise BrokenRowError(f"has no member {name[:200]!r}")
    if members[name].size > limit:
        raise BrokenRowError(f"member {name!r} takes {members[name].size} bytes, over {limit}")


def _shards(path: Path) -> list[Path]:
    found = [path] if path.is_file() else sorted(path.glob("*.tar"))
    files = [file for file in found if file.is_file()]
    if not files:
        packed = any(file.suffix in PACKED for file in path.glob("*"))
        hint = "; unpack what is compressed, for samples are read in place" if packed else ""
        raise DataError(f"{path} holds no *.tar{hint}")
    for file in files:
        with file.open("rb") as opened:
            if opened.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5"):
                raise DataError(f"{file} is compressed; unpack it, for samples are read in place")
    return files
