"""Show-o as a standard transformers model: Phi with q/k LayerNorm beside a MAGVIT-v2 codec."""

from dataclasses import asdict
from typing import Any

from transformers import PhiConfig, PhiForCausalLM, PreTrainedConfig, PreTrainedModel

from unified_rl.models.showo.codec import LfqCodec, LfqCodecConfig


class ShowoConfig(PreTrainedConfig):
    """Sizes of a Show-o model.

    Args:
        text_config: of the language model; its vocabulary is text, then codes, then the mask token.
        codec_config: see `LfqCodecConfig`; None takes the published sizes.
    """

    model_type = "showo"
    sub_configs = {"text_config": PhiConfig}

    text_config: PhiConfig | dict[str, Any] | None = None
    codec_config: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        text = self.text_config
        self.text_config = text if isinstance(text, PhiConfig) else PhiConfig(**(text or {}))
        self.codec_config = asdict(LfqCodecConfig(**(self.codec_config or {})))
        super().__post_init__(**kwargs)

    @property
    def code_offset(self) -> int:
        """Id of code 0 in the vocabulary."""
        return self.text_config.vocab_size - 1 - 2 ** self.codec_config["bits"]


class ShowoModel(PreTrainedModel):
    """Holds both halves; `ShowoPolicy` says how they work together."""

    config: ShowoConfig
    config_class = ShowoConfig
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["PhiDecoderLayer"]

    def __init__(self, config: ShowoConfig) -> None:
        super().__init__(config)
        self.language_model = PhiForCausalLM(config.text_config)
        self.codec = LfqCodec(LfqCodecConfig(**config.codec_config))
        self.post_init()

    def get_input_embeddings(self) -> Any:
        """Token embeddings of the language model, codes and mask included."""
        return self.language_model.get_input_embeddings()
