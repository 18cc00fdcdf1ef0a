"""A reward for answers of random weights."""

from unified_rl.core.sample import Completion, Sample, Text
from unified_rl.rewards.base import CompletionReward, Golden, StepwiseScore
from unified_rl.rewards.golden import golden_question


class Length(CompletionReward):
    """Characters of the answer, in hundreds."""

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        value = sum(map(len, completion.texts)) / 100
        return StepwiseScore(value, (value,) * len(completion.segments))

    def golden(self) -> tuple[Golden, ...]:
        sample, _ = golden_question("colors")
        said = [Completion((Text(text),), finished=True) for text in ("a" * 99, "a")]
        return (Golden(sample, *said),)
