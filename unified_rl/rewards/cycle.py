"""R_cycle: whether a picture looks like the real one and is described like its prompt."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Image, Sample
from unified_rl.rewards.base import SELF_TEST_MARGIN
from unified_rl.rewards.pictures import PictureReward, check_scores


class PerceptualDistance(Protocol):
    """How different pictures look."""

    def __call__(self, real: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> Sequence[float]:
        """One distance a pair of uint8 (height, width, 3) arrays; 0 where they look the same."""
        ...


class Captioner(Protocol):
    """Describes pictures.

    Attributes:
        sees_micro_world: whether it can be relied on to describe micro-world pictures, so that a
            self-test may ask it to.
    """

    sees_micro_world: bool

    def __call__(self, pictures: Sequence[np.ndarray]) -> Sequence[str]:
        """One caption for each uint8 (height, width, 3) array."""
        ...


class CaptionScore(Protocol):
    """How far captions say what references say."""

    def __call__(self, references: Sequence[str], captions: Sequence[str]) -> Sequence[float]:
        """One score in [0, 1] a pair; 0 for an empty caption."""
        ...


class CycleReward(PictureReward):
    """`visual_weight * (1 - distance) + textual_weight * caption score` of a drawing.

    The distance is between the drawing and the real picture, which is the first image of the
    sample's target; the caption, of the drawing, is scored against the prompt's text. Other tasks:
    outcome 0, no step scores.

    Source: CoRL 3.3.1, R_cycle of eq. 3: LPIPS, BLIP's captions, SPICE.
    Departs: weights of the two halves. The released code scores captions with BERTScore instead
    of SPICE; the presets `cycle_paper` and `cycle_released` are the two, `cycle` the paper's with
    stand-ins that read micro-world pictures.

    Args:
        perceptual: distance of the real and the drawn picture.
        captioner: describes the drawn picture.
        caption_score: holds the description against the prompt.
        weight: factor in a hybrid reward; 1 in the paper's eq. 5.
        visual_weight: of the first half; 0 needs no real picture.
        textual_weight: of the second half; 0 asks for no captions.

    Raises:
        ConfigError: a weight that is negative or not finite, or no half counts.
    """

    def __init__(
        self,
        perceptual: PerceptualDistance,
        captioner: Captioner,
        caption_score: CaptionScore,
        weight: float = 1.0,
        visual_weight: float = 1.0,
        textual_weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
        for name, value in (("visual_weight", visual_weight), ("textual_weight", textual_weight)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name}={value} must be finite and at least 0")
        if visual_weight == textual_weight == 0:
            raise ConfigError("visual_weight=0 and textual_weight=0 leave nothing to score")
        self.perceptual = perceptual
        self.captioner = captioner
        self.caption_score = caption_score
        self.visual_weight = visual_weight
        self.textual_weight = textual_weight

    def bind(self, policy: Policy, start: Callable[[], Policy]) -> None:
        """Gives the policy to the captioner, if it asks it; see `OwnPolicy`."""
        if hasattr(self.captioner, "bind"):
            self.captioner.bind(policy, start)

    def judge(self, samples: Sequence[Sample], pictures: Sequence[np.ndarray]) -> list[float]:
        """Up to `visual_weight + textual_weight`; a distance above 1 makes its half negative.

        Raises:
            RewardError: a sample has no real picture, or a score is not finite.
        """
        totals = [0.0] * len(samples)
        if self.visual_weight:
            distances = self._distances(samples, pictures)
            totals = [self.visual_weight * (1 - distance) for distance in distances]
        if self.textual_weight:
            scores = self._caption_scores(samples, pictures)
            pairs = zip(totals, scores, strict=True)
            totals = [total + self.textual_weight * score for total, score in pairs]
        return totals

    def self_test(self) -> None:
        """Each half that counts tells a right picture from a wrong one.

        A captioner that need not know the micro-world is only held to finite scores; the score of
        its captions is then tested on the two prompts themselves.

        Raises:
            RewardError: a half cannot, or a score is not finite.
        """
        ((sample, good, bad),) = self.golden()
        samples, pictures = [sample, sample], [good.images[0], bad.images[0]]
        if self.visual_weight:
            near, far = self._distances(samples, pictures)
            self._require_lead(self.perceptual, 1 - near, 1 - far)
        if self.textual_weight:
            right, wrong = self._caption_scores(samples, pictures)
            judge: object = self.captioner
            if not self.captioner.sees_micro_world:
                text, judge = sample.prompt_text, self.caption_score
                said = self.caption_score([text, text], [text, "two people ride a horse"])
                right, wrong = check_scores(self.caption_score, said, samples)
            self._require_lead(judge, right, wrong)

    def _require_lead(self, judge: object, right: float, wrong: float) -> None:
        if right - wrong < SELF_TEST_MARGIN:
            raise RewardError(
                f"CycleReward cannot tell a right picture from a wrong one with "
                f"{type(judge).__name__}: {right:.3f} against {wrong:.3f}, {SELF_TEST_MARGIN} "
                "apart at least; check its settings and checkpoint"
            )

    def _distances(self, samples: Sequence[Sample], pictures: Sequence[np.ndarray]) -> list[float]:
        distances = self.perceptual([real_picture(sample) for sample in samples], pictures)
        return check_scores(self.perceptual, distances, samples)

    def _caption_scores(
        self, samples: Sequence[Sample], pictures: Sequence[np.ndarray]
    ) -> list[float]:
        captions = self.captioner(pictures)
        scores = self.caption_score([sample.prompt_text for sample in samples], captions)
        return check_scores(self.caption_score, scores, samples)


def real_picture(sample: Sample) -> np.ndarray:
    """The pixels of the real picture of a text-to-image sample.

    Raises:
        RewardError: its target has none.
    """
    for segment in sample.target:
        if isinstance(segment, Image):
            return segment.pixels
    raise RewardError(
        f"drawing sample {sample.id!r} has no real picture to compare with; use data whose "
        "target is an image, or set visual_weight=0"
    )
