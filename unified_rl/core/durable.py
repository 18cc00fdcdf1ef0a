"""Files that survive a kill at any moment: written beside, flushed to the disk, renamed."""

import errno
import os
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a used-up quota, a file above the limit of the process."""


def write_text(path: Path, text: str) -> None:
    """Replaces a file as a whole: after a kill it holds either the old text or the new one."""
    beside = path.with_name(path.name + ".tmp")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        put(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def put(beside: Path, path: Path) -> None:
    """Renames what is flushed already to its place, and flushes the name."""
    beside.replace(path)
    _sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Flushes all files in a folder, and the folder itself."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is a file that could not grow."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, OSError) and link.errno in _FULL:
            return True
        if type(link).__name__ == "SafetensorError":  # Rust's errors arrive as text
            return any(f"os error {n})" in str(link) or f"code: {n}," in str(link) for n in _FULL)
        link = link.__cause__ or link.__context__
    return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
