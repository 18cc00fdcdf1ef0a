"""Rows that cost time, kept in a file of JSON lines, so that a killed run goes on."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unified_rl.core.errors import ConfigError


class KeptRows:
    """A file that grows by whole lines, all of which came about in one way; the first says which.

    Args:
        path: of the file, made if it is missing; a line that a kill has torn is cut off.
        origin: JSON-able; all that decides the rows.
        keys: that each row has.
        setting: that names another folder, for who has to choose one.

    Attributes:
        found: the rows that were there.

    Raises:
        ConfigError: the file holds rows of another origin, or is damaged.
    """

    def __init__(
        self, path: Path, origin: Mapping[str, Any], keys: Sequence[str], setting: str
    ) -> None:
        self._path = path
        first = {
            "origin": hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]
        }
        rows = self._whole_rows()
        if rows and rows[0] != first:
            raise ConfigError(
                f"{path} holds answers of other weights, questions or settings; name another "
                f"folder by {setting}, or remove it"
            )
        if not rows:
            self.append([first])
        self.found = rows[1:]
        for row in self.found:
            if not isinstance(row, dict) or not all(key in row for key in keys):
                raise ConfigError(f"{path} is damaged (a line lacks {', '.join(keys)}); remove it")

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keeps some rows; on return they are on the disk."""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        with self._path.open("ab") as file:
            # half of a surrogate pair is written, and read, like any letter
            file.write("".join(lines).encode("utf-8", "surrogatepass"))
            file.flush()
            os.fsync(file.fileno())

    def _whole_rows(self) -> list[Any]:
        if not self._path.exists():
            return []
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self._path} is damaged ({error}); remove it") from error
