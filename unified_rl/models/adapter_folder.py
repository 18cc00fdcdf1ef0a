"""Adapters on disk: peft's two files, and a third that says which weights they are for."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.models.adapter import (
    Adapter,
    adapt,
    fully_trained,
    inject,
    lora_config_of,
    merge,
    root_of,
)
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.checkpoint import weights_hash
from unified_rl.models.quantisation import quantise, require_four_bit
from unified_rl.models.vocabulary import add_words

CONFIG, TENSORS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
_PREFIX = "base_model.model."
"""What peft puts before the names of a wrapped model."""


@dataclass(frozen=True)
class Base:
    """The weights that an adapter was trained on.

    Attributes:
        checkpoint: their folder.
        weights: `weights_hash` of the folder.
        four_bit: whether the language model was held in 4 bit.
    """

    checkpoint: str
    weights: str
    four_bit: bool


def adapted(
    model: Callable[..., UnifiedPolicy],
    adapter: Adapter | None = None,
    checkpoint: str | None = None,
    base: str | None = None,
    words: Sequence[str] | None = None,
) -> UnifiedPolicy:
    """What `model` makes, as `adapter` trains it.

    Where `checkpoint` is an adapter's folder, its base is loaded under it. "lora" and "qlora" then
    go on training that adapter; "full" first adds it to the weights.

    Args:
        model: makes the policy; takes a `checkpoint`.
        adapter: None changes nothing, for evaluation.
        checkpoint: what the model starts from: a model's folder, an adapter's, or None for random
            weights.
        base: folder of an adapter's base, where it is no longer where it was.
        words: added to the tokenizer where it lacks them; see `add_words`. They need an adapter
            that trains embeddings and heads in full, or none.

    Raises:
        CapabilityError: the family cannot take new words.
        ConfigError: the adapter goes with neither the policy, nor the machine, nor its checkpoint.
        CheckpointError: the adapter's folder is broken, or its base is missing or another one.
    """
    if adapter is not None and adapter.kind == "qlora":
        require_four_bit()
    if words and adapter is not None:
        _require_trained_words(adapter, len(words))
    if words:
        model = functools.partial(_with_words, model, words)
    if checkpoint is not None and (Path(checkpoint) / CONFIG).is_file():
        return _resumed(model, adapter, Path(checkpoint), base)
    if base is not None:
        raise ConfigError(f"policy.base={base} is given, but {checkpoint} is not an adapter")
    if adapter is None:
        return model()
    if not adapter.is_low_rank:
        return adapt(model(), adapter)
    if checkpoint is None:
        raise ConfigError(
            f"adapter.kind={adapter.kind} needs model.checkpoint: random weights are neither "
            "trained by it nor saved with it; use adapter=full"
        )
    policy = adapt(model(), adapter)
    folder = Path(checkpoint).resolve()
    policy.adapted_from = Base(str(folder), weights_hash(folder), adapter.kind == "qlora")
    return policy


def merged(
    model: Callable[..., UnifiedPolicy], checkpoint: str, base: str | None = None
) -> UnifiedPolicy:
    """An adapter's policy as one without: log-probs differ by rounding alone.

    An adapter that was trained on 4-bit weights is added to the weights as they were before, so
    there the rounding of those shows as well.

    Args:
        model: see `adapted`.
        checkpoint: folder of the adapter.
        base: see `adapted`.

    Raises:
        CheckpointError: see `adapted`, or the folder holds no adapter.
    """
    folder = Path(checkpoint)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"checkpoint={folder} holds no {CONFIG}, so there is nothing to merge"
        )
    record, config, tensors = _read(folder, base)
    policy = model(checkpoint=record.checkpoint)
    inject(policy, config)
    _load(policy, config, tensors, folder)
    merge(policy)
    return policy


def save(policy: UnifiedPolicy, folder: Path) -> None:
    """Writes a policy into an existing folder: its adapter if it has one, else all of it.

    Modules that trained in full stand in the adapter's file under peft's `modules_to_save`, but are
    trained in place: peft's own wrappers would hold a second copy and rename the parameters. The
    tokenizer and the template are those of the base.

    Raises:
        CheckpointError: the policy was adapted in memory, and nothing says what its base is.
    """
    config = lora_config_of(policy)
    if config is None:
        policy.save(folder)
        return
    if not hasattr(policy, "adapted_from"):
        raise CheckpointError("the base of this adapter is in no folder, so it could not be loaded")
    root = root_of(policy)
    kept = sorted({*(config.modules_to_save or ()), *fully_trained(policy)})
    tensors = peft.get_peft_model_state_dict(root, save_embedding_layers=False)
    for name in kept:
        inner = root.get_submodule(name).state_dict()
        tensors |= {f"{name}.{key}": value for key, value in inner.items()}
    tensors = {_PREFIX + name: value.cpu().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / TENSORS, {"format": "pt"})
    replace(
        config,
        modules_to_save=kept or None,
        base_model_name_or_path=policy.adapted_from.checkpoint,
    ).save_pretrained(folder)
    record = json.dumps(asdict(policy.adapted_from), indent=2)
    (folder / BASE).write_text(record + "\n", encoding="utf-8")


def _require_trained_words(adapter: Adapter, count: int) -> None:
    if adapter.is_low_rank:
        raise ConfigError(
            f"policy.words names {count} words, whose rows adapter.kind={adapter.kind} could "
            "not save; use adapter=full, or policy.words=null"
        )
    missing = [group for group in ("heads", "embeddings") if group not in adapter.trainable]
    if missing:
        raise ConfigError(
            f"policy.words names {count} words, whose rows adapter.trainable="
            f"[{', '.join(adapter.trainable)}] would not train; add {' and '.join(missing)}, or "
            "use policy.words=null"
        )


def _with_words(
    model: Callable[..., UnifiedPolicy], words: Sequence[str], **settings: str
) -> UnifiedPolicy:
    policy = model(**settings)
    add_words(policy, words)
    return policy


def _resumed(
    model: Callable[..., UnifiedPolicy], adapter: Adapter | None, folder: Path, base: str | None
) -> UnifiedPolicy:
    """The policy of an adapter's folder, with LoRA unless the adapter is "full"."""
    if adapter is not None and not adapter.is_low_rank:
        return adapt(merged(model, str(folder), base), adapter)
    record, config, tensors = _read(folder, base)
    four_bit = record.four_bit if adapter is None else adapter.kind == "qlora"
    if four_bit:
        require_four_bit()
    policy = model(checkpoint=record.checkpoint)
    if adapter is None:
        if four_bit:
            quantise(root_of(policy), policy.parameter_groups()["language_model"])
        inject(policy, config)
        policy.requires_grad_(False)
    else:
        adapt(policy, adapter)
        _require_same(lora_config_of(policy), config, folder)
    _load(policy, config, tensors, folder)
    policy.adapted_from = Base(record.checkpoint, record.weights, four_bit)
    return policy


def _require_same(wanted: peft.LoraConfig, found: peft.LoraConfig, folder: Path) -> None:
    names = {"r": "rank", "lora_alpha": "alpha", "target_modules": "target_modules"}
    for name, setting in names.items():
        ours, theirs = getattr(wanted, name), getattr(found, name)
        if ours != theirs:
            raise ConfigError(
                f"adapter.{setting} gives {ours}, but the adapter in {folder} has {theirs}; set it "
                "so, or merge the adapter first: python -m unified_rl.merge"
            )


def _read(folder: Path, base: str | None) -> tuple[Base, peft.LoraConfig, dict[str, Tensor]]:
    try:
        record = Base(**json.loads((folder / BASE).read_text(encoding="utf-8")))
        config = peft.LoraConfig.from_pretrained(str(folder))
        tensors = load_file(folder / TENSORS)
    except Exception as error:  # whatever a broken file makes the libraries raise
        raise CheckpointError(
            f"{folder}: not a readable adapter ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'})"
        ) from error
    place = Path(base if base is not None else record.checkpoint)
    if not place.is_dir():
        raise CheckpointError(
            f"{folder}: its base {place} is not a folder; say where it is: policy.base=... "
            "(base=... when merging)"
        )
    found = weights_hash(place)
    if found != record.weights:
        raise CheckpointError(
            f"{folder}: its base had weights {record.weights}, but those in {place} are {found}; "
            "say where the right ones are: policy.base=... (base=... when merging)"
        )
    return Base(str(place.resolve()), found, record.four_bit), config, tensors


@torch.no_grad()
def _load(
    policy: UnifiedPolicy, config: peft.LoraConfig, tensors: dict[str, Tensor], folder: Path
) -> None:
    """Copies the tensors of a file into a policy that has this LoRA already.

    Raises:
        CheckpointError: the file has too much, too little, or other shapes.
    """
    root = root_of(policy)
    kept = config.modules_to_save or []
    targets = {}
    for name, value in root.state_dict().items():
        if ".lora_" in name or any(name.startswith(f"{module}.") for module in kept):
            targets[_PREFIX + name.replace(".default.", ".")] = value
    odd = sorted(targets.keys() ^ tensors.keys())
    if odd:
        raise CheckpointError(
            f"{folder} does not fit its base: {odd[0]} is too much or missing, the first of "
            f"{len(odd)}"
        )
    for name, target in targets.items():
        if target.shape != tensors[name].shape:
            raise CheckpointError(
                f"{folder}: {name} has shape {tuple(tensors[name].shape)} where the base needs "
                f"{tuple(target.shape)}"
            )
        target.copy_(tensors[name])
    lora_config_of(policy).modules_to_save = kept  # so that they are saved, trained or not
