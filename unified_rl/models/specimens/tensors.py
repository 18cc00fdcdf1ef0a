"""Shapes of the layers that the official checkpoints are made of, and how tensors are written."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
"""By official name."""


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    """Of a linear layer."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def conv(name: str, outputs: int, inputs: int, kernel: int) -> Shapes:
    """Of a convolution with a square kernel."""
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> Shapes:
    """Of a normalisation with weight and bias."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def residual(name: str, inputs: int, outputs: int) -> Shapes:
    """Of a block of two convolutions, with a third where the width changes."""
    shapes = norm(f"{name}.norm1", inputs) | conv(f"{name}.conv1", outputs, inputs, 3)
    shapes |= norm(f"{name}.norm2", outputs) | conv(f"{name}.conv2", outputs, outputs, 3)
    return shapes | (conv(f"{name}.nin_shortcut", outputs, inputs, 1) if inputs != outputs else {})


def attention(name: str, width: int) -> Shapes:
    """Of attention over the places of a picture."""
    shapes = norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= conv(f"{name}.{part}", width, width, 1)
    return shapes


def random_state(
    shapes: Shapes, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    """Normal tensors of std 0.2."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator).mul_(0.2).to(dtype)
        for name, shape in shapes.items()
    }


def write_shards(
    folder: Path, state: Mapping[str, Tensor], count: int, suffix: str = ".safetensors"
) -> None:
    """The state in `count` files with an index, as `save_pretrained` would name them."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names, weight_map = list(state), {}
    for index in range(count):
        shard = f"{stem}-{index + 1:05d}-of-{count:05d}{suffix}"
        part = {name: state[name] for name in names[index::count]}
        weight_map |= dict.fromkeys(part, shard)
        if suffix == ".safetensors":
            save_file(part, folder / shard, {"format": "pt"})
        else:
            torch.save(part, folder / shard)
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / f"{stem}{suffix}.index.json").write_text(text)
