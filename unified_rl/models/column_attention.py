"""Keys and values in buffers, and attention of one column a row to them, as suits a CPU."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

HUGE_BYTES = 2**22
"""From this size on NumPy asks for huge pages; smaller memory is given out again by `malloc`."""
_STRIDE = 16
"""Columns are a multiple of so many, an odd one: what is written far apart by powers of two falls
into the same lines of a cache."""
_ALIGNMENT = 64
"""Bytes, as torch's own allocator has it."""


class KeptColumns:
    """Keys and values of all layers of a session: (R, heads, columns, head width) each.

    Args:
        layers: of the model.
        heads: that keys have.
        columns: that may be kept at most.
        width: of a head.
        blank: whether columns that were never written are looked at, and so must be numbers.
    """

    def __init__(
        self, layers: int, heads: int, columns: int, width: int, blank: bool = False
    ) -> None:
        self.heads, self._layers, self._blank = heads, layers, blank
        self._columns, self._width = (-(-columns // _STRIDE) | 1) * _STRIDE, width
        self.keys: Sequence[Tensor] = ()
        self.values: Sequence[Tensor] = ()

    def put(
        self, layer: int, keys: Tensor, values: Tensor, place: Tensor | slice, seen: int
    ) -> tuple[Tensor, Tensor]:
        """Writes a layer's (R, heads, n, head width) to a place; the first `seen` columns."""
        if not self.keys:
            self.keys, self.values = self._room(len(keys), values)
        kept, valued = self.keys[layer], self.values[layer]
        kept[:, :, place], valued[:, :, place] = keys, values
        return kept[:, :, :seen], valued[:, :, :seen]

    def spread(self, rows: Tensor, filled: int) -> None:
        """Goes on with other rows, (R',) int64, of whose columns the first `filled` count."""
        count, old = len(rows), (self.keys, self.values)
        if count > len(self.keys[0]):
            self.keys, self.values = self._room(count, self.keys[0])
        else:  # as some have ended: nothing new is allocated
            self.keys, self.values = ([layer[:count] for layer in part] for part in old)
        for new, before in zip((self.keys, self.values), old, strict=True):
            for layer, other in zip(new, before, strict=True):
                layer[:, :, :filled] = other[rows, :, :filled]

    def _room(self, rows: int, like: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        shape = (2, self._layers, rows, self.heads, self._columns, self._width)
        keys, values = like.new_zeros(shape) if self._blank else buffer(shape, like)
        if like.device.type == "cpu":  # `attend` adds up keys as it adds up values: along columns
            keys = keys.view(*shape[1:4], self._width, self._columns).transpose(-1, -2)
        return keys.unbind(), values.unbind()


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


def reads_column(hidden: Tensor) -> bool:
    """Whether `attend` is for columns like these, (R, n, width)."""
    return hidden.shape[1] == 1 and hidden.device.type == "cpu"


def as_blocked(keys: Tensor) -> Tensor:
    """Keys as torch's blocked kernels take them; for others it would hold every score.

    Those of a GPU lie that way, so that nothing is copied there.
    """
    return keys if keys.stride(-1) == 1 else keys.contiguous()


def row_mask(mask: Tensor, heads: int) -> Tensor:
    """(R, 1, 1, columns) to add -> (R * heads, 1, columns), for `attend`."""
    return mask.expand(-1, heads, -1, -1).flatten(0, 1)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Softmax attention by two batched products: less to do for one column than a blocked kernel.

    Args:
        queries: (R, heads * n, 1, width), where n that follow one another share a head of keys.
        keys: (R, heads, columns, width).
        values: (R, heads, columns, width).
        mask: (R * heads, 1, columns) to add.
        scale: of the products of queries and keys.

    Returns:
        (R, heads * n, 1, width).
    """
    asked = queries.reshape(len(mask), -1, queries.shape[-1])
    scores = torch.baddbmm(mask, asked, keys.flatten(0, 1).transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), values.flatten(0, 1)).view(queries.shape)
