"""Judges that are published transformers models, out of local folders."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unified_rl.core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{setting}={checkpoint} has no config.json that names a model_type "
            f"({type(error).__name__})"
        ) from error
    if model_types and found not in model_types:
        raise CheckpointError(
            f"{setting}={checkpoint} is of model_type {found!r}, not {' or '.join(model_types)}"
        )
    return folder


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
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is none of {', '.join(DTYPES)}")
    try:
        model, report = family.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=DTYPES[dtype],
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


def load_tokenizer(folder: Path, setting: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder.

    Raises:
        CheckpointError: its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        raise CheckpointError(f"{setting}={folder} has no tokenizer.json or vocabulary; add them")
    return load_part(AutoTokenizer, folder, setting)


def _unreadable(setting: str, folder: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"{setting}={folder} cannot be read ({type(error).__name__}: {reason})"
