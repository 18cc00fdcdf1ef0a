"""MaskGIT decoding: which codes of an image are uncovered when, and what stays masked to learn."""

import math

import torch
from torch import Tensor

from unified_rl.core.errors import nearest

SCHEDULES = ("cosine", "linear", "pow", "sigmoid")
"""What `masked_share` knows."""
GIVEN = -1
"""Reveal step of a code that was there from the start."""


def masked_share(method: str, progress: Tensor) -> Tensor:
    """Share of an image that is still masked, float32 in [0, 1].

    Source: MaskGIT (arXiv 2202.04200), section 3.3; "pow" is its square, "sigmoid" runs over
        [-3, 3] as in MUSE's open code.

    Args:
        method: one of `SCHEDULES`.
        progress: share of the steps that are done, or of noise in training, in [0, 1].

    Raises:
        ValueError: no such schedule.
    """
    progress = progress.float()
    if method == "cosine":
        return torch.cos(progress * math.pi / 2)
    if method == "linear":
        return 1 - progress
    if method == "pow":
        return 1 - progress**2
    if method == "sigmoid":
        low, high = torch.tensor(-3.0).sigmoid(), torch.tensor(3.0).sigmoid()
        return ((high - (progress * 6 - 3).sigmoid()) / (high - low)).clamp(1e-6, 1.0)
    raise ValueError(f"mask schedule {method!r} is unknown; {nearest(method, SCHEDULES)}")


def masked_counts(method: str, positions: int, step_count: int) -> list[int]:
    """How many codes the schedule leaves masked behind each step; none behind the last.

    The product is floored in float32, as published code does: at 256 positions and 18 steps it
    leaves 127 after the twelfth, where float64 would leave 128.
    """
    progress = torch.arange(1, step_count + 1, dtype=torch.float32) / step_count
    return [max(0, int(n)) for n in (positions * masked_share(method, progress)).floor()]


def noise_temperatures(temperature: float, step_count: int) -> list[float]:
    """Temperature of the confidence noise at each step; it decays by the product of what is left.

    Source: showlab/Show-o, whose loop overwrites the temperature: T <- T * (1 - (s + 1) / S).
    """
    result = []
    for step in range(step_count):
        temperature *= 1.0 - (step + 1) / step_count
        result.append(temperature)
    return result


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise from uniform noise in [0, 1)."""
    return -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()


def masked_again(
    probabilities: Tensor, masked: Tensor, count: int, temperature: float, uniform: Tensor
) -> Tensor:
    """(B, N) bool: which of the proposed codes are masked again, the least confident ones.

    Confidence is the log-probability of a proposal plus Gumbel noise. At least one code is masked
    again, and at least one uncovered unless it was the only one, whatever the schedule says.

    Source: MaskGIT (arXiv 2202.04200), section 3.2.

    Args:
        probabilities: (B, N) of the proposals.
        masked: (B, N) bool, what was masked before the step; the rest is certain.
        count: what the schedule leaves masked.
        temperature: of the noise.
        uniform: (B, N) in [0, 1), drawn for the noise.
    """
    certain = torch.finfo(probabilities.dtype).max
    confidence = torch.where(masked, probabilities, certain).clamp_min(1e-20).log()
    confidence = confidence + temperature * gumbel(uniform)
    kept = (masked.sum(1) - 1).clamp_max(count).clamp_min(1)[:, None]
    border = confidence.sort(1).values.gather(1, kept)
    return confidence < border


def training_mask(method: str, noise: Tensor, scores: Tensor) -> Tensor:
    """(n, N) bool: which codes of each image are masked for training, at least one.

    Source: MaskGIT (arXiv 2202.04200), section 3.1, rounded half to even as torch does. Show-o's
        code can raise the share to a floor, which its own training configurations leave at 0.

    Args:
        method: see `masked_share`.
        noise: (n,) in [0, 1), one draw an image.
        scores: (n, N), whose ranks order the positions.
    """
    counts = (scores.shape[1] * masked_share(method, noise)).round().clamp_min(1)
    return scores.argsort(dim=-1) < counts[:, None]


def nested_masks(scores: Tensor, step_count: int) -> Tensor:
    """(n, N) int64: the step at which each code is uncovered in a random order of equal steps."""
    ranks = scores.argsort(dim=-1).argsort(dim=-1)
    return ranks * step_count // scores.shape[1]
