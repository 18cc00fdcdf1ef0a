"""r_f: whether the answer keeps to the grammar of interleaved answers."""

import math

from unified_rl.core.sample import Completion, Image, Sample, Task, Text
from unified_rl.rewards.base import CompletionReward, Golden, StepwiseScore
from unified_rl.rewards.golden import golden_story
from unified_rl.rewards.grammar import is_thought, spoken, words_of


class FormatReward(CompletionReward):
    """1 for a finished answer of the form (THINK words VISUALISE image)+, else 0.

    Per step: a text that is one whole thought and is followed by an image has 1, any other text 0.
    Images, and an empty text at the end, have no step score. Tasks that are not interleaved have
    no tags; there an answer only has to be finished, and so do its texts.

    It saturates at 1 early in training, which is no fault.

    Source: UnifiedGRPO 3.3, the format reward r_f of eq. 7.
    Departs: the paper names the tags and prints no rule; this is the grammar of its Figure 1.
    """

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome 1 or 0; steps 1, 0 or NaN."""
        segments = completion.segments
        if sample.task is not Task.INTERLEAVED:
            finished = float(completion.finished)
            steps = tuple(finished if isinstance(s, Text) else math.nan for s in segments)
            return StepwiseScore(finished, steps)
        said = spoken(completion)
        steps = [math.nan] * len(segments)
        for index, segment in enumerate(said):
            if isinstance(segment, Text):
                followed = isinstance(said[index + 1] if index + 1 < len(said) else None, Image)
                steps[index] = float(followed and is_thought(segment.text))
        return StepwiseScore(float(is_well_formed(completion)), tuple(steps))

    def golden(self) -> tuple[Golden, ...]:
        """A telling against one without tags, one cut off, and one that lacks its last image."""
        sample, good = golden_story()
        untagged = tuple(
            Text(words_of(s.text)) if isinstance(s, Text) else s for s in good.segments
        )
        bad = (
            Completion(untagged, finished=True),
            Completion(good.segments, finished=False),
            Completion(good.segments[:3], finished=True),
        )
        return tuple(Golden(sample, good, wrong) for wrong in bad)


def is_well_formed(completion: Completion) -> bool:
    """Whether a completion is finished and follows the grammar from start to end."""
    segments = spoken(completion)
    return (
        completion.finished
        and len(segments) > 0
        and len(segments) % 2 == 0
        and all(isinstance(s, Text) and is_thought(s.text) for s in segments[::2])
        and all(isinstance(s, Image) for s in segments[1::2])
    )
