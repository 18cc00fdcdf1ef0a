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
    """Columns of tokens; the fields other than `shown` are (B, C) or (B, C, D).

    Attributes:
        ids: (B, C, D) int64; text ids at depth 0, codes at every depth, 0 elsewhere.
        kind: (B, C) int64, a `Kind`.
        segment: (B, C) int64, index of the completion's modality step; -1 outside.
        action_mask: (B, C, D) bool, True where the policy chose the token.
        shown: the M images that prompts show at most, in order, zero padded: (B, M, 3, H, W)
            float32 pixels, (B, M, N, D) int64 codes that a policy drew them with, or (B, M, P,
            width) embeddings of the P positions they take.
        twin_ids: (B, C) int64, text ids of the unconditional twin of the row. Codes of drawn
            images are the row's own.
        twin_kind: (B, C) int64; `Kind.PAD` where the twin lacks the column.
    """

    ids: Tensor
    kind: Tensor
    segment: Tensor
    action_mask: Tensor
    shown: Tensor
    twin_ids: Tensor
    twin_kind: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, C) bool: columns that hold a token."""
        return self.kind != Kind.PAD

    @property
    def positions(self) -> Tensor:
        """(B, C) int64: how many tokens of the row come before; gaps and padding do not count."""
        return (self.valid.cumsum(1) - 1).clamp_min(0)

    @property
    def twin(self) -> "Tape":
        """The unconditional twins, column by column; they are shown no image."""
        first = torch.where(self.twin_kind == Kind.CODE, self.ids[..., 0], self.twin_ids)
        ids = torch.cat([first[..., None], self.ids[..., 1:]], dim=-1)
        return self._replace(ids=ids, kind=self.twin_kind, shown=self.shown[:, :0])


def causal_visibility(kind: Tensor, start: int = 0) -> Tensor:
    """Who may look at whom: (B, C - start, C) bool for the columns from `start` on.

    Tokens see the tokens up to themselves. Padding sees everything up to itself, so that no row is
    empty; nobody reads what comes of it.
    """
    valid, columns = kind != Kind.PAD, kind.shape[1]
    seen = valid[:, None, :] | ~valid[:, start:, None]
    if columns - start == 1:
        return seen
    causal = torch.ones(columns - start, columns, dtype=torch.bool, device=kind.device)
    return seen & causal.tril(start)


def image_visibility(kind: Tensor, segment: Tensor, start: int = 0) -> Tensor:
    """(B, C - start, C) bool: both columns belong to one drawn image, its borders included."""
    drawn = segment.new_zeros(len(segment), int(segment.max()) + 2)
    drawn.scatter_add_(1, segment + 1, (kind == Kind.CODE).long())
    drawn[:, 0] = 0
    image = torch.where(drawn.gather(1, segment + 1) > 0, segment, -1)
    return (image[:, start:, None] == image[:, None, :]) & (image >= 0)[:, start:, None]


class Columns:
    """Builds one row of a tape, column by column."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.ids: list[list[int]] = []
        self.kind: list[int] = []
        self.segment: list[int] = []
        self.action: list[bool] = []
        self.twin_id: list[int] = []
        self.twin_kind: list[int] = []

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

    def twin(self, other: "Columns") -> Self:
        """Lays the prompt's unconditional twin beside it, both ending in the same column."""
        for columns, gap in ((self, len(other) - len(self)), (other, len(self) - len(other))):
            padding = Columns(columns.depth)
            for _ in range(gap):
                padding._append([0] * columns.depth, Kind.PAD, -1, False)
            for name in ("ids", "kind", "segment", "action"):
                setattr(columns, name, getattr(padding, name) + getattr(columns, name))
        self.twin_id, self.twin_kind = [ids[0] for ids in other.ids], list(other.kind)
        return self

    def __len__(self) -> int:
        return len(self.kind)

    def _append(self, ids: list[int], kind: Kind, segment: int, action: bool) -> None:
        self.ids.append(ids)
        self.kind.append(int(kind))
        self.segment.append(segment)
        self.action.append(action)
        self.twin_id.append(ids[0])
        self.twin_kind.append(int(kind))


def stack(rows: list[Columns], shown: Tensor, left: bool = False) -> Tape:
    """Rows of different length as one tape, padded on the right, or on the left to prefill."""
    width, depth = max(len(row.kind) for row in rows), rows[0].depth
    shape = (len(rows), width)
    ids = torch.zeros(*shape, depth, dtype=torch.long)
    kind = torch.full(shape, int(Kind.PAD))
    segment = torch.full(shape, -1)
    action = torch.zeros(*shape, depth, dtype=torch.bool)
    twin_ids, twin_kind = torch.zeros(shape, dtype=torch.long), kind.clone()
    for index, row in enumerate(rows):
        span = slice(width - len(row.kind), width) if left else slice(0, len(row.kind))
        ids[index, span] = torch.tensor(row.ids)
        kind[index, span] = torch.tensor(row.kind)
        segment[index, span] = torch.tensor(row.segment)
        action[index, span] = torch.tensor(row.action)[:, None].expand(-1, depth)
        twin_ids[index, span] = torch.tensor(row.twin_id)
        twin_kind[index, span] = torch.tensor(row.twin_kind)
    is_text = kind == Kind.TEXT
    action[..., 1:] &= ~is_text[..., None]  # text sits at depth 0 alone
    before, behind = (ids, kind, segment, action), (twin_ids, twin_kind)
    device = shown.device
    return Tape(*(f.to(device) for f in before), shown, *(f.to(device) for f in behind))
