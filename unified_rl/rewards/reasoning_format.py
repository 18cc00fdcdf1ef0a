"""R_format: whether an answer is reasoned, `<think>..</think><answer>..</answer>`."""

import math
from typing import Literal

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import ANSWER, ANSWER_END, Completion, Sample, Task, Text
from unified_rl.rewards.answers import reasoned, split_reasoning
from unified_rl.rewards.base import CompletionReward, Golden, StepwiseScore, silent
from unified_rl.rewards.golden import golden_question
from unified_rl.rewards.released_answers import is_lazily_reasoned

TASKS = (Task.UNDERSTANDING, Task.TEXT)
READINGS = ("strict", "released")


class ReasoningFormatReward(CompletionReward):
    """1 for a finished answer of the form `<think>..</think><answer>..</answer>`, else 0.

    Each tag is there once and in order, dots and white space may stand between the two parts and
    white space around them, neither part is blank, and there is no image. Texts' steps are as the
    outcome. Other tasks than questions with or without an image: outcome 0, no step scores.

    It saturates at 1 early in training, which is no fault.

    Source: CoRL 3.3.1, R_Format ("strict compliance"), after DeepSeek-R1.
    Departs: the paper prints no rule. The released code has a lazy regular expression that takes
    nested, repeated and empty parts but no white space around them; `reading="released"` is that.

    Args:
        weight: factor in a hybrid reward; the paper's eq. 5 has 0.8 beside a drawing's rewards.
        reading: "strict" or "released".

    Raises:
        ConfigError: an unknown reading.
    """

    def __init__(
        self, weight: float = 1.0, reading: Literal["strict", "released"] = "strict"
    ) -> None:
        super().__init__(weight)
        if reading not in READINGS:
            raise ConfigError(f"reading={reading!r} is none of {', '.join(READINGS)}")
        self.reading = reading

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome and the texts' steps: 1 or 0."""
        if sample.task not in TASKS:
            return silent(completion)
        if self.reading == "released":
            kept = is_lazily_reasoned("".join(completion.texts))
        else:
            kept = is_reasoned(completion)
        steps = tuple(float(kept) if isinstance(s, Text) else math.nan for s in completion.segments)
        return StepwiseScore(float(kept), steps)

    def golden(self) -> tuple[Golden, ...]:
        """A reasoned answer against untagged ones, one with words after it, repeated parts."""
        sample, answer = golden_question("colors")
        words = answer.texts[0]
        good = reasoned("i look at the object", words)
        bad = [words, f"{ANSWER}{words}{ANSWER_END}", f"{good} i think"]
        if self.reading == "strict":
            bad += [good + good, reasoned("", words)]
        return tuple(Golden(sample, _said(good), _said(wrong)) for wrong in bad)


def is_reasoned(completion: Completion) -> bool:
    """Whether a completion is finished, all text, and a reasoned answer with no part blank."""
    parts = split_reasoning("".join(completion.texts))
    return (
        completion.finished
        and not completion.images
        and parts is not None
        and all(part.strip(". \n\t") for part in parts)
    )


def _said(text: str) -> Completion:
    return Completion((Text(text),), finished=True)
