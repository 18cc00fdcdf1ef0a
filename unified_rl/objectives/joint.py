"""Advantages of candidates that are pairs: a drawing and an answer, judged together.

A rollout of P pairs has 2 P groups of G rows: the G drawings of pair p are the rows of group 2 p,
its G answers those of group 2 p + 1. Candidate g of pair p is the g-th drawing with the g-th
answer. Candidates are numbered p G + g.

The paper's loss is a mean over candidates of the drawing's loss plus the answer's. A mean over rows
(`Aggregation`'s "sequence") has twice as many terms and is half of it, as `HALVES` says.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from unified_rl.objectives.advantages import STD_FLOOR, Scale, group_advantages

Joint = Literal["reward", "advantage", "none"]
HALVES = 2
"""Rows of a candidate: its drawing and its answer."""


def joint_outcome(outcome: Tensor, group_size: int, answer_weight: float = 1.0) -> Tensor:
    """The reward of each candidate: its drawing's and its answer's, added.

    Source: CoRL eq. 5, R_cycle + R_TIM + lambda (R_Acc + R_Format).

    Args:
        outcome: (2 P G,) reward of each row.
        group_size: G.
        answer_weight: lambda, on the rewards of answers.

    Returns:
        (P G,) of the same kind.

    Raises:
        ValueError: 2 G does not divide the rows.
    """
    drawing, answer = _halves(outcome, group_size).unbind(1)  # (P, G) each
    return (drawing + answer_weight * answer).flatten()


def joint_advantages(
    outcome: Tensor,
    group_size: int,
    joint: Joint = "reward",
    scale: Scale = "std",
    std_floor: float = STD_FLOOR,
    epsilon: float = 0.0,
    unbiased: bool = True,
    answer_weight: float = 1.0,
) -> Tensor:
    """The advantage of each row, in which its other half has a say unless `joint` is "none".

    Source: CoRL eqs. 1, 5 and 6 ("reward"); "advantage" and "none" are its released code's
        unify_advantage and the separate rewards of its pilot study.
    Departs: `group_advantages` says what happens to constant groups, and that no `epsilon` is
        added; the released code adds 1e-4. Standardising removes any weight that all rewards of a
        half share, so that "none" has no lambda, and "advantage" puts it on the advantages.

    Args:
        outcome: (2 P G,) reward of each row, see `joint_outcome`.
        group_size: G.
        joint: "reward" compares the candidates' rewards; "advantage" compares drawings with
            drawings and answers with answers and adds the two advantages of a candidate, the
            answer's times `answer_weight`; both give the two rows of a candidate the same
            advantage. "none" compares likewise and adds nothing.
        scale, std_floor, epsilon, unbiased: see `group_advantages`.
        answer_weight: lambda, 0 or more: on the answers' rewards with "reward", on their
            advantages with "advantage"; not read by "none". 0.8 in the paper and the released code.

    Returns:
        (2 P G,) float32.

    Raises:
        ValueError: 2 G does not divide the rows, G is 1, a reward is not finite, or a setting is
            out of its range.
    """
    if joint not in ("reward", "advantage", "none"):
        raise ValueError(f"joint={joint!r} is none of 'reward', 'advantage', 'none'")
    if not 0 <= answer_weight < math.inf:
        raise ValueError(f"answer_weight={answer_weight} must be finite and at least 0")
    _halves(outcome, group_size)  # raises where rows do not form pairs
    settings = group_size, scale, std_floor, epsilon, unbiased
    if joint == "reward":
        rewards = joint_outcome(outcome, group_size, answer_weight)
        candidates = group_advantages(rewards, *settings)
        return _of_both_rows(candidates, group_size)
    own = group_advantages(outcome, *settings)
    if joint == "none":
        return own
    drawing, answer = _halves(own, group_size).unbind(1)  # (P, G) each
    return _of_both_rows((drawing + answer_weight * answer).flatten(), group_size)


def pair_rows(candidates: Tensor, group_size: int, kept: int) -> Tensor:
    """The rows of some candidates, so that they form groups of `kept` rows in the same order.

    Args:
        candidates: (P kept,) int64, `kept` numbers of each pair, pair by pair: what `most_spread`
            gives for `joint_outcome`.
        group_size: G of the rollout that the rows are of.
        kept: candidates of each pair.

    Returns:
        (2 P kept,) int64: `kept` drawings of the first pair, its `kept` answers, and so on.

    Raises:
        ValueError: candidates of different pairs stand where one pair's should.
    """
    if kept < 1 or len(candidates) % kept:
        raise ValueError(f"kept={kept} does not divide {len(candidates)} candidates")
    chosen = candidates.view(-1, kept)
    pairs, places = chosen // group_size, chosen % group_size
    if not torch.equal(pairs, pairs[:, :1].expand_as(pairs)):
        raise ValueError(f"candidates {candidates.tolist()} are not {kept} of each pair")
    first = pairs * HALVES * group_size + places  # (P, kept)
    return torch.stack([first, first + group_size], dim=1).flatten()


def _halves(rows: Tensor, group_size: int) -> Tensor:
    """(P, 2, G) of (2 P G,)."""
    if group_size < 1 or rows.ndim != 1 or rows.shape[0] % (HALVES * group_size):
        raise ValueError(
            f"{tuple(rows.shape)} rows are no pairs of {group_size} drawings and {group_size} "
            f"answers; give a multiple of {HALVES * group_size}"
        )
    return rows.view(-1, HALVES, group_size)


def _of_both_rows(candidates: Tensor, group_size: int) -> Tensor:
    """(2 P G,): what holds for candidates (P G,), for each of their two rows."""
    pairs = candidates.view(-1, 1, group_size)
    return pairs.expand(-1, HALVES, -1).flatten()
