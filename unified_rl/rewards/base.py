"""What rewards that look at one completion at a time have in common."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Completion, Sample
from unified_rl.core.trajectory import RewardScores, Rollout

SELF_TEST_MARGIN = 0.1
"""Least lead of a golden good answer over a golden bad one, in units of the outcome."""


class StepwiseScore(NamedTuple):
    """What a reward says of one completion.

    Attributes:
        outcome: of the whole completion, in [0, 1] for the rewards of this package.
        steps: one score a segment of the completion; NaN where there is nothing to say.
    """

    outcome: float
    steps: tuple[float, ...]


class Silence(StepwiseScore):
    """What a reward says of a completion that it does not judge; see `silent`."""

    __slots__ = ()


class Golden(NamedTuple):
    """A sample with an answer that is right and one that is wrong in what the reward looks at."""

    sample: Sample
    good: Completion
    bad: Completion


class CompletionReward(ABC):
    """A reward whose score of a completion depends on that completion and its sample alone.

    Args:
        weight: factor in a hybrid reward, 0 or more; 0 is logged only.

    Raises:
        ConfigError: a weight that is negative or not finite.
    """

    waits = False
    """Whether it mostly waits for another process or machine: it may then score the first part of
    a rollout in a thread of its own while the next part is drawn."""

    def __init__(self, weight: float = 1.0) -> None:
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"weight={weight} must be finite and at least 0 (0: logged only)")
        self.weight = weight

    @abstractmethod
    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Scores one completion."""

    @abstractmethod
    def golden(self) -> tuple[Golden, ...]:
        """Cases that a working reward tells apart."""

    def __call__(self, rollout: Rollout) -> RewardScores:
        """Outcomes (B,) and steps (B, K), K the most segments of a completion, NaN padded."""
        pairs = zip(rollout.samples, rollout.completions, strict=True)
        scores = [self._checked(sample, completion) for sample, completion in pairs]
        longest = max((len(score.steps) for score in scores), default=0)
        steps = torch.full((len(scores), longest), float("nan"))
        for row, score in enumerate(scores):
            steps[row, : len(score.steps)] = torch.tensor(score.steps)
        judged = torch.tensor([not isinstance(score, Silence) for score in scores])
        return RewardScores(torch.tensor([score.outcome for score in scores]), steps, judged)

    def self_test(self) -> None:
        """Tells golden good answers from bad ones.

        Raises:
            RewardError: the lead is below `SELF_TEST_MARGIN`, or a score is not finite.
        """
        for sample, good, bad in self.golden():
            high, low = (self._checked(sample, answer).outcome for answer in (good, bad))
            if not high - low >= SELF_TEST_MARGIN:  # also when one of them is NaN
                raise RewardError(
                    f"{type(self).__name__} cannot tell a good answer to {sample.id!r} from a bad "
                    f"one: {high:.3f} against {low:.3f}, {SELF_TEST_MARGIN} apart at least; check "
                    "what it reads images and texts with"
                )

    def _checked(self, sample: Sample, completion: Completion) -> StepwiseScore:
        score = self.score(sample, completion)
        if len(score.steps) != len(completion.segments):
            raise RewardError(
                f"{type(self).__name__} gave {len(score.steps)} step scores for the "
                f"{len(completion.segments)} segments of {sample.id!r}; give one a segment"
            )
        return score


def silent(completion: Completion) -> Silence:
    """Outcome 0 and no step scores: for tasks that a reward has nothing to say of.

    Such a constant cancels within a group, so it never moves an advantage. It is no judgement
    either: a story without pictures has earned its 0 of a reward for pictures, which counts in
    means, while a question has not been asked for any and is left out of them.
    """
    return Silence(0.0, (math.nan,) * len(completion.segments))


def check_share(name: str, value: float) -> float:
    """Returns a setting that must lie in [0, 1].

    Raises:
        ConfigError: it does not.
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"{name}={value} is outside [0, 1]")
    return value
