"""Members of a tar archive by their headers, within bounds; nothing is ever unpacked.

Read are the archives that `tar` and webdataset write: ustar, GNU long names, pax names and sizes.
Plain files and folders are known; links, devices, sparse files and the rest are refused by name.

Source: POSIX.1-2001 pax interchange format, and GNU tar's manual for its long names.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
HEADER_BYTES = 64 * 1024
"""Longer names and pax headers end the archive."""
NAME_BYTES = 1024
"""A member with a longer name is refused."""
_KINDS = {
    b"1": "a link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}
SPARSE = "sparse"
_FILE_KINDS = (b"0", b"\0", b"7")


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
        name: as the archive has it; empty where it cannot be read.
        start: offset of its first header in the archive.
        offset: of its content.
        size: of its content in bytes.
        refusal: why it is not to be read; None for a plain file or a folder.
        is_folder: whether it is one.
    """

    name: str
    start: int
    offset: int
    size: int
    refusal: str | None
    is_folder: bool = False

    @property
    def end(self) -> int:
        """Offset of what follows it."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


class TarDamageError(ValueError):
    """From where on an archive cannot be read."""


def tar_members(file: BinaryIO, size: int, start: int = 0) -> Iterator[Member]:
    """Members from an offset on, folders left out. Only headers are read.

    Args:
        file: the archive.
        size: of the archive in bytes.
        start: offset of the first header.

    Raises:
        TarDamageError: when the good members before were given: a clause to put behind the archive.
    """
    place = start
    while (member := _member(file, size, place)) is not None:
        if member.offset + member.size > size:
            raise TarDamageError(f"is cut off in {member.name[:200]!r}, at byte {member.start}")
        if not member.is_folder:
            yield member
        place = member.end


def _member(file: BinaryIO, size: int, start: int) -> Member | None:
    """The member whose headers begin at an offset; None at the end of the archive."""
    place, said, odd = start, {}, None
    while True:
        header = _header(file, size, place)
        if header is None:
            if place != start:
                raise TarDamageError(f"is cut off at byte {place}")
            return None
        kind, length = header[156:157], _number(header[124:136], place)
        place += BLOCK
        if kind not in (b"x", b"g", b"L", b"K"):
            break
        if length > HEADER_BYTES:
            raise TarDamageError(f"has a header of {length} bytes at byte {place - BLOCK}")
        content = file.read(length)
        if len(content) < length:
            raise TarDamageError(f"is cut off at byte {place}")
        if kind == b"L":
            said["path"] = content.rstrip(b"\0")
        elif kind == b"x":
            said |= _pax(content)
        place += -(-length // BLOCK) * BLOCK
    if "size" in said:
        if not said["size"].isdigit() or len(said["size"]) > 18:
            raise TarDamageError(f"has a size that is no number at byte {start}")
        length = int(said["size"])
    if SPARSE in said:
        odd = "a sparse file"
    name, refusal = _named(said.get("path") or _short_name(header))
    if kind == b"5":
        return Member(name, start, place, 0, None, is_folder=True)
    if kind not in _FILE_KINDS:
        odd = _KINDS.get(kind, f"of kind {kind!r}")
        # what points elsewhere has no content, whatever its header says
        length = 0 if kind in (b"1", b"2", b"3", b"4", b"6") else length
    if odd is not None:
        refusal = f"is {odd}, not a plain file"
    return Member(name, start, place, length, refusal)


def _header(file: BinaryIO, size: int, place: int) -> bytes | None:
    """The block at an offset; None at the end of the archive."""
    if place >= size:
        return None
    file.seek(place)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise TarDamageError(f"is cut off at byte {place}")
    if not block.strip(b"\0"):
        return None
    checksum = sum(block[:148]) + sum(block[156:]) + 8 * 32
    if _number(block[148:156], place) != checksum:
        raise TarDamageError(f"is no tar archive from byte {place} on")
    return block


def _number(field: bytes, place: int) -> int:
    if field[0] & 0x80:  # GNU's numbers of base 256, for files over 8 GiB
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if digits.strip(b"01234567"):
        raise TarDamageError(f"is no tar archive from byte {place} on")
    return int(digits, 8) if digits else 0


def _short_name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _pax(content: bytes) -> dict[str, bytes]:
    """Path and size of a pax header, and whether it is one of a sparse file."""
    # records are "length key=value" and a line feed, the length counting all of it
    found: dict[str, bytes] = {}
    place = 0
    while (space := content.find(b" ", place, place + 8)) > 0:
        digits = content[place:space]
        end = place + int(digits) if digits.isdigit() else 0
        if not space < end <= len(content):
            break
        key, _, value = content[space + 1 : end - 1].partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = value
        elif key.startswith(b"GNU.sparse"):
            found[SPARSE] = value
        place = end
    return found


def _named(name: bytes) -> tuple[str, str | None]:
    """A member's name, and why it is refused."""
    if len(name) > NAME_BYTES:
        return name[:100].decode("utf-8", "replace"), f"has a name of {len(name)} bytes"
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return name.decode("utf-8", "replace"), "has a name that is not UTF-8"
    parts = text.replace("\\", "/").split("/")
    if text.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in text:
        return text, "has a name that leads out of the archive"
    return text.removeprefix("./"), None
