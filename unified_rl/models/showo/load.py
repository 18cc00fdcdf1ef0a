"""Makes a Show-o policy: from a standard folder, or of random weights to be trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PhiConfig

from unified_rl.core.errors import ConfigError
from unified_rl.models.showo.codec import LfqCodecConfig
from unified_rl.models.showo.model import ShowoConfig, ShowoModel
from unified_rl.models.showo.policy import ShowoPolicy
from unified_rl.models.standard import read_standard, spread
from unified_rl.models.template import Template
from unified_rl.models.weights import float_dtype
from unified_rl.models.words import word_tokenizer


def showo(
    checkpoint: str | None,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    initial_std: float = 0.02,
    words: Sequence[str] = (),
    template: Template | None = None,
    dtype: str = "float32",
    text_limit: int | None = None,
) -> ShowoPolicy:
    """A Show-o policy.

    Args:
        checkpoint: folder in the transformers layout; None starts from random weights.
        architecture: keyword arguments of the `text` (Phi) and `codec` configurations, and of the
            `vision` (CLIP) one if images are to be shown through it; only read without a
            checkpoint.
        initial_std: of random matrices outside the codec; only read without a checkpoint.
        words: vocabulary of the tokenizer; only read without a checkpoint.
        template: layout of a prompt; None takes the one saved in the folder, else the default.
        dtype: of the weights in memory, a name of torch's.
        text_limit: see `ShowoConfig`; None takes the one saved in the folder, else none.

    Raises:
        CheckpointError: the folder is missing, truncated or not a Show-o model.
        ConfigError: the sizes do not fit each other, or `text_limit` leaves no room for a word.
    """
    if checkpoint is not None:
        folder = Path(checkpoint)
        model, tokenizer = read_standard(ShowoModel, folder, dtype)
        if text_limit is not None:
            model.config.text_limit = text_limit
        return ShowoPolicy(model, tokenizer, template or Template.load(folder) or Template())
    if architecture is None:
        raise ConfigError("model.checkpoint is null, so model.architecture must give the sizes")
    template = template or Template()
    tokenizer = word_tokenizer(words, template)
    try:
        codec = LfqCodecConfig(**architecture["codec"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.architecture.codec: {error}") from error
    text = PhiConfig(
        vocab_size=len(tokenizer) + codec.code_count + 1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        qk_layernorm=True,
        **architecture["text"],
    )
    config = ShowoConfig(
        text_config=text,
        codec_config=vars(codec),
        vision_config=architecture.get("vision"),
        text_limit=text_limit,
        attn_implementation="sdpa",
    )
    model = ShowoModel(config).to(float_dtype(dtype))
    parts = (model.language_model, model.vision_model, model.projector)
    spread(filter(None, parts), model.get_input_embeddings(), initial_std)
    return ShowoPolicy(model, tokenizer, template)
