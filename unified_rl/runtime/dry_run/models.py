"""Small random models in the authors' layouts, in the place of published ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unified_rl.core.errors import ConfigError
from unified_rl.models.specimens import janus, showo, vila_u
from unified_rl.runtime.dry_run.change import Changes

_POSITIONS = 512
"""Of Show-o's language model, whose small one is too short for a question of some words."""


class Specimen(NamedTuple):
    """A small model.

    Attributes:
        image_size: side of its pictures, px.
        told: what it is, for people.
    """

    image_size: int
    told: str


def replace_model(changes: Changes, folder: Path) -> Specimen:
    """Lets `model` load a small random one of its family.

    Args:
        changes: of the configuration.
        folder: where it is made.

    Raises:
        ConfigError: there is no small one of the family.
    """
    target = changes.config.model["_target_"].rpartition(".")[2]
    makers = {"janus": _janus, "official_showo": _showo, "official_vila_u": _vila_u}
    if target not in makers:
        raise ConfigError(f"a dry run knows no small model for model._target_=..{target}")
    paths, architecture, image_size = makers[target](folder / "model", changes.config.model)
    told = f"random {target.removeprefix('official_')} of {image_size} px"
    for name, path in paths.items():
        changes.set(f"model.{name}", str(path), f"{told}, {path}")
    changes.set("model.architecture", architecture, "its sizes, which its config.json leaves out")
    return Specimen(image_size, told)


def _janus(folder: Path, model: Mapping[str, Any]) -> tuple[dict[str, Path], Any, int]:
    side = janus.SETTINGS["vision_config"]["params"]["image_size"]
    return {"checkpoint": janus.write_official(folder)}, janus.ARCHITECTURE, side


def _showo(folder: Path, model: Mapping[str, Any]) -> tuple[dict[str, Path], Any, int]:
    if model.get("vision"):
        raise ConfigError("a dry run knows no small CLIP for model.vision; leave it null")
    paths = showo.write_folders(folder)
    config = paths["tokenizer"] / "config.json"
    config.write_text(json.dumps({**showo.PHI, "max_position_embeddings": _POSITIONS}))
    codec = {name: list(v) if isinstance(v, tuple) else v for name, v in showo.CODEC.items()}
    reduction = 2 ** (len(codec["encoder_channel_multiplier"]) - 1)
    side = round(showo.SETTINGS["num_vq_tokens"] ** 0.5) * reduction
    return paths, {"codec": codec}, side


def _vila_u(folder: Path, model: Mapping[str, Any]) -> tuple[dict[str, Path], Any, int]:
    side = vila_u.SIGLIP["vision"]["image_size"]
    return {"checkpoint": vila_u.write_official(folder)}, vila_u.ARCHITECTURE, side
