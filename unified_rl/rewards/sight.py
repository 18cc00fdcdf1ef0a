"""How rewards look at pictures: the micro-world's verifier, with errors that name the sample."""

from collections import Counter

import numpy as np

from unified_rl.core.errors import RewardError
from unified_rl.core.sample import Sample
from unified_rl.microworld.facts import Facts, Item
from unified_rl.microworld.scene import Placed
from unified_rl.microworld.verify import Verdict, detect, verify


def check(sample: Sample, pixels: np.ndarray, facts: Facts) -> Verdict:
    """The verifier's verdict on one picture of a completion.

    Raises:
        RewardError: the verifier does not read images of this size.
    """
    try:
        return verify(pixels, facts)
    except ValueError as error:
        raise _unreadable(sample, error) from error


def objects(sample: Sample, pixels: np.ndarray) -> tuple[Placed, ...]:
    """The recognisable objects of one picture of a completion.

    Raises:
        RewardError: the verifier does not read images of this size.
    """
    try:
        return detect(pixels)
    except ValueError as error:
        raise _unreadable(sample, error) from error


def is_clean(sample: Sample, pixels: np.ndarray) -> bool:
    """Whether a picture shows at least one object and no blob that is none.

    It then satisfies exactly the facts that its own objects state.
    """
    kinds = Counter((placed.shape, placed.color) for placed in objects(sample, pixels))
    own = Facts(tuple(Item(shape, color, count) for (shape, color), count in kinds.items()))
    return check(sample, pixels, own).correct


def blend(verdict: Verdict, strict_weight: float) -> float:
    """`strict_weight` of all-or-nothing, the rest of the fraction of facts that hold; [0, 1]."""
    return strict_weight * verdict.correct + (1 - strict_weight) * verdict.score


def _unreadable(sample: Sample, error: ValueError) -> RewardError:
    return RewardError(
        f"the answer to {sample.id!r} cannot be verified: {error}; micro-world rewards need a "
        "policy that draws micro-world images"
    )
