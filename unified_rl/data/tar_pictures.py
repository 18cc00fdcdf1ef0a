"""Pictures in tar archives of a folder, found by their names and read in place."""

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unified_rl.data.images import IMAGE_BYTES
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.tar_members import TarDamageError, tar_members

SUFFIX = ".tar"
_DIGEST = "S12"


class TarPictures:
    """Where each plain file of some archives stands; 36 bytes each are held in memory.

    Headers are read at the start. Links, names that lead out and the like are passed over, and so
    is what lies behind a damaged header.

    Args:
        folder: of the archives, read in the order of their names.

    Attributes:
        lost: archive and reason of each member, or rest of an archive, that is not read.
    """

    def __init__(self, folder: Path) -> None:
        self.lost: list[tuple[str, str]] = []
        self._archives = sorted(folder.glob(f"*{SUFFIX}"))
        self._numbers, self._offsets, self._sizes = array("L"), array("Q"), array("Q")
        digests = bytearray()
        for number, archive in enumerate(self._archives):
            for name, offset, size in self._members(archive):
                digests += _digest(name)
                self._numbers.append(number)
                self._offsets.append(offset)
                self._sizes.append(size)
        found = np.frombuffer(digests, _DIGEST)
        # of equal names the first one stays in front
        self._order = np.argsort(found, kind="stable")
        self._digests = found[self._order]

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str) -> bytes:
        """The content of a file; of one that is over `images.IMAGE_BYTES` no more than shows that.

        Raises:
            BrokenRowError: there is no such file, or its archive cannot be read.
        """
        index = self._find(name)
        if index is None:
            raise BrokenRowError(f"image {name[:200]!r} is in none of the archives")
        archive = self._archives[self._numbers[index]]
        size = min(self._sizes[index], IMAGE_BYTES + 1)
        try:
            with archive.open("rb") as file:
                file.seek(self._offsets[index])
                return file.read(size)
        except OSError as error:
            raise BrokenRowError(f"{archive.name} cannot be read: {error.strerror}") from error

    def _find(self, name: str) -> int | None:
        if not len(self):
            return None
        digest = np.frombuffer(_digest(name), _DIGEST)[0]
        place = int(np.searchsorted(self._digests, digest))
        if place < len(self) and self._digests[place] == digest:
            return int(self._order[place])
        return None

    def _members(self, archive: Path) -> Iterator[tuple[str, int, int]]:
        """Name, offset and size of each file of an archive."""
        try:
            with archive.open("rb") as file:
                for member in tar_members(file, archive.stat().st_size):
                    if member.refusal is not None:
                        self.lost.append((archive.name, f"{member.name[:200]!r} {member.refusal}"))
                    else:
                        yield member.name, member.offset, member.size
        except (TarDamageError, OSError) as error:
            self.lost.append((archive.name, f"{error}; what follows is lost"))


def _digest(name: str) -> bytes:
    name = name.removeprefix("./")
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).digest()
