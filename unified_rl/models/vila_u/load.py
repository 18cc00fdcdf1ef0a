"""Makes a VILA-U policy: from a standard folder, or of random weights to be trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, SiglipVisionConfig

from unified_rl.core.errors import ConfigError
from unified_rl.models.standard import read_standard, spread
from unified_rl.models.template import Template
from unified_rl.models.vila_u.model import VilaUConfig, VilaUModel
from unified_rl.models.vila_u.policy import VilaUPolicy
from unified_rl.models.weights import float_dtype
from unified_rl.models.words import word_tokenizer


def vila_u(
    checkpoint: str | None,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    initial_std: float = 0.02,
    words: Sequence[str] = (),
    template: Template | None = None,
    dtype: str = "float32",
) -> VilaUPolicy:
    """A VILA-U policy.

    Args:
        checkpoint: folder in the transformers layout; None starts from random weights.
        architecture: keyword arguments of the `text` (Llama), `vision` (SigLIP), `codec` and
            `depth` configurations; only read without a checkpoint.
        initial_std: of random matrices outside the codec; only read without a checkpoint.
        words: vocabulary of the tokenizer; only read without a checkpoint.
        template: layout of a prompt; None takes the one saved in the folder, else the default.
        dtype: of the weights in memory, a name of torch's.

    Raises:
        CheckpointError: the folder is missing, truncated or not a VILA-U model.
        ConfigError: the sizes do not fit each other.
    """
    if checkpoint is not None:
        folder = Path(checkpoint)
        model, tokenizer = read_standard(VilaUModel, folder, dtype)
        return VilaUPolicy(model, tokenizer, template or Template.load(folder) or Template())
    if architecture is None:
        raise ConfigError("model.checkpoint is null, so model.architecture must give the sizes")
    template = template or Template()
    tokenizer = word_tokenizer(words, template)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        **architecture["text"],
    )
    vision = SiglipVisionConfig(hidden_act="gelu_pytorch_tanh", **architecture["vision"])
    try:
        config = VilaUConfig(
            text_config=text,
            vision_config=vision,
            codec_config=architecture["codec"],
            depth_config=architecture["depth"],
            attn_implementation="sdpa",
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.architecture: {error}") from error
    model = VilaUModel(config)
    enlargement = model.codec.config.enlargement
    if enlargement != vision.patch_size:
        raise ConfigError(
            f"model.architecture: the decoder enlarges by {enlargement} (channel_multiplier of "
            f"length {len(model.codec.config.channel_multiplier)}) but vision.patch_size="
            f"{vision.patch_size}; both must make the same grid"
        )
    parts = [model.language_model, model.projector, model.depth_transformer]
    spread(parts, model.get_input_embeddings(), initial_std)
    return VilaUPolicy(model.to(float_dtype(dtype)), tokenizer, template)
