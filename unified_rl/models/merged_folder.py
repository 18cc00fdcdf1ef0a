"""Several checkpoints of one base as one: checked, then merged tensor by tensor."""

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.models.checkpoint import require_folder, weights_hash, write_folder
from unified_rl.models.settings import read_settings
from unified_rl.models.weights import FolderWeights, is_weight_file

Rule = Callable[[Sequence[Tensor], Tensor | None], Tensor]
"""Takes a tensor of each model, and that of the base or None; see `merging`."""

CARD = "provenance.json"
_OF_ONE_MODEL = (CARD, "README.md")
"""Files that say something of the first model alone."""
_NOT_ARCHITECTURE = {"dtype", "torch_dtype", "transformers_version", "_name_or_path", "use_cache"}


class _Origin(NamedTuple):
    """Where the weights of a folder come from.

    Attributes:
        weights: `weights_hash` of the folder.
        is_known: whether its provenance says what it was trained from.
        start: `weights_hash` of that; None for random weights.
    """

    weights: str
    is_known: bool
    start: str | None


def merge_folders(
    rule: Rule,
    checkpoints: Sequence[Path],
    base: Path | None,
    output: Path,
    settings: Mapping[str, Any],
) -> None:
    """Merges standard folders into a new one with the first one's files, dtypes and shards.

    No more is in memory than one tensor of each model and of the base, what the rule needs for
    it, and one shard of the output. Tensors that no model changed are those of the base, bit for
    bit; tensors of integers have to be so.

    Args:
        rule: makes one tensor of several.
        checkpoints: folders of whole models, all trained from the same weights.
        base: folder of those weights; None where the rule needs none.
        output: final place; an existing folder there is replaced.
        settings: name and settings of the rule, for provenance.

    Raises:
        ConfigError: the rule does not fit the number of models, or the lack of a base.
        CheckpointError: a folder cannot be read, or was made of another base than the others.
    """
    for folder in checkpoints:
        require_folder(folder, "checkpoints")
    if base is not None:
        require_folder(base, "base")
    inputs = [*checkpoints, *([] if base is None else [base])]
    for folder in inputs:
        if output.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"output={output} lies in {folder}, which is read only")
    # so that settings that do not fit are refused before anything is read
    rule([torch.zeros(1)] * len(checkpoints), None if base is None else torch.zeros(1))
    for folder in inputs[1:]:
        _require_same_architecture(inputs[0], folder)
    weights = [FolderWeights(folder) for folder in inputs]
    for other in weights[1:]:
        _require_same_shapes(weights[0], other)
    origins = [_origin(folder) for folder in inputs]
    count = len(checkpoints)
    start = _common_start(checkpoints, origins[:count], origins[-1] if base is not None else None)
    named = [
        {"checkpoint": str(folder.resolve()), "weights": origin.weights}
        for folder, origin in zip(inputs, origins, strict=True)
    ]
    card = {
        "rule": dict(settings),
        "models": named[:count],
        "base": None if base is None else named[-1],
        **({} if start is None else {"start_weights": start}),  # so that it merges like the models
    }
    models, origin = weights[:count], None if base is None else weights[-1]
    write_folder(output, functools.partial(_write, rule, models, origin), card)


def is_merged(
    output: Path, checkpoints: Sequence[Path], base: Path | None, settings: Mapping[str, Any]
) -> bool:
    """Whether a folder holds what `merge_folders` would make: the same rule on the same weights.

    Args:
        output: the folder, which may be missing.
        checkpoints: as for `merge_folders`.
        base: as for `merge_folders`.
        settings: as for `merge_folders`.
    """
    try:
        card = json.loads((output / CARD).read_text(encoding="utf-8"))
        found = [card["rule"], *(model["weights"] for model in card["models"])]
        found.append(card["base"] and card["base"]["weights"])
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not of a merge
        return False
    weights = [weights_hash(folder) for folder in checkpoints]
    return found == [dict(settings), *weights, None if base is None else weights_hash(base)]


def _write(
    rule: Rule, models: Sequence[FolderWeights], base: FolderWeights | None, folder: Path
) -> None:
    first = models[0]
    for path in first.folder.iterdir():
        is_copied = path.name == first.index or not is_weight_file(path)
        if path.is_file() and is_copied and path.name not in _OF_ONE_MODEL:
            shutil.copyfile(path, folder / path.name)
    for shard, names in first.shards.items():
        tensors = {name: _merged(rule, models, base, name) for name in names}
        first.write_shard(shard, tensors, folder)


def _merged(
    rule: Rule, models: Sequence[FolderWeights], base: FolderWeights | None, name: str
) -> Tensor:
    tensors = [model.read(name) for model in models]
    origin = None if base is None else base.read(name)
    reference, source = (tensors[0], models[0]) if origin is None else (origin, base)
    changed = [
        model
        for model, tensor in zip(models, tensors, strict=True)
        if not _same_values(tensor, reference)
    ]
    if not changed:
        return reference.to(tensors[0].dtype)
    if not all(tensor.is_floating_point() for tensor in (*tensors, reference)):
        raise CheckpointError(
            f"{changed[0].place(name)}: {name} holds no floats and differs from that in "
            f"{source.place(name)}, so it cannot be merged; give models of one base"
        )
    merged = rule(tensors, origin)
    if not torch.isfinite(merged).all():
        raise CheckpointError(
            f"{name} merged is not finite; leave a model out that diverged, or give smaller factors"
        )
    return merged


def _same_values(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, whatever their dtypes."""
    wide = torch.promote_types(tensor.dtype, other.dtype)
    return torch.equal(tensor.to(wide), other.to(wide))


def _require_same_architecture(first: Path, other: Path) -> None:
    """Refuses a `config.json` that says otherwise; what only one of them says is a default."""
    for key, ours, theirs in _differences(read_settings(first), read_settings(other)):
        raise CheckpointError(
            f"{other / 'config.json'} has {key}={theirs}, but {first / 'config.json'} has {ours}; "
            "give models of one base"
        )


def _differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys that both have, with different values."""
    for key in sorted((ours.keys() & theirs.keys()) - _NOT_ARCHITECTURE):
        one, other = ours[key], theirs[key]
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key}", one, other


def _require_same_shapes(first: FolderWeights, other: FolderWeights) -> None:
    odd = sorted(set(first.names()) ^ set(other.names()))
    if odd:
        raise CheckpointError(
            f"{first.origin} and {other.origin} do not hold the same tensors: {odd[0]} is in one "
            f"of them only, the first of {len(odd)}; give models of one base, saved here"
        )
    for name in first.names():
        ours, theirs = first.shape(name), other.shape(name)
        if ours != theirs:
            raise CheckpointError(
                f"{other.place(name)}: {name} has shape {theirs}, but {ours} in "
                f"{first.place(name)}; give models of one base"
            )


def _origin(folder: Path) -> _Origin:
    path = folder / CARD
    if not path.is_file():
        return _Origin(weights_hash(folder), False, None)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        is_known = "start_weights" in card
        return _Origin(weights_hash(folder), is_known, card["start_weights"] if is_known else None)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it should say what the model was trained from: "
            "mend it, or remove it to merge without knowing"
        ) from error


def _common_start(
    folders: Sequence[Path], models: Sequence[_Origin], base: _Origin | None
) -> str | None:
    """Hash of the weights that all models were trained from, as far as that is known.

    The base itself may be among the models, to merge a model with what it was before.

    Raises:
        CheckpointError: they were trained from different weights.
    """
    starts = {model.start for model in models if model.is_known}
    wanted, whose = (None, "") if base is None else (base.weights, "those of the base are")
    for folder, model in zip(folders, models, strict=True):
        is_base = model.weights == wanted or (base is None and model.weights in starts)
        if not model.is_known or is_base:
            continue
        if model.start is None:
            raise CheckpointError(
                f"{folder / CARD}: this model was trained from random weights, which it shares "
                "with no other; give models of one base"
            )
        if wanted is None:
            wanted, whose = model.start, f"{folder} from"
        if model.start != wanted:
            raise CheckpointError(
                f"{folder / CARD}: this model was trained from weights {model.start}, but {whose} "
                f"{wanted}; give models of one base, and that base"
            )
    return wanted
