"""Families of our own as standard transformers folders, and their first random weights."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.models.checkpoint import require_folder

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
    """
    model_type = family.config_class.model_type
    require_folder(folder, "model.checkpoint", model_type)
    try:
        model, report = family.from_pretrained(
            folder,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch_dtype(dtype),
            attn_implementation="sdpa",  # boolean masks, which eager attention would add as numbers
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except ConfigError:
        raise
    except Exception as error:  # whatever a broken file makes the libraries raise
        raise CheckpointError(
            f"{folder}: not a readable {model_type} checkpoint ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'})"
        ) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            names = ", ".join(sorted(map(str, report[kind]))[:4])
            raise CheckpointError(f"{folder}: {len(report[kind])} {kind.split('_')[0]}: {names}")
    return model, tokenizer


def torch_dtype(name: str) -> torch.dtype:
    """A floating-point type by its name.

    Raises:
        ConfigError: torch has no such type.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(f"model.dtype={name} is none of float32, bfloat16, float16")
    return found


@torch.no_grad()
def spread(parts: Iterable[nn.Module], embeddings: nn.Module, std: float) -> None:
    """Draws every matrix of `parts` anew; `embeddings` among them get eight times the spread."""
    for part in parts:
        for weight in part.parameters():
            if weight.ndim >= 2:
                weight.normal_(0, 8 * std if weight is embeddings.weight else std)
