"""What rewards that look at pictures have in common."""

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from unified_rl.core.errors import RewardError
from unified_rl.core.sample import Completion, Image, Sample, Segment, Task
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.rewards.base import CompletionReward, Golden, StepwiseScore
from unified_rl.rewards.golden import golden_drawing

NO_PICTURE = 0.0
"""The outcome of a drawing that holds no picture."""


class PictureReward(CompletionReward):
    """A reward of drawings that judges many pictures in one call, for models that want batches.

    The first picture of an answer to a text-to-image sample is judged; an answer without one gets
    `NO_PICTURE`. Per step: the picture's score; texts have none. Other tasks: outcome 0, no step
    scores. As with any `CompletionReward`, a score depends on that picture and its sample alone,
    but for the rounding of a model's batches.

    Attributes:
        tasks: of the samples that are judged.
    """

    tasks = frozenset((Task.TEXT_TO_IMAGE,))

    @abstractmethod
    def judge(self, samples: Sequence[Sample], pictures: Sequence[np.ndarray]) -> list[float]:
        """One finite score a picture, in order.

        Args:
            samples: each of text to image.
            pictures: one a sample, uint8 (height, width, 3).
        """

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome, and the same as the step of the picture judged."""
        return self._scores([sample], [completion])[0]

    def __call__(self, rollout: Rollout) -> RewardScores:
        """Outcomes (B,) and steps (B, K), K the most segments of a completion, NaN padded."""
        scores = self._scores(rollout.samples, rollout.completions)
        longest = max((len(score.steps) for score in scores), default=0)
        padded = [(*score.steps, *[math.nan] * (longest - len(score.steps))) for score in scores]
        steps = torch.tensor(padded, dtype=torch.float32).reshape(len(scores), longest)
        outcomes = torch.tensor([score.outcome for score in scores], dtype=torch.float32)
        judged = torch.tensor([sample.task in self.tasks for sample in rollout.samples])
        return RewardScores(outcomes, steps, judged)

    def _scores(
        self, samples: Sequence[Sample], completions: Sequence[Completion]
    ) -> list[StepwiseScore]:
        asked = [
            (row, sample, completion.images[0])
            for row, (sample, completion) in enumerate(zip(samples, completions, strict=True))
            if sample.task is Task.TEXT_TO_IMAGE and completion.images
        ]
        values: dict[int, float] = {}
        if asked:
            rows, shown, pictures = zip(*asked, strict=True)
            values = dict(zip(rows, self.judge(shown, pictures), strict=True))
        return [_stepwise(values.get(row), answer) for row, answer in enumerate(completions)]

    def golden(self) -> tuple[Golden, ...]:
        """A right picture, which is the target too, against one with other shapes and colours."""
        sample, good = golden_drawing("attribution")
        _, bad = golden_drawing("attribution", -1)
        return (Golden(dataclasses.replace(sample, target=good.segments), good, bad),)


def check_scores(judge: object, values: Sequence[float], samples: Sequence[Sample]) -> list[float]:
    """Returns what a judge said of these samples' pictures.

    Raises:
        RewardError: not one score a sample, or one that is not finite; it names judge and sample.
    """
    name = type(judge).__name__
    if len(values) != len(samples):
        raise RewardError(f"{name} gave {len(values)} scores for {len(samples)} pictures")
    for sample, value in zip(samples, values, strict=True):
        if not math.isfinite(value):
            raise RewardError(
                f"{name} gave {value} for a picture of {sample.id!r}; check its checkpoint, or "
                "give it dtype=float32 if it has a dtype"
            )
    return list(values)


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """The picture as a policy of `size` px is shown it, (size, size, 3), each pixel the nearest.

    A picture of that size is left as it is; one that is not square is squeezed.
    """
    height, width = picture.shape[:2]
    rows, columns = (np.arange(size) * side // size for side in (height, width))
    return picture[rows[:, None], columns]


def _stepwise(value: float | None, completion: Completion) -> StepwiseScore:
    steps = [math.nan] * len(completion.segments)
    if value is None:
        return StepwiseScore(NO_PICTURE, tuple(steps))
    steps[_first_picture(completion.segments)] = value
    return StepwiseScore(value, tuple(steps))


def _first_picture(segments: Sequence[Segment]) -> int:
    return next(index for index, segment in enumerate(segments) if isinstance(segment, Image))
