"""Makes a Janus policy: from a standard folder, or of random weights to be trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerBase,
)

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.models.checkpoint import require_folder
from unified_rl.models.janus.policy import JanusPolicy
from unified_rl.models.template import Template
from unified_rl.models.words import word_tokenizer


def janus(
    checkpoint: str | None,
    architecture: Mapping[str, Mapping[str, Any]] | None = None,
    initial_std: float = 0.02,
    words: Sequence[str] = (),
    template: Template | None = None,
) -> JanusPolicy:
    """A Janus policy.

    Args:
        checkpoint: folder in the transformers layout; None starts from random weights.
        architecture: keyword arguments of the `text`, `vision` and `codec` configurations; only
            read without a checkpoint.
        initial_std: of random matrices outside the codec; only read without a checkpoint. The
            library's 0.02 suits widths of thousands; at width 128 it starves the first thousand
            steps, and about 1 / sqrt(2 * width) does not.
        words: vocabulary of the tokenizer; only read without a checkpoint.
        template: layout of a prompt; None takes the one saved in the folder, else the default.

    Raises:
        CheckpointError: the folder is missing, truncated or not a Janus model.
        ConfigError: the sizes do not fit each other.
    """
    if checkpoint is not None:
        return _from_folder(Path(checkpoint), template)
    template = template or Template()
    if architecture is None:
        raise ConfigError("model.checkpoint is null, so model.architecture must give the sizes")
    tokenizer = word_tokenizer(words, template)
    model = JanusForConditionalGeneration(_config(architecture, tokenizer))
    _spread(model, initial_std)
    _normalise_codebook(model)
    return JanusPolicy(model, tokenizer, template)


def _config(
    architecture: Mapping[str, Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase
) -> JanusConfig:
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        **architecture["text"],
    )
    width = text.hidden_size
    vision = JanusVisionConfig(projection_dim=width, **architecture["vision"])
    if vision.image_size % vision.patch_size:
        raise ConfigError(
            f"model.architecture.vision: patch_size={vision.patch_size} does not divide "
            f"image_size={vision.image_size}"
        )
    vision.num_image_tokens = (vision.image_size // vision.patch_size) ** 2
    codec = JanusVQVAEConfig(
        projection_dim=width, image_token_embed_dim=width, **architecture["codec"]
    )
    reduction = 2 ** (len(codec.channel_multiplier) - 1)
    if reduction != vision.patch_size:
        raise ConfigError(
            f"model.architecture: the codec reduces by {reduction} (channel_multiplier of length "
            f"{len(codec.channel_multiplier)}) but vision.patch_size={vision.patch_size}; "
            "both must make the same grid"
        )
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=codec,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )


def _from_folder(folder: Path, template: Template | None) -> JanusPolicy:
    require_folder(folder, "model.checkpoint", "janus")
    try:
        model, report = JanusForConditionalGeneration.from_pretrained(
            folder,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="sdpa",  # boolean masks, which eager attention would add as numbers
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a broken file makes the libraries raise
        raise CheckpointError(
            f"{folder}: not a readable Janus checkpoint ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'})"
        ) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            names = ", ".join(sorted(map(str, report[kind]))[:4])
            raise CheckpointError(f"{folder}: {len(report[kind])} {kind.split('_')[0]}: {names}")
    return JanusPolicy(model, tokenizer, template or Template.load(folder) or Template())


@torch.no_grad()
def _spread(model: JanusForConditionalGeneration, std: float) -> None:
    """Draws every matrix outside the codec anew; token embeddings get eight times the spread."""
    embeddings = model.get_input_embeddings().weight
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 and "vqmodel" not in name and "position" not in name:
            weight.normal_(0, 8 * std if weight is embeddings else std)


@torch.no_grad()
def _normalise_codebook(model: JanusForConditionalGeneration) -> None:
    """Unit rows, so that the library's search equals the official normalised one."""
    codebook = model.model.vqmodel.quantize.embedding.weight
    codebook.copy_(torch.nn.functional.normalize(codebook, dim=-1))
