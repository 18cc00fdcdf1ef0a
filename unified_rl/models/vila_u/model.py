"""VILA-U as a standard transformers model: Llama, an RQ codec, a depth transformer, a projector."""

from dataclasses import asdict
from typing import Any

from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
)

from unified_rl.models.vila_u.codec import RqCodec, RqCodecConfig
from unified_rl.models.vila_u.depth import DepthConfig, DepthTransformer


class VilaUConfig(PreTrainedConfig):
    """Sizes of a VILA-U model.

    Args:
        text_config: of the language model.
        vision_config: of the SigLIP encoder, its skipped last layer counted.
        codec_config: see `RqCodecConfig`.
        depth_config: see `DepthConfig`.
    """

    model_type = "vila_u"
    sub_configs = {"text_config": LlamaConfig, "vision_config": SiglipVisionConfig}

    text_config: LlamaConfig | dict[str, Any] | None = None
    vision_config: SiglipVisionConfig | dict[str, Any] | None = None
    codec_config: dict[str, Any] | None = None
    depth_config: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name, kind in self.sub_configs.items():
            value = getattr(self, name)
            setattr(self, name, value if isinstance(value, kind) else kind(**(value or {})))
        self.codec_config = asdict(RqCodecConfig(**(self.codec_config or {})))
        self.depth_config = asdict(DepthConfig(**(self.depth_config or {})))
        super().__post_init__(**kwargs)


class VilaUModel(PreTrainedModel):
    """Holds the parts; `VilaUPolicy` says how they work together."""

    config: VilaUConfig
    config_class = VilaUConfig
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["LlamaDecoderLayer"]

    def __init__(self, config: VilaUConfig) -> None:
        super().__init__(config)
        codec, width = RqCodecConfig(**config.codec_config), config.text_config.hidden_size
        channels = config.vision_config.hidden_size
        self.language_model = LlamaForCausalLM(config.text_config)
        self.codec = RqCodec(config.vision_config, codec)
        self.projector = nn.Sequential(
            nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width)
        )
        self.depth_transformer = DepthTransformer(
            DepthConfig(**config.depth_config), width, channels, codec.depth, codec.codebook_size
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings of the language model."""
        return self.language_model.get_input_embeddings()
