"""The published models at their own sizes, without any memory for their weights."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from transformers import CLIPVisionConfig, JanusForConditionalGeneration, PhiConfig

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.models.janus.official import janus_config
from unified_rl.models.key_map import build_empty
from unified_rl.models.showo.codec import LfqCodecConfig
from unified_rl.models.showo.model import ShowoConfig, ShowoModel
from unified_rl.models.specimens import janus, showo, vila_u
from unified_rl.models.vila_u.model import VilaUModel
from unified_rl.models.vila_u.official import FOLDERS, vila_u_config

JANUS_SIZES = {
    "janus_1b": (2048, 5632, 24, 16),
    "janus_pro_1b": (2048, 5632, 24, 16),
    "janus_pro_7b": (4096, 11008, 30, 32),
}
"""Width, inner width, layers and heads of the language model."""
SHOWO_SIDES = {"showo_256": 256, "showo_512": 512, "showo_512_vit": 512}
"""Pictures, px."""
_SHOWO_ROWS = 58498
_CLIP = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
"""Of openai/clip-vit-large-patch14-336."""


def published_model(name: str) -> nn.Module:
    """The model that `model=name` loads, parameters on the meta device.

    Args:
        name: of a file in `conf/model`, of a published model.

    Raises:
        ConfigError: its sizes are not known here.
    """
    makers: Mapping[str, Callable[[], nn.Module]] = {
        **{size: lambda size=size: _janus(size) for size in JANUS_SIZES},
        **{size: lambda size=size: _showo(size) for size in SHOWO_SIDES},
        "vila_u_7b_256": _vila_u,
    }
    if name not in makers:
        raise ConfigError(f"model={name} has no published sizes; {nearest(name, makers)}")
    return build_empty(makers[name])


def _janus(name: str) -> nn.Module:
    return JanusForConditionalGeneration(janus_config(janus.published(*JANUS_SIZES[name])))


def _showo(name: str) -> nn.Module:
    codec = LfqCodecConfig(**showo.PUBLISHED_CODEC, image_size=SHOWO_SIDES[name])
    eye: dict[str, Any] = {}
    if name.endswith("_vit"):
        eye = {"vision_config": CLIPVisionConfig(**_CLIP)}
    text = PhiConfig(vocab_size=_SHOWO_ROWS, qk_layernorm=True, **showo.PUBLISHED_PHI)
    return ShowoModel(ShowoConfig(text_config=text, codec_config=vars(codec), **eye))


def _vila_u() -> nn.Module:
    root = vila_u.published()
    return VilaUModel(vila_u_config(*(root[f"{part}_cfg"] for part in FOLDERS)))
