"""Completions drawn in parts, so that the cache of a rollout stays within bounds."""

from collections.abc import Callable, Sequence

import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Completion, Sample
from unified_rl.core.trajectory import Rollout, Trajectory, join


def roll_out(
    policy: Policy,
    samples: Sequence[Sample],
    behaviour: Behaviour,
    generator_of: Callable[[int, int], torch.Generator],
    size: int = 0,
    on_part: Callable[[Rollout], None] | None = None,
) -> tuple[Trajectory, tuple[Completion, ...]]:
    """One completion of each sample.

    Args:
        policy, samples, behaviour: see `Policy.sample`.
        generator_of: randomness of a part, by its index and the number of parts.
        size: samples drawn at once; 0 draws all.
        on_part: is given each part, as a rollout of groups of one, as soon as it is drawn.
    """
    size = size or len(samples)
    starts = range(0, len(samples), size)
    drawn = []
    for part, start in enumerate(starts):
        asked = tuple(samples[start : start + size])
        drawn.append(policy.sample(asked, behaviour, generator_of(part, len(starts))))
        if on_part is not None:
            on_part(Rollout(asked, drawn[-1][1], drawn[-1][0], group_size=1))
    completions = tuple(completion for _, part in drawn for completion in part)
    return join([part for part, _ in drawn]), completions
