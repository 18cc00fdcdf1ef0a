"""r_v by a judge: whether a drawn picture shows what it should."""

import math
from collections.abc import Sequence

from unified_rl.core.sample import Completion, Image, Sample, Task, Text
from unified_rl.rewards.base import Golden, StepwiseScore, silent
from unified_rl.rewards.golden import golden_drawing, golden_story, other_story, with_images_of
from unified_rl.rewards.grammar import words_of
from unified_rl.rewards.judge_templates import score_question
from unified_rl.rewards.judged import JudgedReward, Plan, shared
from unified_rl.rewards.judging import JudgeQuestion

_CRITERION = (
    "A good picture shows what the task asks for{step}, all of it and nothing that contradicts it, "
    "and is of good quality."
)
_STEP = ", as far as the latest of the texts that the model wrote before says"


class JudgedPictureReward(JudgedReward):
    """How well pictures show what they should, in [0, 1], as a judge that sees them says.

    A drawing's first picture is judged by its prompt. Picture k of a story is judged by the prompt
    and by all that was written before it; one with no text between it and the picture before is
    superfluous. The outcome is the sum over the pictures, divided by the number in the sample's
    target (of a drawing: 1) or of those given, whichever is greater. Per step: the picture's score,
    0 for a superfluous one; texts have none. Questions and pure text: outcome 0, no step scores.

    A policy that writes into its pictures can speak to the judge there, which no cleaning prevents:
    log a held-out reward beside this one.

    Source: UnifiedGRPO 3.3, the visual reward r_v of eq. 7.
    Departs: the paper has ImageReward; this is for judges that are asked in words.
    """

    def plan(self, sample: Sample, completion: Completion) -> Plan:
        """One question a picture."""
        if sample.task not in (Task.TEXT_TO_IMAGE, Task.INTERLEAVED):
            return Plan((), lambda _: silent(completion))
        required = 1
        if sample.task is Task.INTERLEAVED:
            required = sum(not isinstance(segment, Text) for segment in sample.target)
        places: list[int] = []
        questions: dict[int, JudgeQuestion] = {}
        written: list[str] = []
        fresh = sample.task is Task.TEXT_TO_IMAGE  # whether something is left to be drawn
        for place, segment in enumerate(completion.segments):
            if isinstance(segment, Text):
                words = words_of(segment.text)
                written += [words] if words else []
                fresh |= bool(words) and sample.task is Task.INTERLEAVED
            elif isinstance(segment, Image):
                if fresh and (not required or len(places) < required):
                    questions[place] = self._question(sample, ", ".join(written), segment)
                places.append(place)
                fresh = False

        def settle(scores: Sequence[float]) -> StepwiseScore:
            steps = [math.nan] * len(completion.segments)
            values = dict(zip(questions, scores, strict=True))
            for place in places:
                steps[place] = values.get(place, 0.0)
            return StepwiseScore(shared(sum(scores), required, len(places)), tuple(steps))

        return Plan(tuple(questions.values()), settle)

    def _question(self, sample: Sample, written: str, picture: Image) -> JudgeQuestion:
        criterion = _CRITERION.format(step=_STEP if written else "")
        return score_question(self.template, criterion, sample, written, picture, self.text_limit)

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
