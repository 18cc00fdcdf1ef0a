"""A folder of preferences, which a policy made of its own drawings and answers.

    manifest.json   how they were made
    <hash>.json     one prompt, see `ranked.Ranked`
    summary.json    which prompts there are; written last, so that without it a folder is unfinished

Every file is written beside its place and renamed: a half-written one is never seen.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.preference import Preference
from unified_rl.data.jsonl import LINE_BYTES, BrokenRowError, parse_row
from unified_rl.data.ranked import Ranked

MANIFEST, SUMMARY = "manifest.json", "summary.json"
HALVES = ("any", "both")
_NAME = re.compile(r"[0-9a-f]{24}\.json")
"""Of a prompt's file; a summary may have been written by anyone."""


class PreferenceFolder:
    """Reads and writes such a folder.

    Args:
        path: of the folder, which may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, manifest: Mapping[str, Any], anew: bool = False) -> None:
        """Makes the folder, or goes on with one that was begun in the same way.

        Args:
            manifest: how its preferences are made; JSON-able.
            anew: whether preferences that were made in another way are removed.

        Raises:
            ConfigError: there are preferences that were made in another way.
        """
        manifest = json.loads(json.dumps(manifest))  # as it will be read back
        path = self.path / MANIFEST
        if path.is_file():
            found = _manifest(path)
            if found == manifest:
                return
            if not anew:
                raise ConfigError(
                    f"{self.path} holds preferences that were made with other settings "
                    f"({', '.join(_differing(manifest, found))}); give another folder, or remove it"
                )
            # the manifest stays until all is gone that it does not speak for any more
            for old in (self.path / SUMMARY, *self.path.glob("*.json")):
                if old != path:
                    old.unlink(missing_ok=True)
        elif any(self.path.glob("*.json")):
            raise ConfigError(
                f"{self.path} holds JSON files of which no {MANIFEST} speaks; give another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        _write(path, manifest)

    def read(self, sample_id: str) -> Ranked | None:
        """What was made for a prompt; None where nothing was, or the file is damaged."""
        path = self._place(sample_id)
        try:
            found = read_ranked(path) if path.is_file() else None
        except DataError:
            return None
        return found if found is not None and found.sample.id == sample_id else None

    def write(self, ranked: Ranked) -> None:
        """Keeps what was made for a prompt.

        Raises:
            DataError: facts that are not JSON, or more than a file may hold.
        """
        _write(self._place(ranked.sample.id), ranked.to_json())

    def finish(self, found: Mapping[str, tuple[bool, bool]]) -> dict[str, Any]:
        """Says which prompts there are, so that they can be learnt from.

        Args:
            found: by sample id `Ranked.halves`; each was written before.

        Returns:
            `digest` of all files, the counts `prompts`, `drawing_pairs` and `answer_pairs`, and
            `files`, by file name which halves it has.

        Raises:
            DataError: there is nothing to learn from any prompt.
        """
        if not any(map(any, found.values())):
            raise DataError(
                f"{self.path}: of {len(found)} prompts none has a best and a worst that are apart; "
                "raise builder.image_count or builder.answer_count, or lower builder.threshold"
            )
        digest, files = hashlib.sha256(), {}
        for sample_id, halves in found.items():
            path = self._place(sample_id)
            digest.update(path.read_bytes())
            files[path.name] = list(halves)
        summary = {
            "digest": digest.hexdigest()[:12],
            "prompts": len(files),
            "drawing_pairs": sum(drawn for drawn, _ in files.values()),
            "answer_pairs": sum(answered for _, answered in files.values()),
            "files": files,
        }
        _write(self.path / SUMMARY, summary)
        return summary

    def summary(self) -> dict[str, Any]:
        """What `finish` returned.

        Raises:
            DataError: there is no such folder, or it is unfinished or damaged.
        """
        path = self.path / SUMMARY
        if not path.is_file():
            state = "is not finished" if (self.path / MANIFEST).is_file() else "has no preferences"
            raise DataError(
                f"{self.path} {state}; make them with python -m unified_rl.prefer "
                f"paths.output={self.path}, which goes on where it was stopped"
            )
        found = _read(path)
        files = found.get("files")
        if not isinstance(files, dict) or not isinstance(found.get("digest"), str):
            raise DataError(f"{path} does not say what is there; make it again: {_AGAIN}")
        for name, halves in files.items():
            if not _NAME.fullmatch(name) or not _are_two_switches(halves):
                raise DataError(f"{path} names {name!r} with {halves}; make it again: {_AGAIN}")
        return found

    def _place(self, sample_id: str) -> Path:
        return self.path / f"{hashlib.sha256(sample_id.encode()).hexdigest()[:24]}.json"


class PreferenceSource:
    """Preferences from a folder, drawn at random.

    Args:
        path: folder that `python -m unified_rl.prefer` wrote.
        halves: "any" takes a prompt with drawings or answers to prefer, "both" one with the two.
        digest: of the folder's summary, where it must be just that; None takes any.

    Raises:
        ConfigError: unknown halves.
        DataError: the folder is missing or unfinished, another one, or has nothing of the kind.
    """

    image_size = None

    def __init__(
        self, path: str, halves: Literal["any", "both"] = "any", digest: str | None = None
    ) -> None:
        if halves not in HALVES:
            raise ConfigError(f"halves={halves!r} is none of {', '.join(HALVES)}")
        self._folder = Path(path)
        summary = PreferenceFolder(self._folder).summary()
        if digest is not None and digest != summary["digest"]:
            raise DataError(
                f"{path} holds preferences of digest {summary['digest']}, not {digest}: they "
                "were made anew; train on them by leaving digest out"
            )
        enough = any if halves == "any" else all
        self._names = [name for name, there in summary["files"].items() if enough(there)]
        if not self._names:
            raise DataError(f"{path} has no prompt with both halves; take halves=any")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._names)

    def draw(self, rng: np.random.Generator) -> Preference:
        """One preference.

        Raises:
            DataError: its file is missing or damaged.
        """
        path = self._folder / self._names[int(rng.integers(len(self._names)))]
        preference = read_ranked(path).preference
        if preference is None:
            raise DataError(f"{path} has nothing to prefer, unlike the summary says: {_AGAIN}")
        return preference


def read_ranked(path: Path) -> Ranked:
    """One prompt's file.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return Ranked.from_json(_read(path))
    except DataError as error:
        if str(error).startswith(str(path)):
            raise
        raise DataError(f"{path} {error}; {_AGAIN}") from error


_AGAIN = "the command that made it mends it"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return parse_row(file.read(LINE_BYTES + 1))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {_AGAIN}") from error
    except BrokenRowError as error:
        raise DataError(f"{path} {error}; {_AGAIN}") from error


def _manifest(path: Path) -> dict[str, Any]:
    """Empty where it is damaged, so that it is like no other."""
    try:
        return _read(path)
    except DataError:
        return {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        text = json.dumps(content, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be written as JSON: {error}") from error
    if len(text) > LINE_BYTES:
        raise DataError(f"{path} would take {len(text)} bytes, limit {LINE_BYTES}")
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(text)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _differing(one: Any, other: Any, prefix: str = "") -> list[str]:
    """Dotted names of what two trees of settings do not share."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return [] if one == other else [prefix]
    found = []
    for key in sorted({*one, *other}):
        name = f"{prefix}.{key}" if prefix else key
        found += _differing(one.get(key), other.get(key), name)
    return found


def _are_two_switches(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, bool) for v in value)
