"""r_t: whether the words of the answer say what the prompt asks for."""

import math
import re

from unified_rl.core.sample import Completion, Sample, Task, Text
from unified_rl.microworld.questions import judge_answer
from unified_rl.microworld.scene import COLORS
from unified_rl.microworld.stories import thought_score
from unified_rl.rewards.base import CompletionReward, Golden, StepwiseScore, silent
from unified_rl.rewards.golden import golden_question, golden_story, other_story, with_texts_of
from unified_rl.rewards.grammar import spoken, words_of
from unified_rl.rewards.sample_facts import answer_of, question_of, story_of

_ARTICLES = frozenset(("a", "an", "the"))


class TextualReward(CompletionReward):
    """How much of what the prompt asks for the texts say, in [0, 1].

    Stories: thought k is scored by the fraction of step k's facts that it states; the outcome is
    the sum over the thoughts, divided by the number of steps or of thoughts, whichever is greater.
    So missing thoughts count 0 and superfluous ones lower the mean. Per step: the thought's score,
    0 for a superfluous one. An empty text at the end has no step score if the story is told, but 0
    if a thought is due there: else stopping early would escape the later steps' low scores.

    Questions: 1 for an answer that is right and complete and states nothing wrong, else 0. Pure
    text: 1 for the one right answer (articles and case aside), else 0. Drawings ask for no words:
    outcome 0, no step scores.

    Source: UnifiedGRPO 3.3, the textual relevance reward r_t of eq. 7.
    Departs: the paper asks a learned critic (LLaVA-Critic); the micro-world knows what is true.
    """

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome in [0, 1]; steps in [0, 1] on texts, NaN on images."""
        if sample.task is Task.INTERLEAVED:
            return self._score_story(sample, completion)
        answer = " ".join(map(words_of, completion.texts))
        if sample.task is Task.UNDERSTANDING:
            right = judge_answer(question_of(sample), answer)
        elif sample.task is Task.TEXT:
            right = _content(answer) == _content(answer_of(sample))
        else:
            return silent(completion)
        steps = [float(right) if isinstance(s, Text) else math.nan for s in completion.segments]
        return StepwiseScore(float(right), tuple(steps))

    def _score_story(self, sample: Sample, completion: Completion) -> StepwiseScore:
        story = story_of(sample)
        required = len(story.steps)
        steps = [math.nan] * len(completion.segments)
        scores: list[float] = []
        said = spoken(completion)
        for index, segment in enumerate(said):
            if isinstance(segment, Text):
                step = len(scores)
                due = step < required
                scores.append(thought_score(words_of(segment.text), step, story) if due else 0.0)
                steps[index] = scores[-1]
        if len(said) < len(completion.segments) and len(scores) < required:
            steps[-1] = 0.0
        return StepwiseScore(sum(scores) / max(required, len(scores)), tuple(steps))

    def golden(self) -> tuple[Golden, ...]:
        """A telling against the words of another story; an answer against a wrong one."""
        sample, good = golden_story()
        _, other = other_story()
        question, answer = golden_question("colors")
        color = next(color for color in COLORS if color not in answer.texts)
        wrong = Completion((Text(color),), finished=True)
        return (
            Golden(sample, good, with_texts_of(good, other)),
            Golden(question, answer, wrong),
        )


def _content(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in _ARTICLES]
