"""Answers of a model that costs time or money, kept in a file so that none is asked for twice."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unified_rl.core.errors import DataError

LINE_BYTES = 2**20
"""A longer line is no answer of ours."""


class KeptAnswers:
    """A file of JSON lines, one an answer; it grows by whole lines and outlives a kill.

    An answer is found by what was asked: change a picture, a text, or the model that is asked, and
    it is another one.

    Args:
        path: of the file, made with the first answer; a half line at its end, as a kill leaves,
            is passed over.
        asked: the model that answers, as it describes itself.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self._path = path
        self._asked = json.dumps(asked, sort_keys=True, default=str)
        self._known: dict[str, Any] = {}
        if path.is_file():
            self._load()

    def key(self, *parts: str | np.ndarray) -> str:
        """What stands for a question, its texts and pictures in order, to this model."""
        digest = hashlib.sha256(self._asked.encode())
        for part in parts:
            if isinstance(part, str):
                shape, content = "", part.encode("utf-8", "surrogatepass")
            else:
                shape, content = str(part.shape), np.ascontiguousarray(part).tobytes()
            digest.update(f"\0{type(part).__name__} {shape} {len(content)}\0".encode() + content)
        return digest.hexdigest()[:32]

    def get(self, key: str) -> Any:
        """The answer, None if there is none."""
        return self._known.get(key)

    def put(self, key: str, answer: Any) -> None:
        """Keeps an answer, JSON-able and not None; one of over `LINE_BYTES` in memory alone."""
        self._known[key] = answer
        line = json.dumps({"key": key, "answer": answer}) + "\n"
        if len(line) > LINE_BYTES:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _load(self) -> None:
        whole = 0
        try:
            with self._path.open("rb") as file:
                while line := file.readline(LINE_BYTES):
                    if not line.endswith(b"\n"):
                        break
                    whole += len(line)
                    row = json.loads(line)
                    self._known[row["key"]] = row["answer"]
            if whole != self._path.stat().st_size:
                os.truncate(self._path, whole)  # else the next line would join the half one
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._path} is no file of answers; remove it") from error
