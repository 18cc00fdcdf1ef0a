"""Whether a picture shows what its prompt asks for."""

from typing import Protocol

import numpy as np

from unified_rl.core.sample import Sample
from unified_rl.rewards.sample_facts import drawing_of
from unified_rl.rewards.sight import check


class PictureVerifier(Protocol):
    """Judges the picture of a text-to-image sample by its facts, all or nothing."""

    def __call__(self, sample: Sample, pixels: np.ndarray) -> bool:
        """Whether it is right.

        Args:
            sample: what was asked for; a question made of it has the same facts and does too.
            pixels: uint8 (height, width, 3).
        """
        ...


class MicroWorldVerifier:
    """Reads the objects of a micro-world picture: all that the fact "facts" says, nothing else."""

    def __call__(self, sample: Sample, pixels: np.ndarray) -> bool:
        """Whether the picture is strictly right.

        Raises:
            RewardError: a picture of a size that the verifier does not read, or no such fact.
        """
        return check(sample, pixels, drawing_of(sample)).correct
