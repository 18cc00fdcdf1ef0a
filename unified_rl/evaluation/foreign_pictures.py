"""Right pictures that the policy under test has not drawn: out of its distribution."""

from collections.abc import Mapping, Sequence

import numpy as np

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import DataError
from unified_rl.core.sample import Image, Pair, Sample
from unified_rl.data.self_questions import ask_about
from unified_rl.evaluation.picture_verifier import PictureVerifier
from unified_rl.evaluation.turns import Tell, Turns
from unified_rl.microworld.facts import compose
from unified_rl.microworld.render import render
from unified_rl.rewards.sample_facts import drawing_of


def rendered_pictures(samples: Sequence[Sample], seed: int) -> list[Pair]:
    """Each prompt with its question about a random picture, as the micro-world's renderer has it.

    Raises:
        RewardError: a prompt that is not the micro-world's.
    """
    rng = np.random.default_rng(seed)
    return [_pair(sample, render(compose(drawing_of(sample), rng))) for sample in samples]


def drawn_pictures(
    turns: Turns,
    prompts: Mapping[str, Sequence[Sample]],
    count: int,
    behaviour: Behaviour,
    verifier: PictureVerifier,
    tell: Tell,
) -> list[Pair]:
    """Prompts with their questions about pictures of another model that the verifier calls right.

    The prompts of each category are drawn in order until `count` are right; so a prompt that the
    model draws well is there more often.

    Source: UniRL A.1, whose test of understanding keeps the right pictures of another model.

    Args:
        turns: of the other model.
        prompts: by category, as many as may be drawn.
        count: right pictures of each category.
        behaviour: how they are drawn.
        verifier: says which are right.
        tell: called with the number of right pictures found since the last call.

    Raises:
        DataError: the prompts do not suffice for a category.
    """
    kept: dict[str, list[Pair]] = {category: [] for category in prompts}
    told, part = 0, 0
    places = dict.fromkeys(prompts, 0)
    while any(len(pairs) < count for pairs in kept.values()):
        batch: list[Sample] = []
        for category, samples in prompts.items():
            start, found = places[category], len(kept[category])
            missing = count - found
            if missing and start >= len(samples):
                raise DataError(
                    f"the other model drew {found} of {count} right pictures of "
                    f"category {category!r} in {len(samples)} attempts; choose another model, "
                    "raise attempts_per_picture or lower foreign_per_category"
                )
            size = -(-missing * (start + 1) // (found + 1))  # as many as have sufficed so far
            places[category] = start + size
            batch += samples[start : start + size]
        for sample, drawing in zip(batch, turns.draw(batch, behaviour, part), strict=True):
            pairs = kept[sample.facts["category"]]
            if len(pairs) < count and verifier(sample, drawing.pixels):
                pairs.append(_pair(sample, drawing.pixels))
        part += 1
        found = sum(map(len, kept.values()))
        tell(found - told)
        told = found
    return [pair for pairs in kept.values() for pair in pairs]


def _pair(sample: Sample, pixels: np.ndarray) -> Pair:
    return Pair(sample, ask_about(sample, Image(pixels)))
