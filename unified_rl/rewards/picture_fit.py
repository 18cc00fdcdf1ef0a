"""What rewards have in common that hold pictures against words, pair by pair."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Completion, Image, Sample, Task, Text
from unified_rl.rewards.base import StepwiseScore
from unified_rl.rewards.grammar import words_of
from unified_rl.rewards.pictures import NO_PICTURE, PictureReward, check_scores

STORY_TEXTS = ("thought", "prompt", "both")
StoryText = Literal["thought", "prompt", "both"]


class _Asked(NamedTuple):
    """One picture to judge: of which answer, at which segment, against which words."""

    row: int
    segment: int
    sample: Sample
    text: str
    pixels: np.ndarray


class PictureFitReward(PictureReward):
    """A reward of drawings and stories whose model scores pairs of a text and a picture.

    Drawings: the first picture against the prompt. Stories: every picture against the thought
    right before it, the prompt, or both, thought first, as models cut long texts off; a picture
    without a thought is held against the prompt. The outcome of a story is the mean over its
    pictures, and each that the sample's target has beyond them counts `undrawn`, as does an answer
    without any. Per step: each picture's score; texts have none. Other tasks: outcome 0, no steps.

    Hackable alone where stories are held against their own thoughts: a policy may think of nothing
    but what it draws well. Use it beside a reward that holds the thoughts against the prompt.

    Source: UnifiedGRPO 3.3, the visual reward r_v: "alignment with the text and prompt context".
    Departs: the paper does not say which words its models are given.

    Args:
        weight: factor in a hybrid reward.
        story_text: what the pictures of a story are held against.
        setting: the name of this reward in its config, for messages.

    Attributes:
        undrawn: the score of a picture that is not there.

    Raises:
        ConfigError: a setting out of its range.
    """

    tasks = frozenset((Task.TEXT_TO_IMAGE, Task.INTERLEAVED))
    undrawn = NO_PICTURE

    def __init__(self, weight: float, story_text: StoryText, setting: str) -> None:
        super().__init__(weight)
        if story_text not in STORY_TEXTS:
            raise ConfigError(f"story_text={story_text!r} is none of {', '.join(STORY_TEXTS)}")
        self.story_text = story_text
        self._setting = setting

    @abstractmethod
    def fits(self, texts: Sequence[str], pictures: Sequence[np.ndarray]) -> list[float]:
        """One score a pair, in order; higher where picture and text fit better.

        Args:
            texts: whatever users and policies wrote.
            pictures: one a text, uint8 (height, width, 3) of any size.
        """

    def judge(self, samples: Sequence[Sample], pictures: Sequence[np.ndarray]) -> list[float]:
        """Scores of pictures against the prompts of their samples.

        Raises:
            RewardError: one is not finite.
        """
        fits = self.fits([sample.prompt_text for sample in samples], pictures)
        return check_scores(self, fits, samples)

    def self_test(self) -> None:
        """The right picture of two has the higher score, by however little.

        The scores of a sound model may lie close together: cosines of right and wrong are a few
        hundredths apart.

        Raises:
            RewardError: it has not, or a score is not finite.
        """
        ((sample, good, bad),) = self.golden()
        right, wrong = self.judge([sample, sample], [good.images[0], bad.images[0]])
        if right <= wrong:
            raise RewardError(
                f"{type(self).__name__} cannot tell a right picture of {sample.prompt_text!r} from "
                f"a wrong one: {right:.4f} against {wrong:.4f}; check {self._setting}.checkpoint"
            )

    def _scores(
        self, samples: Sequence[Sample], completions: Sequence[Completion]
    ) -> list[StepwiseScore]:
        pairs = zip(samples, completions, strict=True)
        asked = [one for row, pair in enumerate(pairs) for one in self._asked(row, *pair)]
        values: list[float] = []
        if asked:
            values = self.fits([one.text for one in asked], [one.pixels for one in asked])
            check_scores(self, values, [one.sample for one in asked])
        steps = [[math.nan] * len(completion.segments) for completion in completions]
        for one, value in zip(asked, values, strict=True):
            steps[one.row][one.segment] = value
        return [
            StepwiseScore(self._outcome(sample, own), tuple(own))
            for sample, own in zip(samples, steps, strict=True)
        ]

    def _asked(self, row: int, sample: Sample, completion: Completion) -> Iterator[_Asked]:
        if sample.task not in self.tasks:
            return
        thought = ""
        for place, segment in enumerate(completion.segments):
            if isinstance(segment, Text):
                thought = words_of(segment.text)
            elif isinstance(segment, Image):
                if sample.task is Task.TEXT_TO_IMAGE:
                    yield _Asked(row, place, sample, sample.prompt_text, segment.pixels)
                    return
                text = self._story_text(sample.prompt_text, thought)
                yield _Asked(row, place, sample, text, segment.pixels)
                thought = ""  # a second picture in a row has no thought of its own

    def _story_text(self, prompt: str, thought: str) -> str:
        if not thought or self.story_text == "prompt":
            return prompt
        return thought if self.story_text == "thought" else f"{thought}. {prompt}"

    def _outcome(self, sample: Sample, steps: Sequence[float]) -> float:
        if sample.task not in self.tasks:
            return 0.0
        scores = [step for step in steps if not math.isnan(step)]
        due = 1
        if sample.task is Task.INTERLEAVED:
            due = max(1, sum(not isinstance(segment, Text) for segment in sample.target))
        scores += [self.undrawn] * (due - len(scores))
        return sum(scores) / len(scores)
