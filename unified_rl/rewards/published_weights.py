"""Weights of judges under the names of their own releases, for transformers' modules."""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unified_rl.core.errors import CheckpointError
from unified_rl.rewards.local_model import Module, float_dtype, frozen_on

MOST_ENTRIES = 100_000
"""Files inside a `.pt`, one a tensor; no model of this kind has so many."""
LARGEST_PICKLE = 64 * 2**20
"""Bytes of the part of a `.pt` that says what the tensors are."""
SHOWN = 3
"""Names that an error lists."""


class Rename(NamedTuple):
    r"""Where the tensors of one name pattern go.

    Attributes:
        pattern: regular expression that must match a whole published name.
        targets: our names, with `\1` for the pattern's first group and so on. Several share the
            published tensor's rows equally, in order; none at all is for what we do not use.
        transposed: whether the published matrix is the transpose of ours.
    """

    pattern: str
    targets: tuple[str, ...]
    transposed: bool = False


def read_tensors(path: Path, setting: str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a pickle (`.pt`, `.bin`), mapped into memory.

    A pickle may come from anyone: torch's `weights_only` loader refuses all but tensors, and what
    the file unpacks to is bounded by its own size. Tensors may lie under its key `state_dict`.

    Raises:
        CheckpointError: it is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{setting}={path} is not a file; download it and give its path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        _require_plain_archive(path, setting)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except CheckpointError:
        raise
    except Exception as error:  # what the readers raise depends on where the file is broken
        reason = (str(error).splitlines() or [""])[0][:200]
        raise CheckpointError(
            f"{setting}={path} was refused: it is damaged or holds more than tensors "
            f"({type(error).__name__}: {reason}); download it again from its publisher"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(map(_is_stored, loaded, loaded.values())):
        raise CheckpointError(
            f"{setting}={path} does not hold tensors by name; save the model's state_dict alone"
        )
    return loaded


def load_renamed(
    build: Callable[[], Module],
    tensors: Mapping[str, Tensor],
    renames: Sequence[Rename],
    origin: str,
    device: str,
    dtype: str,
    exact: str = "",
) -> Module:
    """A frozen module in evaluation mode with published weights, each of which is accounted for.

    Args:
        build: makes the module; its parameters cost no memory.
        tensors: by their published names.
        renames: the first that matches a name wins.
        origin: setting and path, for messages.
        device: as torch names it.
        dtype: of the weights, a key of `DTYPES`.
        exact: our names that begin so stay in float32; "" for none.

    Raises:
        CheckpointError: names that no rename knows, weights that are missing, or other shapes.
        ConfigError: an unknown dtype or a device that is not there.
    """
    from accelerate import init_empty_weights

    floats = float_dtype(dtype)
    with init_empty_weights(include_buffers=False):
        model = build()
    wanted = model.state_dict()
    found, unknown = _renamed(tensors, renames)
    unknown += [name for name in found if name not in wanted]
    missing = [name for name in wanted if name not in found]
    if unknown or missing:
        told = [f"{len(unknown)} unknown ({_some(unknown)})"] if unknown else []
        told += [f"{len(missing)} missing ({_some(missing)})"] if missing else []
        raise CheckpointError(
            f"{origin} does not hold the weights of this model: {' and '.join(told)}; download "
            "the published file again, or the configuration that belongs to it"
        )
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape or not tensor.is_floating_point():
            raise CheckpointError(
                f"{origin}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}, where floats "
                f"of {tuple(wanted[name].shape)} are needed; use the configuration that belongs "
                "to these weights"
            )
    own = {
        name: tensor.to(torch.float32 if exact and name.startswith(exact) else floats, copy=True)
        for name, tensor in found.items()
    }
    model.load_state_dict(own, assign=True)
    return frozen_on(model, device)


def _renamed(
    tensors: Mapping[str, Tensor], renames: Sequence[Rename]
) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by our names, and the published names that nothing is known of."""
    patterns = [(re.compile(rename.pattern), rename) for rename in renames]
    found: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        hits = ((pattern.fullmatch(name), rename) for pattern, rename in patterns)
        match, rename = next(((m, rename) for m, rename in hits if m), (None, None))
        if match is None or rename is None:
            unknown.append(name)
            continue
        own = tensor.t() if rename.transposed and tensor.dim() == 2 else tensor
        count = len(rename.targets)
        pieces = own.tensor_split(count) if count > 1 and own.dim() else (own,) * count
        names = (match.expand(target) for target in rename.targets)
        found |= dict(zip(names, pieces, strict=True))
    return found, unknown


def _require_plain_archive(path: Path, setting: str) -> None:
    """Refuses what unpacks to more than the file holds, and what is not torch's archive."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{setting}={path} is not an archive of torch 1.6 or later, or is truncated; download "
            "it again, or load and save it with today's torch"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    pickles = [entry.file_size for entry in entries if entry.filename.endswith("data.pkl")]
    if (
        len(entries) > MOST_ENTRIES
        or max(pickles, default=0) > LARGEST_PICKLE
        or sum(entry.file_size for entry in entries) > path.stat().st_size
    ):
        raise CheckpointError(
            f"{setting}={path} was refused: it unpacks to more than a file of its size can hold; "
            "download it again from its publisher"
        )


def _is_stored(name: object, value: object) -> bool:
    """Whether it is a tensor by name, each element of which is in the file."""
    return (
        isinstance(name, str)
        and type(value) in (Tensor, nn.Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"  # one of "meta" has a size and no elements
        and value.nbytes <= value.untyped_storage().nbytes()
    )


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
