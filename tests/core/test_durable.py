"""Files that are whole or absent, at every moment that a kill may choose."""

import errno
import os

import pytest

from tests.killing import survivors
from unified_rl.core.durable import disk_is_full, write_text


def test_text_is_old_or_new_whenever_the_kill_comes(tmp_path):
    def read(folder):
        return (folder / "a.json").read_text()

    def begin(folder):
        write_text(folder / "a.json", "old" * 9999)

    def change(folder):
        write_text(folder / "a.json", "new")

    found = survivors(tmp_path, begin, change, read)
    assert set(found) == {"old" * 9999, "new"}
    assert found == sorted(found, reverse=True)  # "old" before the rename, "new" after it


def test_a_failure_leaves_the_old_text_and_nothing_beside(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


class SafetensorError(Exception):
    """As the Rust library raises it."""


def chained(cause):
    try:
        try:
            raise cause
        except Exception as error:
            raise RuntimeError("unexpected pos 704 vs 598") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (chained(OSError(errno.EDQUOT, "Disk quota exceeded")), True),
        (SafetensorError("Error: I/O error: No space left on device (os error 28)"), True),
        (SafetensorError("Error: I/O error: Permission denied (os error 13)"), False),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("of code (os error 28)"), False),
    ],
)
def test_a_full_disk_is_known_however_it_is_reported(error, expected):
    assert disk_is_full(error) is expected
