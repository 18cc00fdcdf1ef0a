"""Scores of chosen tokens without ever holding the logits of all of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**25
"""Logits that one part of the rows has at most (128 MiB in float32); one row is never split."""


def score_in_parts(
    score: Callable[..., Tensor], rows: Sequence[Tensor | None], logits_per_row: int
) -> Tensor:
    """`score(*rows)`, a part of the rows at a time.

    The logits of a part live only while it is worked on: they are computed again for the gradient,
    and so is all else that `score` does, from the given states on. What fits into one part is
    scored at once and keeps its logits, so that small models pay nothing.

    The parts are of equal height, give or take a row. They follow from sizes alone, not from
    whether a gradient is wanted, so that two replays of the same rows give the very same numbers.
    Each calls `score` once, and so do no rows at all.

    Args:
        score: takes (r, ...) parts of `rows` and returns (r, ...); each row must be scored by
            itself. It may take what belongs to all rows from elsewhere, with a gradient too.
        rows: (R, ...) each, the first not None; None is passed on.
        logits_per_row: how many `score` makes of one row, those of an unconditional twin included.

    Returns:
        (R, ...), equal to `score(*rows)` but for how matrix products of another height round.
    """
    count = len(rows[0])
    part_count = -(-count // max(1, LOGITS_AT_ONCE // logits_per_row))
    if part_count <= 1:
        return score(*rows)
    sizes = [count // part_count + (part < count % part_count) for part in range(part_count)]
    parts = [[None] * part_count if field is None else field.split(sizes) for field in rows]
    return torch.cat([_score_again(score, *part) for part in zip(*parts, strict=True)])


def _score_again(score: Callable[..., Tensor], *part: Tensor | None) -> Tensor:
    if torch.is_grad_enabled():
        return checkpoint(score, *part, use_reentrant=False)
    return score(*part)
