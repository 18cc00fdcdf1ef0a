"""Attention of one column a row to keys and values in buffers, as a CPU does it fastest."""

import math

import numpy as np
import torch
from torch import Tensor

HUGE_BYTES = 2**22
"""From this size on NumPy asks for huge pages; smaller memory is given out again by `malloc`."""
_ALIGNMENT = 64
"""Bytes, as torch's own allocator has it."""


def buffer(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor with dtype and device of another.

    A large one on a CPU is allocated by NumPy, which asks for huge pages: keys and values are
    written a column at a time, far apart, where the first touch of a small page costs more than
    what is written.
    """
    size = math.prod(shape) * like.element_size()
    if like.device.type != "cpu" or size < HUGE_BYTES:
        return like.new_empty(shape)
    raw = torch.from_numpy(np.empty(size + _ALIGNMENT, np.uint8))
    start = -raw.data_ptr() % _ALIGNMENT
    return raw[start : start + size].view(like.dtype).view(shape)


def row_mask(mask: Tensor, heads: int) -> Tensor:
    """(R, 1, 1, columns) to add -> (R * heads, 1, columns), for `attend`."""
    return mask.expand(-1, heads, -1, -1).flatten(0, 1)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention by two batched products: less to do for one column than a blocked kernel.

    Args:
        queries: (R, heads, n, width), n queries that share a head of keys.
        keys: (R, heads, columns, width).
        values: (R, heads, columns, width).
        mask: (R * heads, 1, columns) to add.

    Returns:
        (R, heads, n, width).
    """
    scale = queries.shape[-1] ** -0.5
    scores = torch.baddbmm(
        mask, queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=scale
    )
    mixed = torch.bmm(scores.softmax(-1), values.flatten(0, 1))
    return mixed.view(queries.shape)
