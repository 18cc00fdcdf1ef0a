"""Completions drawn in parts, so that the cache of a rollout stays within bounds."""

from collections.abc import Sequence

import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Completion, Sample
from unified_rl.core.trajectory import Trajectory, join


def roll_out(
    policy: Policy,
    samples: Sequence[Sample],
    behaviour: Behaviour,
    generator: torch.Generator,
    size: int = 0,
) -> tuple[Trajectory, tuple[Completion, ...]]:
    """One completion of each sample, `size` of them at once; 0 draws all."""
    size = size or len(samples)
    drawn = [
        policy.sample(samples[start : start + size], behaviour, generator)
        for start in range(0, len(samples), size)
    ]
    completions = tuple(completion for _, part in drawn for completion in part)
    return join([part for part, _ in drawn]), completions
