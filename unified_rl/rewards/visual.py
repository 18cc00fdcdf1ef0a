"""r_v: whether the pictures show what the prompt asks for."""

import math

from unified_rl.core.sample import Completion, Image, Sample, Task
from unified_rl.microworld.facts import Facts
from unified_rl.rewards.base import (
    CompletionReward,
    Golden,
    StepwiseScore,
    check_share,
    silent,
)
from unified_rl.rewards.golden import golden_drawing, golden_story, other_story, with_images_of
from unified_rl.rewards.sample_facts import drawing_of, story_of
from unified_rl.rewards.sight import blend, check


class VisualReward(CompletionReward):
    """How right the pictures are, in [0, 1].

    Picture k of a story is held against the facts of step k, the picture of a drawing against its
    prompt's. A picture scores `strict_weight` if it shows exactly what is required, plus the rest
    times the fraction of the required facts that hold. The outcome is the sum over the pictures,
    divided by the number required or given, whichever is greater: a missing or superfluous picture
    counts 0. Per step: the picture's score; texts have none. Questions and pure text ask for no
    picture: outcome 0, no step scores.

    Source: UnifiedGRPO 3.3, the visual reward r_v of eq. 7.
    Departs: the paper asks a learned model (ImageReward); the micro-world's verifier reads pixels.

    Args:
        weight: factor in a hybrid reward, 0 or more.
        strict_weight: share of the all-or-nothing part, in [0, 1]. The soft part is the denser
            signal; alone, it lets a policy settle for half-right pictures.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(self, weight: float = 1.0, strict_weight: float = 0.5) -> None:
        super().__init__(weight)
        self.strict_weight = check_share("strict_weight", strict_weight)

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome in [0, 1]; steps in [0, 1] on images, NaN on texts.

        Raises:
            RewardError: images of a size that the verifier does not read.
        """
        required: tuple[Facts, ...]
        if sample.task is Task.INTERLEAVED:
            required = tuple(step.facts for step in story_of(sample).steps)
        elif sample.task is Task.TEXT_TO_IMAGE:
            required = (drawing_of(sample),)
        else:
            return silent(completion)
        steps = [math.nan] * len(completion.segments)
        scores: list[float] = []
        for index, segment in enumerate(completion.segments):
            if isinstance(segment, Image):
                score = 0.0
                if len(scores) < len(required):
                    verdict = check(sample, segment.pixels, required[len(scores)])
                    score = blend(verdict, self.strict_weight)
                scores.append(score)
                steps[index] = score
        return StepwiseScore(sum(scores) / max(len(required), len(scores)), tuple(steps))

    def golden(self) -> tuple[Golden, ...]:
        """A telling and a drawing, each against the pictures of another one."""
        sample, good = golden_story()
        _, other = other_story()
        drawing, picture = golden_drawing("attribution")
        _, wrong = golden_drawing("attribution", -1)
        return (
            Golden(sample, good, with_images_of(good, other)),
            Golden(drawing, picture, wrong),
        )
