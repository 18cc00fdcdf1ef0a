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
        codes: positions of a picture, codes of a position, and codes that there are.
    """

    image_size: int
    codes: tuple[int, int, int]


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
    paths, architecture, specimen = makers[target](folder / "model", changes.config.model)
    told = f"random {target.removeprefix('official_')} of {specimen.image_size} px"
    for name, path in paths.items():
        changes.set(f"model.{name}", str(path), f"{told}, {path}")
    changes.set("model.architecture", architecture, "its sizes, which its config.json leaves out")
    return specimen


def _janus(folder: Path, model: Mapping[str, Any]) -> tuple[dict[str, Path], Any, Specimen]:
    side = janus.SETTINGS["vision_config"]["params"]["image_size"]
    positions = (side // janus.ARCHITECTURE["vision"]["patch_size"]) ** 2
    codes = janus.SETTINGS["gen_vision_config"]["params"]["image_token_size"]
    specimen = Specimen(side, (positions, 1, codes))
    return {"checkpoint": janus.write_official(folder)}, janus.ARCHITECTURE, specimen


def _showo(folder: Path, model: Mapping[str, Any]) -> tuple[dict[str, Path], Any, Specimen]:
    if model.get("vision"):
        raise ConfigError("a dry run knows no small CLIP for model.vision; leave it null")
    paths = showo.write_folders(folder)
    config = paths["tokenizer"] / "config.json"
    config.write_text(json.dumps({**showo.PHI, "max_position_embeddings": _POSITIONS}))
    codec = {name: list(v) if isinstance(v, tuple) else v for name, v in showo.CODEC.items()}
    reduction = 2 ** (len(codec["encoder_channel_multiplier"]) - 1)
    positions = showo.SETTINGS["num_vq_tokens"]
    side = round(positions**0.5) * reduction
    specimen = Specimen(side, (positions, 1, showo.SETTINGS["codebook_size"]))
    return paths, {"codec": codec}, specimen


def _vila_u(folder: Path, model: Mapping[str, Any]) -> tuple[dict[str, Path], Any, Specimen]:
    rows, columns, depth = vila_u.TOWER["rqvaesiglip"]["code_shape"]
    codes = (rows * columns, depth, vila_u.TOWER["rqvaesiglip"]["n_embed"])
    specimen = Specimen(vila_u.SIGLIP["vision"]["image_size"], codes)
    return {"checkpoint": vila_u.write_official(folder)}, vila_u.ARCHITECTURE, specimen
