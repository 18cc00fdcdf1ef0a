"""How a suite asks a policy: in evaluation mode, part by part, each with randomness of its own."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Completion, Sample
from unified_rl.decoding.modes import evaluation_mode
from unified_rl.evaluation.estimates import Estimate, estimate, macro_estimate

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
_ORDER = 3


def ask_policy(
    policy: Policy,
    parts: Sequence[tuple[Sequence[Sample], Behaviour]],
    batch_size: int,
    seed: int,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """The policy's answers to each part, without gradients.

    Args:
        policy: to be measured; each of its modules is left in the mode it was in.
        parts: samples, and how their answers are drawn. Leaving a part empty does not change what
            the others draw.
        batch_size: samples at once.
        seed: of the sampling.
        progress: called with the number of samples done and in all.
    """
    total, done = sum(len(samples) for samples, _ in parts), 0
    device = device_of(policy)
    answers: list[list[Completion]] = []
    with evaluation_mode(policy):
        for part, (samples, behaviour) in enumerate(parts):
            (state,) = np.random.SeedSequence([seed, part]).generate_state(1)
            generator = torch.Generator(device).manual_seed(int(state))
            answers.append([])
            for start in range(0, len(samples), batch_size):
                batch = samples[start : start + batch_size]
                answers[-1] += policy.sample(batch, behaviour, generator)[1]
                done += len(batch)
                if progress is not None:
                    progress(done, total)
    return answers


def by_category(
    name: str, samples: Sequence[Sample], scores: Sequence[float]
) -> dict[str, Estimate]:
    """The mean of the categories' means, and each category's as `<name>/<category>`.

    Samples of one id are resampled together.
    """
    groups: dict[str, tuple[list[float], list[str]]] = {}
    for sample, score in zip(samples, scores, strict=True):
        values, clusters = groups.setdefault(sample.facts["category"], ([], []))
        values.append(float(score))
        clusters.append(sample.id)
    if not groups:
        return {}
    single = {f"{name}/{category}": estimate(*group) for category, group in groups.items()}
    return {name: macro_estimate(groups), **single}


def cycled(items: Sequence[Item], count: int, seed: int, part: int) -> list[Item]:
    """`count` of the items in random order, each of them once before any of them again."""
    rng = np.random.default_rng([seed, part, _ORDER])
    chosen: list[Item] = []
    while len(chosen) < count:
        chosen += [items[index] for index in rng.permutation(len(items))]
    return chosen[:count]


def device_of(policy: Policy) -> torch.device:
    """Where the policy samples."""
    weights = policy.parameters() if isinstance(policy, torch.nn.Module) else iter(())
    return next((weight.device for weight in weights), torch.device("cpu"))
