"""The tape: prompts and completions as columns of tokens, whatever the family."""

from enum import IntEnum
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Kind(IntEnum):
    """What a column holds and therefore how it is embedded."""

    PAD = 0
    TEXT = 1
    CODE = 2
    """Codes of an image that the policy draws (or drew)."""
    PIXEL = 3
    """One position of an image that the policy is shown."""


class Tape(NamedTuple):
    """Columns of tokens; the fields other than `pixels` are (B, C) or (B, C, D).

    Attributes:
        ids: (B, C, D) int64; text ids at depth 0, codes at every depth, 0 elsewhere.
        kind: (B, C) int64, a `Kind`.
        segment: (B, C) int64, index of the completion's modality step; -1 outside.
        action_mask: (B, C, D) bool, True where the policy chose the token.
        pixels: (B, M, 3, H, W) float32, the images that prompts show, in order, zero padded.
    """

    ids: Tensor
    kind: Tensor
    segment: Tensor
    action_mask: Tensor
    pixels: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, C) bool: columns that hold a token."""
        return self.kind != Kind.PAD

    @property
    def positions(self) -> Tensor:
        """(B, C) int64: how many tokens of the row come before; gaps and padding do not count."""
        return (self.valid.cumsum(1) - 1).clamp_min(0)

    def causal_mask(self) -> Tensor:
        """(B, 1, C, C) bool: who may look at whom. Padding sees itself, so that no row is empty."""
        columns = self.kind.shape[1]
        causal = torch.ones(columns, columns, dtype=torch.bool, device=self.kind.device).tril()
        own = torch.eye(columns, dtype=torch.bool, device=self.kind.device)
        return ((causal & self.valid[:, None, :]) | own)[:, None]

    def image_blocks(self) -> Tensor:
        """(B, C, C) bool: both columns belong to the same drawn image."""
        block = torch.where(self.kind == Kind.CODE, self.segment, -1)
        return (block[:, :, None] == block[:, None, :]) & (block >= 0)[:, :, None]


class Columns:
    """Builds one row of a tape, column by column."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.ids: list[list[int]] = []
        self.kind: list[int] = []
        self.segment: list[int] = []
        self.action: list[bool] = []

    def text(self, ids: list[int], segment: int = -1, action: bool = False) -> Self:
        """Appends text ids."""
        for token in ids:
            self._append([token] + [0] * (self.depth - 1), Kind.TEXT, segment, action)
        return self

    def codes(self, codes: list[list[int]], segment: int, action: bool = True) -> Self:
        """Appends the codes of a drawn image, (N, D)."""
        for code in codes:
            self._append(code, Kind.CODE, segment, action)
        return self

    def shown_image(self, positions: int) -> Self:
        """Appends the positions of an image that the policy is shown."""
        for _ in range(positions):
            self._append([0] * self.depth, Kind.PIXEL, -1, False)
        return self

    def _append(self, ids: list[int], kind: Kind, segment: int, action: bool) -> None:
        self.ids.append(ids)
        self.kind.append(int(kind))
        self.segment.append(segment)
        self.action.append(action)


def stack(rows: list[Columns], pixels: Tensor, left: bool = False) -> Tape:
    """Rows of different length as one tape, padded on the right, or on the left to prefill."""
    width, depth = max(len(row.kind) for row in rows), rows[0].depth
    shape = (len(rows), width)
    ids = torch.zeros(*shape, depth, dtype=torch.long)
    kind = torch.full(shape, int(Kind.PAD))
    segment = torch.full(shape, -1)
    action = torch.zeros(*shape, depth, dtype=torch.bool)
    for index, row in enumerate(rows):
        span = slice(width - len(row.kind), width) if left else slice(0, len(row.kind))
        ids[index, span] = torch.tensor(row.ids)
        kind[index, span] = torch.tensor(row.kind)
        segment[index, span] = torch.tensor(row.segment)
        action[index, span] = torch.tensor(row.action)[:, None].expand(-1, depth)
    is_text = kind == Kind.TEXT
    action[..., 1:] &= ~is_text[..., None]  # text sits at depth 0 alone
    fields = (ids, kind, segment, action)
    return Tape(*(field.to(pixels.device) for field in fields), pixels)
