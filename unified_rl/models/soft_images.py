"""Drawn images as a policy sees them, with a gradient to the logits they were drawn from."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.trajectory import Trajectory
from unified_rl.decoding.sampling import require_numbers
from unified_rl.objectives.straight_through import gumbel_noise_given, straight_through

if TYPE_CHECKING:
    from unified_rl.models.base import UnifiedPolicy

PLAIN = Behaviour()
"""The distribution whose logits are relaxed: of the model itself, as in training."""
RELAXED_LOGITS = 2**24
"""Logits that one part of a batch has at most (64 MiB in float32)."""
_MASK, _CODES, _NOISE = range(3)


def soft_images(
    policy: "UnifiedPolicy",
    drawn: Trajectory,
    temperature: float,
    seeds: Tensor,
    codes: Tensor | None,
) -> Tensor:
    """See `DrawsSoftly.soft_images`.

    The logits of a part of the batch live only while it is worked on: they are computed again for
    the gradient.
    """
    states, kept, chosen = policy.relaxed_states(drawn, _generators(policy, seeds, _MASK))
    codes = kept if codes is None else codes
    own = policy.capabilities
    size = max(1, RELAXED_LOGITS // (own.image_positions * own.code_depth * own.codebook_size))
    parts = zip(
        *(field.split(size) for field in (states, codes, chosen)),
        seeds.split(size),
        strict=True,
    )
    vectors = [
        checkpoint(_soft_vectors, policy, *part, temperature, use_reentrant=False) for part in parts
    ]
    return policy.embed_code_vectors(torch.cat(vectors))


def _soft_vectors(
    policy: "UnifiedPolicy",
    states: Tensor,
    codes: Tensor,
    chosen: Tensor,
    seeds: Tensor,
    temperature: float,
) -> Tensor:
    """(b, N, D, E): code vectors, soft where they were chosen."""
    logits = policy.image_logits(states.flatten(0, 1), codes.flatten(0, 1))  # (b * N, D, K)
    logits = logits.unflatten(0, codes.shape[:2])
    noise = torch.stack(
        [
            gumbel_noise_given(of_row, own, generator)
            for of_row, own, generator in zip(
                logits, codes, _generators(policy, seeds, _NOISE), strict=True
            )
        ]
    )
    logits = torch.where(chosen[..., None, None], logits, logits.detach())
    return torch.stack(
        [
            straight_through(
                logits[..., depth, :],
                noise[..., depth, :],
                codes[..., depth],
                policy.code_table(depth),
                temperature,
            )
            for depth in range(codes.shape[-1])
        ],
        dim=-2,
    )


@torch.no_grad()
def redrawn_codes(policy: "UnifiedPolicy", drawn: Trajectory, seeds: Tensor) -> Tensor:
    """(B, N, D): other codes at the positions that were to be predicted; see `DrawsSoftly`."""
    states, codes, chosen = policy.relaxed_states(drawn, _generators(policy, seeds, _MASK))
    require_numbers(states)
    generators = _generators(policy, seeds, _CODES)
    anew = [policy.redraw_codes(row, g) for row, g in zip(states, generators, strict=True)]
    return torch.where(chosen[..., None], torch.stack(anew), codes)


def _generators(policy: "UnifiedPolicy", seeds: Tensor, purpose: int) -> list[torch.Generator]:
    """One a row, so that a row's randomness owes nothing to its mates."""
    return [torch.Generator(policy.device).manual_seed(3 * int(s) + purpose) for s in seeds]
