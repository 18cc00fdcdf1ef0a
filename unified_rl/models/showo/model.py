"""Show-o as a standard transformers model: Phi with q/k LayerNorm, MAGVIT-v2 and maybe CLIP."""

from dataclasses import asdict
from typing import Any

from torch import nn
from transformers import (
    CLIPVisionConfig,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from unified_rl.models.showo.codec import LfqCodec, LfqCodecConfig
from unified_rl.models.showo.vision import ClipTower


class ShowoConfig(PreTrainedConfig):
    """Sizes of a Show-o model.

    Args:
        text_config: of the language model; its vocabulary is text, then codes, then the mask token.
        codec_config: see `LfqCodecConfig`; None takes the published sizes.
        vision_config: of the CLIP encoder that images are shown through, its skipped last layer
            counted; None shows them as the codec's own codes.
        text_limit: most tokens of what an image is drawn from, start and end included; longer
            prompts are cut, as the authors do it. None reads them to the end, up to the context,
            and leaves it to the caller to refuse what is longer: a cut is silent, and what it
            takes is the detail that a reward may ask for.
    """

    model_type = "showo"
    sub_configs = {"text_config": PhiConfig, "vision_config": CLIPVisionConfig}

    text_config: PhiConfig | dict[str, Any] | None = None
    codec_config: dict[str, Any] | None = None
    vision_config: CLIPVisionConfig | dict[str, Any] | None = None
    text_limit: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        text = self.text_config
        self.text_config = text if isinstance(text, PhiConfig) else PhiConfig(**(text or {}))
        self.codec_config = asdict(LfqCodecConfig(**(self.codec_config or {})))
        if isinstance(self.vision_config, dict):
            self.vision_config = CLIPVisionConfig(**self.vision_config)
        super().__post_init__(**kwargs)

    @property
    def code_offset(self) -> int:
        """Id of code 0 in the vocabulary."""
        return self.text_config.vocab_size - 1 - 2 ** self.codec_config["bits"]


class ShowoModel(PreTrainedModel):
    """Holds the parts; `ShowoPolicy` says how they work together."""

    config: ShowoConfig
    config_class = ShowoConfig
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["PhiDecoderLayer", "CLIPEncoderLayer"]

    def __init__(self, config: ShowoConfig) -> None:
        super().__init__(config)
        self.language_model = PhiForCausalLM(config.text_config)
        self.codec = LfqCodec(LfqCodecConfig(**config.codec_config))
        self.vision_model = self.projector = None
        if config.vision_config is not None:
            width = config.text_config.hidden_size
            self.vision_model = ClipTower(config.vision_config)
            self.projector = nn.Sequential(
                nn.Linear(config.vision_config.hidden_size, width),
                nn.GELU(),
                nn.Linear(width, width),
            )
        self.post_init()

    def get_input_embeddings(self) -> Any:
        """Token embeddings of the language model, codes and mask included."""
        return self.language_model.get_input_embeddings()
