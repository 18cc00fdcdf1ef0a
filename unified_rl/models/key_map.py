"""Between the tensors of an official checkpoint and the parameters of a module, both ways."""

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from unified_rl.core.errors import CheckpointError
from unified_rl.models.checkpoint import write_folder
from unified_rl.models.weights import FolderWeights, Weights, is_weight_file


class Transform(ABC):
    """How one official tensor becomes one or more of ours, and back."""

    @abstractmethod
    def split(self, official: Tensor) -> tuple[Tensor, ...]:
        """Ours, in the order of a rule's targets."""

    @abstractmethod
    def join(self, ours: Sequence[Tensor]) -> Tensor:
        """The official tensor that does what ours do."""


class Same(Transform):
    """The same tensor under another name."""

    def split(self, official: Tensor) -> tuple[Tensor, ...]:
        """Itself."""
        return (official,)

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        """Itself."""
        return ours[0]


class Rows(Transform):
    """Matrices that are stored as one, one below the other."""

    def __init__(self, count: int) -> None:
        self.count = count

    def split(self, official: Tensor) -> tuple[Tensor, ...]:
        """(count * n, ...) -> count of (n, ...)."""
        return official.chunk(self.count)

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        """Count of (n, ...) -> (count * n, ...)."""
        return torch.cat(list(ours))


class FirstOfOne(Transform):
    """A leading dimension of length one that ours lacks."""

    def split(self, official: Tensor) -> tuple[Tensor, ...]:
        """(1, ...) -> (...); a tensor without that dimension fails the check of shapes."""
        return (official[0] if len(official) == 1 else official,)

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        """(...) -> (1, ...)."""
        return ours[0][None]


class UnitRows(Transform):
    """Rows that the official code normalises whenever it reads them; ours are stored so.

    Rows that are of unit norm already stay as they are, bit for bit.
    """

    def split(self, official: Tensor) -> tuple[Tensor, ...]:
        """(n, d) -> (n, d)."""
        off = (official.float().norm(dim=-1) - 1).abs().max()
        if off <= 4 * torch.finfo(official.dtype).eps:
            return (official,)
        return (nn.functional.normalize(official, dim=-1),)

    def join(self, ours: Sequence[Tensor]) -> Tensor:
        """Unit rows do the same in the official code, which normalises them again."""
        return ours[0]


@dataclass(frozen=True)
class Rule:
    r"""Where the tensors of one name pattern go.

    Attributes:
        pattern: regular expression that must match a whole official name.
        targets: our names, with `\1` for the pattern's first group and so on.
        transform: from the official tensor to the targets.
        size: the setting of the official `config.json` that fixes the number of rows, if any.

    Several official names may have the same target; their tensors must then agree.
    """

    pattern: str
    targets: tuple[str, ...]
    transform: Transform = Same()  # noqa: RUF009 -- it has no state
    size: str = ""


@dataclass(frozen=True)
class Ignored:
    """Official tensors that our model has no use for.

    Attributes:
        pattern: regular expression that must match a whole official name.
        reason: why, in words.
    """

    pattern: str
    reason: str


class KeyMap:
    """All that is known of the names in one official folder; the first entry that matches wins.

    Args:
        family: whose checkpoints these are, for messages.
        entries: rules and ignored names.
        head: official name of an output head of its own, which a tied checkpoint would lack.
        parts: what the names of all our parameters that it fills start with.
    """

    def __init__(
        self,
        family: str,
        entries: Sequence[Rule | Ignored],
        head: str = "",
        parts: tuple[str, ...] = ("",),
    ) -> None:
        self.family, self.head, self.parts = family, head, parts
        self._entries = [(re.compile(entry.pattern), entry) for entry in entries]

    def find(self, name: str) -> tuple[Rule | Ignored | None, tuple[str, ...]]:
        """The entry for an official name and our names for it; None and () if nothing is known."""
        for pattern, entry in self._entries:
            match = pattern.fullmatch(name)
            if match is not None:
                targets = entry.targets if isinstance(entry, Rule) else ()
                return entry, tuple(match.expand(target) for target in targets)
        return None, ()


class Source(NamedTuple):
    """Weights and how their names are read."""

    weights: Weights
    key_map: KeyMap


def build_empty(build: Callable[[], nn.Module]) -> nn.Module:
    """A module whose parameters are on the meta device.

    Buffers are made for real: they are small, and those that no checkpoint holds (frequencies of
    rotary embeddings, position ids) would otherwise have no values.
    """
    with init_empty_weights(include_buffers=False):
        return build()


def load(
    model: nn.Module,
    sources: Sequence[Source],
    dtype: torch.dtype,
) -> None:
    """Fills a module from `build_empty`, one tensor at a time.

    Args:
        model: its parameters are replaced; whether each needs a gradient stays.
        sources: together they hold every parameter and saved buffer, and nothing else.
        dtype: of all floating-point tensors.

    Raises:
        CheckpointError: names that no rule knows, parameters that nothing fills, or a tensor whose
            shape or kind does not fit.
    """
    slots = _slots(model)
    _check_names(slots, sources)
    filled: set[str] = set()
    for weights, key_map in sources:
        for name in weights.names():
            rule, targets = key_map.find(name)
            if not isinstance(rule, Rule):
                continue
            pieces = rule.transform.split(weights.read(name, dtype))
            for target, piece in zip(targets, pieces, strict=True):
                slot = slots[target]
                if piece.shape != slot.tensor.shape:
                    raise _misfit(weights.place(name), name, rule, piece, slot.tensor)
                if piece.is_floating_point() != slot.tensor.is_floating_point():
                    raise CheckpointError(
                        f"{weights.place(name)}: {name} is of {piece.dtype}, as if it were "
                        "quantised; use a checkpoint of float32, bfloat16 or float16"
                    )
                if target not in filled:
                    slot.fill(_own(piece))
                elif not torch.equal(slot.tensor, piece):
                    raise CheckpointError(
                        f"{weights.place(name)}: {name} should repeat {target}, which was read "
                        "before, but differs; this checkpoint needs a model that keeps both"
                    )
                filled |= slot.names


def export(
    model: nn.Module, parts: Mapping[str, KeyMap], original: Path, destination: Path
) -> None:
    """Writes a trained module in the layout of the official checkpoint that it came from.

    Names, shards, shapes and dtypes are the original's. Tensors that ignored names or that training
    left as they were are copied bit for bit; all files but weights are copied too.

    Args:
        model: the plain module, as `load` filled it and training changed it.
        parts: key map by the folder under `original` that it reads; "." for `original` itself.
            Parameters that are no part of theirs are left out.
        original: the official checkpoint.
        destination: folder to write; an existing one is replaced once the new one is whole.

    Raises:
        CheckpointError: the original does not fit the model, or writing failed.
    """
    if destination.resolve() == original.resolve():
        raise CheckpointError(f"{destination} is the original itself; export to another folder")
    sources = {part: FolderWeights(original / part) for part in parts}
    begins = tuple(begin for key_map in parts.values() for begin in key_map.parts)
    slots = {name: slot for name, slot in _slots(model).items() if name.startswith(begins)}
    _check_names(slots, [Source(sources[part], parts[part]) for part in parts])

    def write(folder: Path) -> None:
        _copy_all_but_weights(original, folder)
        for part, weights in sources.items():
            if weights.index:
                shutil.copyfile(original / part / weights.index, folder / part / weights.index)
            for shard, names in weights.shards.items():
                tensors = {n: _official(n, weights, parts[part], slots) for n in names}
                weights.write_shard(shard, tensors, folder / part)

    write_folder(destination, write)


class _Slot:
    """One tensor of a module, under all of its names where it is shared."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.names: set[str] = set()
        self._owners: list[tuple[nn.Module, str]] = []

    def add(self, name: str, module: nn.Module, leaf: str) -> None:
        self.names.add(name)
        self._owners.append((module, leaf))

    def fill(self, tensor: Tensor) -> None:
        if isinstance(self.tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=self.tensor.requires_grad)
        for module, leaf in self._owners:
            setattr(module, leaf, tensor)
        self.tensor = tensor


def _slots(model: nn.Module) -> dict[str, _Slot]:
    """Everything that a state dict of the module holds, by name."""
    by_identity: dict[int, _Slot] = {}
    slots = {}
    for path, module in model.named_modules(remove_duplicate=False):
        own = {**module._parameters, **module._buffers}
        for leaf, tensor in own.items():
            if tensor is None or leaf in module._non_persistent_buffers_set:
                continue
            name = f"{path}.{leaf}" if path else leaf
            slots[name] = by_identity.setdefault(id(tensor), _Slot(tensor))
            slots[name].add(name, module, leaf)
    return slots


def _check_names(slots: Mapping[str, _Slot], sources: Sequence[Source]) -> None:
    unknown, covered = [], set()
    for weights, key_map in sources:
        for name in weights.names():
            entry, targets = key_map.find(name)
            if entry is None or not slots.keys() >= set(targets):
                unknown.append(name)
            for target in slots.keys() & set(targets):
                covered |= slots[target].names
    missing = [name for name in slots if name not in covered]
    if not unknown and not missing:
        return
    places = ", ".join(weights.origin for weights, _ in sources)
    for _, key_map in sources:
        _, heads = key_map.find(key_map.head)
        if not unknown and set(missing) == set(heads):
            raise CheckpointError(
                f"{places}: {key_map.head} is missing, as if the output head were tied to the "
                f"embeddings; {key_map.family} has a head of its own, so save the model with "
                "tie_word_embeddings=false and its head"
            )
    told = [f"{len(unknown)} unknown ({_some(unknown)})"] if unknown else []
    told += [f"{len(missing)} missing ({_some(missing)})"] if missing else []
    raise CheckpointError(
        f"{places}: not the tensors of this {sources[0].key_map.family} model: "
        f"{' and '.join(told)}; use the config.json that belongs to these weights, or the model= "
        "of their family"
    )


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _misfit(place: str, name: str, rule: Rule, found: Tensor, expected: Tensor) -> CheckpointError:
    if rule.size and found.shape[1:] == expected.shape[1:]:
        return CheckpointError(
            f"{place}: vocabulary mismatch: {name} has {len(found)} rows, but config.json says "
            f"{rule.size}={len(expected)}; set it to {len(found)} if this is the right file"
        )
    return CheckpointError(
        f"{place}: {name} is of shape {tuple(found.shape)}, but config.json makes it "
        f"{tuple(expected.shape)}; use the config.json that belongs to these weights"
    )


def _official(
    name: str, weights: FolderWeights, key_map: KeyMap, slots: Mapping[str, _Slot]
) -> Tensor:
    """What the exported file holds under an official name."""
    original = weights.read(name)
    rule, targets = key_map.find(name)
    if not isinstance(rule, Rule):
        return original
    ours = [slots[target].tensor.detach().cpu() for target in targets]
    before = rule.transform.split(original.to(ours[0].dtype))
    if all(map(torch.equal, before, ours)):
        return original  # also where the way there and back would round
    joined = rule.transform.join(ours)
    if joined.shape != original.shape:
        raise CheckpointError(
            f"{weights.place(name)}: {name} is {tuple(original.shape)}, but the trained one "
            f"{tuple(joined.shape)}; export against the checkpoint that training started from"
        )
    return joined.to(original.dtype).contiguous()


def _own(piece: Tensor) -> Tensor:
    """The tensor in a storage that holds nothing else, which part of a split one lacks."""
    whole = piece.is_contiguous() and piece.untyped_storage().nbytes() == piece.nbytes
    return piece if whole else piece.clone(memory_format=torch.contiguous_format)


def _copy_all_but_weights(original: Path, folder: Path) -> None:
    def ignore(_: str, names: list[str]) -> set[str]:
        return {name for name in names if name.startswith(".") or is_weight_file(Path(name))}

    shutil.copytree(original, folder, ignore=ignore, dirs_exist_ok=True)
