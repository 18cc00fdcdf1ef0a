"""Replies that were paid for once, kept on the disk for whoever asks the same."""

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from unified_rl.core.errors import ConfigError

LAYOUT = 1
"""`user_version` of the file."""
_BUSY_S = 30.0
_AT_ONCE = 500
"""Keys in one query; SQLite takes 999 at least."""
_log = logging.getLogger(__name__)


class ReplyCache:
    """Texts by content hash, in one SQLite file that several threads and processes may share.

    Each reply is a transaction of its own, so a kill at any moment loses none that was stored. A
    file that fails later (a full disk, a lock for too long) is warned of once; the judge then pays
    again instead of failing.

    Args:
        path: of the file, made with its folder where there is none; on a disk whose locks work,
            which those of many network file systems do not.

    Raises:
        ConfigError: the file is no such cache, or cannot be made.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._warned = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as connection:
                connection.execute(
                    "BEGIN IMMEDIATE"
                )  # of processes that begin together one makes it
                (layout,) = connection.execute("PRAGMA user_version").fetchone()
                (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                if not tables and not layout:
                    connection.execute(
                        "CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"
                    )
                    connection.execute(f"PRAGMA user_version = {LAYOUT}")
                elif layout != LAYOUT:
                    raise ConfigError(
                        f"cache={path} is a database of something else (layout {layout}); name "
                        "another file"
                    )
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"cache={path} cannot be used ({error}); remove it or name another file"
            ) from error

    def find(self, keys: Sequence[str]) -> dict[str, str]:
        """The replies that are there, by key."""
        found: dict[str, str] = {}
        try:
            with self._open() as connection:
                for start in range(0, len(keys), _AT_ONCE):
                    some = keys[start : start + _AT_ONCE]
                    marks = ",".join("?" * len(some))
                    query = f"SELECT key, reply FROM replies WHERE key IN ({marks})"
                    rows = connection.execute(query, some).fetchall()
                    found |= {key: reply for key, reply in rows if isinstance(reply, str)}
        except sqlite3.Error as error:
            self._warn(error)
        return found

    def store(self, key: str, reply: str) -> None:
        """Keeps a reply; of two for one key the first stays."""
        try:
            with self._open() as connection:
                connection.execute("INSERT OR IGNORE INTO replies VALUES (?, ?)", (key, reply))
        except sqlite3.Error as error:
            self._warn(error)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use, as none may be carried over a fork or a thread."""
        connection = sqlite3.connect(self.path, timeout=_BUSY_S)
        with closing(connection), connection:
            yield connection

    def _warn(self, error: sqlite3.Error) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("cache=%s fails (%s); replies are paid for again", self.path, error)
