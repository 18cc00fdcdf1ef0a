"""Whether an answer about a picture is right, by rules."""

from typing import Protocol

from unified_rl.core.sample import Completion, Sample, Text
from unified_rl.rewards.keywords import POINTS, KeywordReward


class Judge(Protocol):
    """Judges answers to understanding samples by their facts, all or nothing.

    Attributes:
        failure_count: answers so far that it could not judge, for which it said False.
    """

    failure_count: int

    def __call__(self, sample: Sample, answer: str) -> bool:
        """Whether the answer is right."""
        ...


class RuleJudge:
    """An answer is right that has full marks of the keyword reward.

    Args:
        reward: the rules; None takes the default ones.
    """

    failure_count = 0

    def __init__(self, reward: KeywordReward | None = None) -> None:
        self._reward = KeywordReward() if reward is None else reward

    def __call__(self, sample: Sample, answer: str) -> bool:
        """Whether the answer is right.

        Raises:
            RewardError: the sample's facts do not say what is right.
        """
        outcome = self._reward.score(sample, Completion((Text(answer),), finished=True)).outcome
        full = 1 if self._reward.normalise else POINTS[sample.facts["category"]]
        return outcome == full
