"""Watches that the next checkpoints fit on the disk."""

import logging
import shutil
from pathlib import Path

ROOM = 2
"""Checkpoints that should fit: the next one, and the policy at the end."""
_log = logging.getLogger(__name__)


class DiskSpace:
    """Warns, once until there is room again, before a disk is full.

    Args:
        folder: on the disk; need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._is_short = folder, False

    def check(self, size: int) -> bool:
        """Whether there is room for checkpoints of `size` bytes."""
        folder = self._folder.absolute()
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        was_short, self._is_short = self._is_short, free < ROOM * size
        if self._is_short and not was_short:
            _log.warning(
                "the disk of %s has %.3g GB left, and a checkpoint takes %.3g GB; free some space",
                self._folder,
                free / 1e9,
                size / 1e9,
            )
        return not self._is_short
