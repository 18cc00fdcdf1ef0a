"""Judges that are published transformers models, out of local folders."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from unified_rl.core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Module = TypeVar("Module", bound=nn.Module)


def require_judge(checkpoint: str, setting: str, *model_types: str) -> Path:
    """The folder of a judge, which must look like one; nothing of it is run.

    Args:
        checkpoint: what the user gave.
        setting: what it was given for, for the message.
        model_types: what `config.json` may say; none takes any.

    Raises:
        CheckpointError: no folder, no safetensors in it, or a model of another kind.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise CheckpointError(
            f"{setting}={checkpoint} is not a folder; download the model and give its folder"
        )
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise CheckpointError(
            f"{setting}={checkpoint} holds no {WEIGHTS[0]}; download that file, or convert the "
            "weights with transformers' save_pretrained"
        )
    require_config(folder, setting, *model_types)
    return folder


def require_config(folder: Path, setting: str, *model_types: str) -> None:
    """Refuses a folder whose `config.json` is not of one of these models; none takes any.

    Raises:
        CheckpointError: there is none, or it is of another kind.
    """
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{setting}={folder} has no config.json that names a model_type "
            f"({type(error).__name__})"
        ) from error
    if model_types and found not in model_types:
        raise CheckpointError(
            f"{setting}={folder} is of model_type {found!r}, not {' or '.join(model_types)}"
        )


def load_judge(
    family: Any, folder: Path, setting: str, device: str, dtype: str
) -> "PreTrainedModel":
    """A frozen model in evaluation mode.

    Args:
        family: a transformers class with `from_pretrained`.
        folder: from `require_judge`.
        setting: for the message.
        device: as torch names it.
        dtype: of the weights, a key of `DTYPES`.

    Raises:
        ConfigError: an unknown dtype or a device that is not there.
        CheckpointError: the weights cannot be read, or some that the model needs are missing.
    """
    floats = float_dtype(dtype)
    try:
        model, report = family.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=floats,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged folder fails in whatever part comes to it first
        raise CheckpointError(_unreadable(setting, folder, error)) from error
    # a pooler is not looked at, and folders of masked language models have none
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing or report["mismatched_keys"]:
        raise CheckpointError(
            f"{setting}={folder} lacks {len(missing)} weights that its config.json asks for, "
            f"the first {missing[0] if missing else report['mismatched_keys']}; download it again"
        )
    return frozen_on(model, device)


def float_dtype(name: str) -> torch.dtype:
    """What a judge's `dtype` names.

    Raises:
        ConfigError: it is none of `DTYPES`.
    """
    if name not in DTYPES:
        raise ConfigError(f"dtype={name!r} is none of {', '.join(DTYPES)}")
    return DTYPES[name]


def frozen_on(model: Module, device: str) -> Module:
    """The module, which nothing trains, in evaluation mode on a device.

    Raises:
        ConfigError: the device is not there.
    """
    try:
        return model.requires_grad_(False).eval().to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device!r}: {str(error).splitlines()[0]}") from error


def load_part(family: Any, folder: Path, setting: str) -> Any:
    """A tokenizer or image processor.

    Raises:
        CheckpointError: its files are missing or damaged.
    """
    try:
        return family.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(_unreadable(setting, folder, error)) from error


def load_tokenizer(folder: Path, setting: str, family: Any = None) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder.

    Special tokens that are written out in a text are read as plain words: texts come from policies,
    which are not to end or pad them. SentencePiece's own (</s>) still are what they are.

    Args:
        folder: of a model, or of its tokenizer alone.
        setting: for the message.
        family: a transformers class, for folders that do not say which; None takes their word.

    Raises:
        CheckpointError: its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise CheckpointError(f"{setting}={folder} has no tokenizer.json or vocabulary; add them")
    tokenizer = load_part(family or AutoTokenizer, folder, setting)
    tokenizer.split_special_tokens = True
    return tokenizer


def _unreadable(setting: str, folder: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"{setting}={folder} cannot be read ({type(error).__name__}: {reason})"
