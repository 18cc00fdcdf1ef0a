"""Checkpoint folders: found with a clear word, written beside and renamed."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unified_rl.core.errors import CheckpointError, nearest

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def require_folder(folder: Path, setting: str) -> None:
    """Refuses what cannot be a checkpoint folder.

    Args:
        folder: what the user gave.
        setting: the name of the setting that gave it, for the message.

    Raises:
        CheckpointError: there is no such folder, or no weights in it.
    """
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.glob("*") if path.is_dir()]
        hint = nearest(folder.name, siblings) if siblings else "its parent is empty or missing"
        raise CheckpointError(f"{setting}={folder} is not a folder; {hint}")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise CheckpointError(f"{setting}={folder} holds none of {', '.join(WEIGHTS)}")


def write_folder(
    folder: Path, write: Callable[[Path], None], card: Mapping[str, Any] | None = None
) -> None:
    """Fills a folder beside its place and renames it, so that a failure leaves the old one whole.

    Args:
        folder: final place; an existing folder there is replaced.
        write: fills the folder that it is given.
        card: provenance to lay beside the weights as `provenance.json`.

    Raises:
        CheckpointError: writing failed, by a full disk for one; the previous folder is intact.
    """
    beside, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        write(beside)
        if card is not None:
            (beside / "provenance.json").write_text(json.dumps(card, indent=2) + "\n")
    except Exception as error:
        shutil.rmtree(beside, ignore_errors=True)
        kept = "the previous checkpoint is intact" if folder.exists() else "nothing was written"
        raise CheckpointError(f"saving {folder} failed ({error}); {kept}") from error
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
