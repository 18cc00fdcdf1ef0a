"""What truncation kept when a token was drawn, a bit a token."""

import torch
from torch import Tensor
from torch.nn import functional


def pack(kept: Tensor) -> Tensor:
    """(..., V) bool -> (..., ceil(V / 8)) uint8, an eighth of its size; the last bits are 0."""
    bytewise = functional.pad(kept, (0, -kept.shape[-1] % 8)).unflatten(-1, (-1, 8))
    return (bytewise << _places(kept)).sum(-1, dtype=torch.uint8)


def unpack(packed: Tensor, count: int) -> Tensor:
    """The (..., V) bool that was packed; `count` is V."""
    bits = packed[..., None] >> _places(packed) & 1
    return bits.bool().flatten(-2)[..., :count]


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
