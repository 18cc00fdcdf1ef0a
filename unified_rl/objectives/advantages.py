"""Group-relative advantages: how much better a completion, or a step of it, did than its siblings.

Rows [i * G, (i + 1) * G) are the completions of one prompt. Statistics are taken in float64, so
that equal rewards have a spread of zero whatever their size; results are float32.

The papers print `std` without saying whether it divides by G or by G - 1. The default here divides
by G - 1, as trl and the released CoRL code do; `unbiased=False` divides by G. They also print no
constant beside the std in the denominator; `epsilon=1e-4` adds the one of trl and of that code.
"""

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["std", "none"]
STD_FLOOR = 1e-4
"""Spread of rewards, in units of the reward, at or below which a group counts as constant."""


def group_advantages(
    outcome: Tensor,
    group_size: int,
    scale: Scale = "std",
    std_floor: float = STD_FLOOR,
    epsilon: float = 0.0,
    unbiased: bool = True,
) -> Tensor:
    """Each completion's reward, centred on its group and divided by the group's spread.

    Source: UnifiedGRPO eq. 5, CoRL eq. 1; scale="none" is Dr. GRPO.
    Departs: a group whose std does not exceed `std_floor` gets exactly 0 instead of 0/0, or of
        rounding residue blown up to size 1.

    Args:
        outcome: (B,) reward of each completion.
        group_size: G, completions a prompt.
        scale: "std" divides by the group's std, "none" only centres.
        std_floor: in units of the reward.
        epsilon: added to the std.
        unbiased: the std divides by G - 1 instead of G.

    Returns:
        (B,) float32.

    Raises:
        ValueError: G does not divide B, G is 1, or a reward is not finite.
    """
    if outcome.ndim != 1:
        raise ValueError(f"outcome has shape {tuple(outcome.shape)}; expected (B,)")
    if not torch.isfinite(outcome).all():
        rows = (~torch.isfinite(outcome)).nonzero().flatten().tolist()
        raise ValueError(f"outcome is not finite in rows {rows}")
    grouped = outcome.view(_group_count(outcome, group_size), group_size)
    return _standardised(grouped, scale, std_floor, epsilon, unbiased).view(-1).float()


def process_advantages(
    steps: Tensor,
    segment: Tensor,
    group_size: int,
    normalise: Literal["group", "step"] = "group",
    scale: Scale = "std",
    std_floor: float = STD_FLOOR,
    epsilon: float = 0.0,
    unbiased: bool = True,
) -> Tensor:
    """The advantage of each token: the normalised rewards of its own step and all later ones.

    Source: UnifiedGRPO 3.3, process-level reward, after DeepSeekMath 4.1.3.
    Departs: "overall mean and standard deviation across all samples" is read as one mean and std
        over all steps of all samples of a group (normalise="group"). As later steps add up, a
        completion with more steps then has larger advantages; normalise="step" compares the k-th
        steps of the group with each other only. Sets below `std_floor` give exactly 0.

    Args:
        steps: (B, K) reward of each modality step; NaN where there is none, which adds nothing.
        segment: (B, L) index of each token's step; -1 outside the completion. An index of K or
            more is a step that no reward follows.
        group_size: G, completions a prompt.
        normalise: the set over which mean and std are taken.
        scale: "std" divides by the set's std, "none" only centres.
        std_floor: in units of the reward.
        epsilon: added to the std.
        unbiased: the std divides by n - 1 instead of n.

    Returns:
        (B, L) float32, 0 where `segment` is -1.

    Raises:
        ValueError: G does not divide B, G is 1, shapes differ, or a reward is infinite.
    """
    if steps.ndim != 2 or segment.ndim != 2 or steps.shape[0] != segment.shape[0]:
        raise ValueError(
            f"steps {tuple(steps.shape)} and segment {tuple(segment.shape)} are not (B, K), (B, L)"
        )
    if torch.isinf(steps).any():
        rows = torch.isinf(steps).any(1).nonzero().flatten().tolist()
        raise ValueError(f"step rewards are infinite in rows {rows}")
    group_count, step_count = _group_count(steps, group_size), steps.shape[1]
    settings = scale, std_floor, epsilon, unbiased
    if normalise == "group":
        sets = steps.reshape(group_count, group_size * step_count)
        normalised = _standardised(sets, *settings).view(-1, step_count)
    elif normalise == "step":
        sets = steps.view(group_count, group_size, step_count).transpose(1, 2)  # (P, K, G)
        normalised = _standardised(sets, *settings).transpose(1, 2).reshape(-1, step_count)
    else:
        raise ValueError(f"normalise={normalise!r} is neither 'group' nor 'step'")
    remaining = normalised.flip(1).cumsum(1).flip(1)  # (B, K): sum over steps j >= k
    remaining = torch.nn.functional.pad(remaining, (0, 1))  # (B, K + 1): nothing follows step K
    advantages = remaining.gather(1, segment.clamp(0, step_count))  # (B, L)
    return advantages.masked_fill(segment < 0, 0.0).float()


def zero_variance_fraction(
    outcome: Tensor, group_size: int, std_floor: float = STD_FLOOR, unbiased: bool = True
) -> Tensor:
    """The fraction of groups, 0 to 1, that teach nothing because their rewards are all alike.

    Returns:
        () float32.
    """
    grouped = outcome.view(_group_count(outcome, group_size), group_size)
    _, std = _moments(grouped.double(), unbiased)
    return (std <= std_floor).float().mean()


def _standardised(
    sets: Tensor, scale: Scale, std_floor: float, epsilon: float, unbiased: bool
) -> Tensor:
    """(..., n) values, each centred and scaled within its last dimension; NaN becomes 0."""
    if scale not in ("std", "none"):
        raise ValueError(f"scale={scale!r} is neither 'std' nor 'none'")
    sets = sets.double()
    mean, std = _moments(sets, unbiased)
    informative = (std > std_floor) & ~sets.isnan()
    divisor = std + epsilon if scale == "std" else torch.ones_like(std)
    return torch.where(informative, (sets - mean) / divisor, 0.0)


def _moments(sets: Tensor, unbiased: bool) -> tuple[Tensor, Tensor]:
    """(..., 1) mean and std of (..., n) values, NaN left out; fewer than two have a std of 0."""
    count = (~sets.isnan()).sum(-1, keepdim=True)
    mean = sets.nansum(-1, keepdim=True) / count.clamp(min=1)
    squares = (sets - mean).square().nansum(-1, keepdim=True)
    return mean, (squares / (count - int(unbiased)).clamp(min=1)).sqrt()


def _group_count(rows: Tensor, group_size: int) -> int:
    row_count = rows.shape[0]
    if group_size < 2:
        raise ValueError(f"group_size={group_size} leaves nothing to compare with; use 2 or more")
    if row_count % group_size:
        raise ValueError(f"group_size={group_size} does not divide the {row_count} completions")
    return row_count // group_size
