"""How the official code lays out sequences for training: a row each, or several in a row."""

import torch
from torch import Tensor


class Rows:
    """Sequences in rows as long as the longest of them.

    Args:
        lengths: (B,) tokens of each sequence.
        packed: longest first, each row taking the next ones as long as they fit; else a row each.
    """

    def __init__(self, lengths: Tensor, packed: bool) -> None:
        self.width, self.packed = int(lengths.max()), packed
        self.rows: list[list[tuple[int, int]]] = []  # of (sequence, length)
        if not packed:
            self.rows = [[pair] for pair in enumerate(lengths.tolist())]
            return
        for index in lengths.argsort(descending=True, stable=True).tolist():
            length = int(lengths[index])
            if not self.rows or sum(n for _, n in self.rows[-1]) + length > self.width:
                self.rows.append([])
            self.rows[-1].append((index, length))

    @property
    def order(self) -> list[int]:
        """The sequences as they come."""
        return [index for row in self.rows for index, _ in row]

    def arrange(self, values: Tensor, fill: float) -> Tensor:
        """(B, L, ...) of unpacked sequences, padded on the right -> (rows, width, ...)."""
        result = values.new_full((len(self.rows), self.width, *values.shape[2:]), fill)
        for target, row in zip(result, self.rows, strict=True):
            joined = torch.cat([values[index, :length] for index, length in row])
            target[: len(joined)] = joined
        return result
