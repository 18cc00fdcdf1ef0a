"""The tensors of a checkpoint, one at a time: from safetensors or `.bin` files, or from memory."""

import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.models.checkpoint import SUFFIXES

STEMS = ("model", "pytorch_model", "diffusion_pytorch_model")
INDEX = ".index.json"

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# No checkpoint comes near; a larger index would only be there to exhaust the memory.
_LARGEST_INDEX = 64 * 2**20
# A mapped page counts as used until its file is unmapped, so a `.bin` is mapped anew now and then.
_REMAP_AFTER = 32 * 2**20


def float_dtype(name: str) -> torch.dtype:
    """The dtype that `model.dtype` names.

    Raises:
        ConfigError: weights cannot be held in it.
    """
    if name not in _DTYPES:
        raise ConfigError(f"model.dtype={name!r} must be one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


class Weights(ABC):
    """Tensors by name, read one at a time into memory of their own.

    Attributes:
        origin: where they come from, for messages.
    """

    origin: str

    @abstractmethod
    def names(self) -> Iterator[str]:
        """All names, file by file."""

    @abstractmethod
    def place(self, name: str) -> str:
        """Where a tensor comes from, for messages."""

    @abstractmethod
    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A contiguous copy; of `dtype` if it is given and the tensor holds floats.

        Raises:
            CheckpointError: the file is broken.
        """


class StateWeights(Weights):
    """A state dict in memory."""

    origin = "the state dict"

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state

    def names(self) -> Iterator[str]:
        """All names in their order."""
        return iter(self._state)

    def place(self, name: str) -> str:
        """The name is all there is."""
        return self.origin

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A copy, so that training leaves the state dict alone."""
        return _copy(self._state[name], dtype)


class FolderWeights(Weights):
    """The weights in a folder: one file or shards with an index, safetensors or `.bin`.

    Only headers are read on opening. `.bin` files are pickles and may come from anyone, so they are
    read by torch's `weights_only` loader, which refuses everything but tensors. Where a folder has
    both formats, safetensors are taken.

    Args:
        folder: holds `model.safetensors`, `model.safetensors.index.json` with its shards, or the
            same with `.bin`; the stem may also be one of `STEMS`.

    Attributes:
        index: name of the file that lists the shards; empty where there is one file.
        shards: names of tensors by the name of their file.

    Raises:
        CheckpointError: no weights of a known format, a shard that is missing or truncated, or an
            index that does not fit its shards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.origin = folder, str(folder)
        self._opened: _Safetensors | _Pickle | None = None
        whole, self.index = _find(folder)
        if whole:
            self.shards = {whole: tuple(self._open(folder / whole))}
        else:
            self.shards = self._read_index(folder / self.index)
        self._shard_of = {name: shard for shard, names in self.shards.items() for name in names}

    def names(self) -> Iterator[str]:
        """All names, shard by shard."""
        return iter(self._shard_of)

    def place(self, name: str) -> str:
        """The path of the file."""
        return str(self.folder / self._shard_of[name])

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Reads one tensor from its file."""
        return self._open(self.folder / self._shard_of[name])[name, dtype]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read for it."""
        return self._open(self.folder / self._shard_of[name]).shape(name)

    def write_shard(self, shard: str, tensors: Mapping[str, Tensor], folder: Path) -> None:
        """Writes a file of the same name and format, with the original's metadata."""
        if shard.endswith(".bin"):
            torch.save(dict(tensors), folder / shard)
        else:
            with safe_open(self.folder / shard, "pt") as file:
                metadata = file.metadata()
            save_file(dict(tensors), folder / shard, metadata)

    def _open(self, path: Path) -> "_Safetensors | _Pickle":
        """The file, kept from the call before if that was the same one."""
        if self._opened is None or self._opened.path != path:
            self._opened = _Safetensors(path) if path.suffix == ".safetensors" else _Pickle(path)
        return self._opened

    def _read_index(self, path: Path) -> dict[str, tuple[str, ...]]:
        suffix = Path(path.name.removesuffix(INDEX)).suffix
        listed: dict[str, list[str]] = {}
        for name, shard in _weight_map(path).items():
            if Path(shard).name != shard or not shard.endswith(suffix):
                raise CheckpointError(
                    f"{path} lists {shard!r}, which is not the name of a {suffix} file beside it"
                )
            listed.setdefault(shard, []).append(name)
        shards = {}
        for shard, names in sorted(listed.items()):
            if not (self.folder / shard).is_file():
                raise CheckpointError(
                    f"{self.folder / shard} is missing, though {path.name} lists it; download it"
                )
            shards[shard] = found = tuple(self._open(self.folder / shard))
            odd = sorted(set(names) ^ set(found))
            if odd:
                raise CheckpointError(
                    f"{self.folder / shard} and {path.name} disagree on {len(odd)} tensors "
                    f"({', '.join(odd[:3])}); download both from one revision"
                )
        return shards


class _Safetensors:
    """One file; opened for each tensor, so that no page of it stays mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[str]:
        with self._open() as file:
            yield from file.keys()

    def __getitem__(self, key: tuple[str, torch.dtype | None]) -> Tensor:
        name, dtype = key
        with self._open() as file:
            return _copy(file.get_tensor(name), dtype)

    def shape(self, name: str) -> tuple[int, ...]:
        with self._open() as file:
            return tuple(file.get_slice(name).get_shape())

    def _open(self) -> Any:
        try:
            return safe_open(self.path, "pt")
        except (SafetensorError, OSError) as error:
            raise _unreadable(self.path, error) from error


class _Pickle:
    """One `.bin` file, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors: Mapping[str, Tensor] | None = None
        self._bytes_read = 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapped())

    def __getitem__(self, key: tuple[str, torch.dtype | None]) -> Tensor:
        name, dtype = key
        tensor = self._mapped()[name]
        self._bytes_read += tensor.nbytes
        return _copy(tensor, dtype)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._mapped()[name].shape)

    def _mapped(self) -> Mapping[str, Tensor]:
        if self._tensors is None or self._bytes_read > _REMAP_AFTER:
            self._tensors, self._bytes_read = None, 0
            self._tensors = self._load()
        return self._tensors

    def _load(self) -> Mapping[str, Tensor]:
        try:
            loaded = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{self.path} was refused, for it holds more than tensors (or is truncated); only "
                "a file of tensors by name is loaded, safetensors if there is a choice"
            ) from error
        except Exception as error:  # what torch raises depends on where the file ends
            raise _unreadable(self.path, error) from error
        is_state = isinstance(loaded, dict) and all(
            isinstance(name, str) and _is_stored(value) for name, value in loaded.items()
        )
        if not is_state:
            raise CheckpointError(
                f"{self.path} does not hold tensors by name; save the model's state_dict alone"
            )
        return loaded


def is_weight_file(path: Path) -> bool:
    """Whether a file holds weights of any known framework, or lists files that do."""
    foreign = (".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".npz")
    return path.suffix in (*SUFFIXES, *foreign) or path.name.endswith(INDEX)


def _find(folder: Path) -> tuple[str, str]:
    """Name of the only weight file and of the index; one of them is empty."""
    for suffix in SUFFIXES:
        for stem in STEMS:
            if (folder / (stem + suffix)).is_file():
                return stem + suffix, ""
            if (folder / (stem + suffix + INDEX)).is_file():
                return "", stem + suffix + INDEX
    others = sorted(p.name for p in folder.glob("*") if is_weight_file(p))
    found = f"only {', '.join(others[:4])}" if others else "no weights"
    raise CheckpointError(
        f"{folder} holds {found}; needed is {STEMS[0]}.safetensors or {STEMS[1]}.bin, whole or "
        f"sharded with its {INDEX[1:]}"
    )


def _weight_map(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            raise ValueError(f"larger than {_LARGEST_INDEX} bytes")
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not weight_map or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise ValueError("weight_map must name a file for each tensor")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is not an index of shards ({type(error).__name__}: {error}); download it again"
        ) from error
    return weight_map


def _is_stored(value: Any) -> bool:
    """Whether a value is a tensor whose every element is in the file, none made up by strides."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return value.nbytes <= value.untyped_storage().nbytes()


def _copy(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach()
    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=target).copy_(tensor)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    """One line for a file that is truncated, not what its name says, or not there in truth."""
    kind, reason = path.suffix, (str(error).splitlines() or [type(error).__name__])[0]
    try:
        with path.open("rb") as file:
            is_pointer = file.read(20).startswith(b"version https://git-")
    except OSError:
        is_pointer = False
    if is_pointer:
        return CheckpointError(f"{path} is a pointer of Git LFS; fetch the file with git lfs pull")
    return CheckpointError(f"{path} is truncated or not {kind} ({reason}); download it again")
