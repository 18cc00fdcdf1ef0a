"""r_t by a judge: whether the words of the answer are relevant and coherent, given the prompt."""

import math
from collections.abc import Sequence
from typing import Literal

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Completion, Sample, Task, Text
from unified_rl.microworld.scene import COLORS
from unified_rl.rewards.base import Golden, StepwiseScore, silent
from unified_rl.rewards.golden import golden_question, golden_story, other_story, with_texts_of
from unified_rl.rewards.grammar import spoken, words_of
from unified_rl.rewards.judge_templates import score_question
from unified_rl.rewards.judged import JudgedReward, Plan, shared
from unified_rl.rewards.judging import Judge, JudgeQuestion

LEVELS = ("thoughts", "answer")
_THOUGHT = (
    "A good text is relevant to the task, does the next part of it, and is coherent with what the "
    "model wrote before."
)
_ANSWER = "A good text does all that the task asks for, states nothing wrong, and is coherent."


class JudgedTextReward(JudgedReward):
    """How well the texts do what the prompt asks for, in [0, 1], as a judge says.

    The judge is shown the prompt, with its pictures, and the text with what was written before it;
    not the pictures that the policy drew. Stories, by `level`:

    - "thoughts": each is judged on its own. The outcome is the sum over the thoughts, divided by
      the number of texts in the sample's target or of thoughts, whichever is greater; without a
      target it is their mean, and a short story is not punished. Per step: the thought's score, 0
      for an empty or superfluous one. An empty text at the end has no step score if the story is
      told, else 0.
    - "answer": all thoughts are judged at once, in one question a completion; no step scores.

    Questions and pure text: the score of the answer, likewise as each text's step; 0 without asking
    for an empty one. Drawings ask for no words: outcome 0, no step scores.

    Source: UnifiedGRPO 3.3, the textual relevance reward r_t of eq. 7, assessed by LLaVA-Critic.
    Departs: the paper prints neither template, reading, scale nor how steps are judged; those here
    are ours, but for `template="llava_critic"`, the words of the critic's model card.

    Args:
        judge, weight, template, text_limit, failure_limit, failure_window: see `JudgedReward`.
        level: how stories are judged.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        judge: Judge,
        weight: float = 1.0,
        template: Literal["score_line", "llava_critic"] = "score_line",
        level: Literal["thoughts", "answer"] = "thoughts",
        text_limit: int = 2000,
        failure_limit: float = 0.2,
        failure_window: int = 200,
    ) -> None:
        super().__init__(judge, weight, template, text_limit, failure_limit, failure_window)
        if level not in LEVELS:
            raise ConfigError(f"level={level!r} is neither 'thoughts' nor 'answer'")
        self.level = level

    @property
    def has_steps(self) -> bool:
        """Not if a whole answer is judged at once."""
        return self.level == "thoughts"

    def plan(self, sample: Sample, completion: Completion) -> Plan:
        """One question a thought, or one a completion."""
        if sample.task is Task.TEXT_TO_IMAGE:
            return Plan((), lambda _: silent(completion))
        if sample.task is Task.INTERLEAVED and self.level == "thoughts":
            return self._story(sample, completion)
        answer = " ".join(filter(None, map(words_of, completion.texts)))
        questions = (self._question(_ANSWER, sample, "", answer),) if answer else ()

        def settle(scores: Sequence[float]) -> StepwiseScore:
            value = scores[0] if scores else 0.0
            steps = [value if isinstance(s, Text) else math.nan for s in completion.segments]
            return StepwiseScore(value, tuple(steps))

        return Plan(questions, settle)

    def _story(self, sample: Sample, completion: Completion) -> Plan:
        target = Completion(sample.target, finished=True)
        required = sum(isinstance(segment, Text) for segment in spoken(target))
        told = spoken(completion)
        places = [index for index, segment in enumerate(told) if isinstance(segment, Text)]
        thoughts = [words_of(told[place].text) for place in places]
        due = [bool(words) and (not required or k < required) for k, words in enumerate(thoughts)]
        questions = tuple(
            self._question(_THOUGHT, sample, ", ".join(filter(None, thoughts[:k])), words)
            for k, words in enumerate(thoughts)
            if due[k]
        )

        def settle(scores: Sequence[float]) -> StepwiseScore:
            steps = [math.nan] * len(completion.segments)
            values = iter(scores)
            for place, asked in zip(places, due, strict=True):
                steps[place] = next(values) if asked else 0.0
            if len(told) < len(completion.segments) and len(places) < max(required, 1):
                steps[-1] = 0.0
            return StepwiseScore(shared(sum(scores), required, len(places)), tuple(steps))

        return Plan(questions, settle)

    def _question(self, criterion: str, sample: Sample, before: str, text: str) -> JudgeQuestion:
        return score_question(self.template, criterion, sample, before, text, self.text_limit)

    def golden(self) -> tuple[Golden, ...]:
        """A telling against the words of another story; an answer against a wrong one."""
        sample, good = golden_story()
        _, other = other_story()
        question, answer = golden_question("colors")
        color = next(color for color in COLORS if color not in answer.texts)
        wrong = Completion((Text(color),), finished=True)
        return Golden(sample, good, with_texts_of(good, other)), Golden(question, answer, wrong)
