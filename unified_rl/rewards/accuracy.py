"""R_acc: whether a question is answered rightly."""

import math
from typing import Literal

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Completion, Sample, Task, Text
from unified_rl.rewards.answers import (
    chosen_option,
    options_in,
    reasoned,
    same_answer,
    split_reasoning,
)
from unified_rl.rewards.base import CompletionReward, Golden, StepwiseScore, silent
from unified_rl.rewards.golden import golden_choice, golden_formula, golden_question
from unified_rl.rewards.mathematics import require_math_verify, same_formula
from unified_rl.rewards.released_answers import (
    loose_answer,
    loosely_same,
    soft_jaccard,
    tagged_answer,
)

TASKS = (Task.UNDERSTANDING, Task.TEXT)
READINGS = ("strict", "released")
KINDS = ("auto", "choice", "open", "math")


class AccuracyReward(CompletionReward):
    """1 for the right answer to a question with or without an image, else 0; texts' steps likewise.

    The gold answer is the sample's fact "answer", or else the text of its target; of
    `<think>..</think><answer>..</answer>` it is what is in the answer. The options of a choice are
    lines "A. text" of the prompt. Other tasks: outcome 0, no step scores.

    Source: CoRL 3.3.1, R_MCQ-Acc and R_OE-Acc.
    Departs: the paper prints no rule of equality; `answers` has ours. An answer counts only in the
    strict form that the format reward asks for, so there is one way to read a completion. The
    released code differs from the paper: its branch for multiple choice compares a list with a
    string and never runs, so every answer that is not equal gets the soft Jaccard index of its
    words, a continuous reward. `reading="released"` does the same, without the package word2number.

    Args:
        weight: factor in a hybrid reward; the paper's eq. 5 has 0.8 beside a drawing's rewards.
        reading: "strict" as above; "released" takes the first tagged answer, or without one all
            that is no thought, and gives part of a reward, in [0, 1], for part of the words.
        kind: how strict answers are compared. "open": as texts or numbers. "choice": as letters or
            texts of options. "auto": as "choice" where the gold answer names an option, else as
            "open". "math": as "auto", and where that finds them different, as formulas; needs the
            package math-verify.

    Raises:
        ConfigError: an unknown reading or kind, a kind with the released reading, which has none,
            or math-verify is missing.
    """

    def __init__(
        self,
        weight: float = 1.0,
        reading: Literal["strict", "released"] = "strict",
        kind: Literal["auto", "choice", "open", "math"] = "auto",
    ) -> None:
        super().__init__(weight)
        if reading not in READINGS:
            raise ConfigError(f"reading={reading!r} is none of {', '.join(READINGS)}")
        if kind not in KINDS:
            raise ConfigError(f"kind={kind!r} is none of {', '.join(KINDS)}")
        if reading == "released" and kind != "auto":
            raise ConfigError(
                f"kind={kind!r} has no effect with reading='released', which compares words; "
                "set kind=auto or reading=strict"
            )
        if kind == "math":
            require_math_verify()
        self.reading = reading
        self.kind = kind

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome and the texts' steps: 1 or 0, in [0, 1] with the released reading.

        Raises:
            RewardError: the sample has no gold answer, or of kind "choice" one that is no option.
        """
        if sample.task not in TASKS:
            return silent(completion)
        gold = gold_answer(sample)
        text = "".join(completion.texts)
        value = self._released(text, gold) if self.reading == "released" else 0.0
        if self.reading == "strict":
            parts = split_reasoning(text)
            value = float(parts is not None and self._is_right(sample, parts.answer, gold))
        steps = tuple(value if isinstance(s, Text) else math.nan for s in completion.segments)
        return StepwiseScore(value, steps)

    def _released(self, text: str, gold: str) -> float:
        answer = loose_answer(text)
        if loosely_same(answer, gold):
            return 1.0
        return soft_jaccard(answer.rstrip(".,!?"), gold)

    def _is_right(self, sample: Sample, answer: str, gold: str) -> bool:
        if self.kind != "open":
            options = options_in("\n".join(s.text for s in sample.prompt if isinstance(s, Text)))
            right = chosen_option(gold, options)
            if right is not None:
                return chosen_option(answer, options) == right
            if self.kind == "choice":
                raise RewardError(
                    f"the gold answer {gold!r} of sample {sample.id!r} is none of its options "
                    f"{options}; mend the sample or set kind=auto"
                )
        if same_answer(answer, gold):
            return True
        return self.kind == "math" and same_formula(answer, gold)

    def golden(self) -> tuple[Golden, ...]:
        """A right letter against two; a right colour and a right formula against wrong ones."""
        choice, letter = golden_choice()
        cases = [(choice, letter, f"{letter} or A")]
        if self.kind != "choice":
            question, answer = golden_question("colors")
            right = answer.texts[0]
            cases.append((question, right, "white" if right != "white" else "black"))
        if self.kind == "math":
            cases.append((*golden_formula(), "2 or 3"))
        return tuple(Golden(sample, _said(good), _said(bad)) for sample, good, bad in cases)


def gold_answer(sample: Sample) -> str:
    """The right answer to a question.

    Raises:
        RewardError: the sample has none, or it is empty.
    """
    text = sample.facts.get("answer")
    if text is None:
        text = "".join(s.text for s in sample.target if isinstance(s, Text))
    tagged = tagged_answer(str(text))
    gold = str(text).strip() if tagged is None else tagged
    if not gold:
        raise RewardError(
            f"sample {sample.id!r} of task {sample.task} has no gold answer: neither a fact "
            f"'answer' (it has {sorted(sample.facts)}) nor a target with text"
        )
    return gold


def _said(answer: str) -> Completion:
    return Completion((Text(reasoned("i look at the picture", answer)),), finished=True)
