"""Completions drawn in parts, so that the cache of a rollout stays within bounds."""

from collections.abc import Callable, Sequence

import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Completion, Sample
from unified_rl.core.trajectory import Trajectory, join


def roll_out(
    policy: Policy,
    samples: Sequence[Sample],
    behaviour: Behaviour,
    generator_of: Callable[[int, int], torch.Generator],
    size: int = 0,
) -> tuple[Trajectory, tuple[Completion, ...]]:
    """One completion of each sample.

    Args:
        policy, samples, behaviour: see `Policy.sample`.
        generator_of: randomness of a part, by its index and the number of parts.
        size: samples drawn at once; 0 draws all.
    """
    size = size or len(samples)
    starts = range(0, len(samples), size)
    drawn = [
        policy.sample(samples[start : start + size], behaviour, generator_of(part, len(starts)))
        for part, start in enumerate(starts)
    ]
    completions = tuple(completion for _, part in drawn for completion in part)
    return join([part for part, _ in drawn]), completions
