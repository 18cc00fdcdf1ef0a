"""What the `config.json` of a checkpoint says, before anything is built from it."""

import json
from pathlib import Path
from typing import Any

from unified_rl.core.errors import CheckpointError


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of `config.json`; empty where there is none that can be read."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def refuse_other_families(folder: Path, *model_types: str) -> None:
    """Refuses the checkpoint of another family; one that names no family passes.

    Models that are saved the way of diffusers, Show-o among them, name a class in its place.

    Raises:
        CheckpointError: `config.json` names a family that is none of `model_types`.
    """
    settings = read_settings(folder)
    found = settings.get("model_type", settings.get("_class_name"))
    if found is not None and found not in model_types:
        known = " or ".join(map(repr, model_types))
        raise CheckpointError(
            f"{folder}/config.json is of model_type {found!r}, not {known}; give a folder of that "
            "family, or the model= that reads this one"
        )
