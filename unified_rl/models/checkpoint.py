"""Checkpoint folders: found with a clear word, written beside and renamed."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from unified_rl.core import durable
from unified_rl.core.errors import CheckpointError, StorageError, nearest

SUFFIXES = (".safetensors", ".bin")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def require_folder(folder: Path, setting: str, model_type: str | None = None) -> None:
    """Refuses what cannot be a checkpoint folder; finds the previous one if a save was killed.

    Args:
        folder: what the user gave.
        setting: the name of the setting that gave it, for the message.
        model_type: what `config.json` must say; None takes any.

    Raises:
        CheckpointError: there is no such folder, or no weights or readable `config.json` in it.
    """
    _finish_swap(folder)
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.glob("*") if _is_finished(path)]
        hint = nearest(folder.name, siblings) if siblings else "its parent is empty or missing"
        raise CheckpointError(f"{setting}={folder} is not a folder; {hint}")
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{setting}={folder} is an adapter, which needs its base; merge the two first: "
            "python -m unified_rl.merge"
        )
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise CheckpointError(f"{setting}={folder} holds none of {', '.join(WEIGHTS)}")
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:  # then transformers would guess
        raise CheckpointError(
            f"{setting}={folder} has no config.json that names a model_type "
            f"({type(error).__name__}: {error})"
        ) from error
    if model_type is not None and found != model_type:
        raise CheckpointError(f"{setting}={folder} is of model_type {found!r}, not {model_type!r}")


def require_new(folder: Path, setting: str) -> None:
    """Refuses a folder that has something in it, which may be what is being read.

    Args:
        folder: what the user gave.
        setting: the name of the setting that gave it, for the message.

    Raises:
        CheckpointError: it is a file, or not empty.
    """
    if any(folder.iterdir()) if folder.is_dir() else folder.exists():
        raise CheckpointError(
            f"{setting}={folder} exists already; give a new folder, or remove it first"
        )


def write_folder(
    folder: Path, write: Callable[[Path], None], card: Mapping[str, Any] | None = None
) -> None:
    """Fills a folder beside its place and renames it, so that a failure leaves the old one whole.

    Args:
        folder: final place; an existing folder there is replaced.
        write: fills the folder that it is given.
        card: provenance to lay beside the weights as `provenance.json`.

    Raises:
        CheckpointError: writing failed; the previous folder is intact. A `StorageError` where the
            disk is full.
    """
    beside, old = folder.with_name(folder.name + ".tmp"), _previous(folder)
    _finish_swap(folder)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        write(beside)
        if card is not None:
            (beside / "provenance.json").write_text(json.dumps(card, indent=2) + "\n")
        durable.sync_tree(beside)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        durable.put(beside, folder)
    except Exception as error:
        _finish_swap(folder)
        shutil.rmtree(beside, ignore_errors=True)
        kept = "the previous checkpoint is intact" if folder.exists() else "nothing was written"
        if durable.disk_is_full(error):
            raise StorageError(
                f"saving {folder} failed ({error}); {kept}; free some space, then the same command "
                "goes on"
            ) from error
        raise CheckpointError(f"saving {folder} failed ({error}); {kept}") from error
    shutil.rmtree(old, ignore_errors=True)


def weights_hash(folder: Path) -> str:
    """Twelve hex digits of the weights in a checkpoint folder, those in folders of it too.

    Raises:
        CheckpointError: there are none, so that nothing would tell two such folders apart.
    """
    digest = hashlib.sha256()
    found = sorted(path for end in SUFFIXES for path in folder.rglob(f"*{end}"))
    if not found:
        raise CheckpointError(f"{folder} holds no weights ({' or '.join(SUFFIXES)} files)")
    for path in found:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


def _previous(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def _finish_swap(folder: Path) -> None:
    """Puts the previous folder back where a save was killed between its two renames."""
    if not folder.exists():
        with suppress(OSError):  # there is none, or another process was faster
            _previous(folder).rename(folder)


def _is_finished(path: Path) -> bool:
    return path.is_dir() and path.suffix not in (".tmp", ".old")
