"""Families of our own as standard transformers folders, and their first random weights."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unified_rl.core.errors import CheckpointError
from unified_rl.models import key_map
from unified_rl.models.checkpoint import require_folder
from unified_rl.models.key_map import KeyMap, Rule, Source, build_empty
from unified_rl.models.settings import refuse_other_families
from unified_rl.models.weights import FolderWeights, float_dtype

_VOCABULARY = r"(language_model\.(?:lm_head\.(?:weight|bias)|model\.embed_tokens\.weight))"
Model = TypeVar("Model", bound=PreTrainedModel)


def read_standard(
    family: type[Model], folder: Path, dtype: str
) -> tuple[Model, PreTrainedTokenizerBase]:
    """A model and its tokenizer from a folder that `save_pretrained` wrote.

    Args:
        family: class of the model; its configuration names the `model_type` that must stand there.
        folder: safetensors, one or sharded, with `config.json` and tokenizer.
        dtype: of the weights in memory, a name of torch's.

    Raises:
        CheckpointError: the folder is missing, truncated or of another family.
        ConfigError: the dtype is not one of float32, bfloat16, float16.
    """
    model_type = family.config_class.model_type
    float_type = float_dtype(dtype)
    refuse_other_families(folder, model_type)
    require_folder(folder, "model.checkpoint", model_type)
    keys = KeyMap(
        model_type,
        (
            Rule(_VOCABULARY, (r"\1",), size="text_config.vocab_size"),
            Rule(r"(.+)", (r"\1",)),
        ),
        head="language_model.lm_head.weight",
    )
    try:
        config = family.config_class.from_pretrained(
            folder,
            local_files_only=True,
            attn_implementation="sdpa",  # boolean masks, which eager attention would add as numbers
        )
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(
                "tokenizer.json is missing; copy it from where the weights are from"
            )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
        # behind the words, a shared vocabulary has its codes
        rows = getattr(config, "code_offset", config.text_config.vocab_size)
        if len(tokenizer) > rows:
            raise CheckpointError(
                f"vocabulary mismatch: tokenizer.json has {len(tokenizer)} tokens, but config.json "
                f"leaves room for {rows} words; use the tokenizer of this checkpoint"
            )
        model = build_empty(lambda: family(config))
        key_map.load(model, [Source(FolderWeights(folder), keys)], float_type)
    except Exception as error:  # whatever a broken file makes the libraries raise
        kind = "" if isinstance(error, CheckpointError) else f"{type(error).__name__}: "
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise CheckpointError(
            f"{folder}: not a readable {model_type} checkpoint ({kind}{reason})"
        ) from error
    return model.eval(), tokenizer


@torch.no_grad()
def spread(parts: Iterable[nn.Module], embeddings: nn.Module, std: float) -> None:
    """Draws every matrix of `parts` anew; `embeddings` among them get eight times the spread."""
    for part in parts:
        for weight in part.parameters():
            if weight.ndim >= 2:
                weight.normal_(0, 8 * std if weight is embeddings.weight else std)
