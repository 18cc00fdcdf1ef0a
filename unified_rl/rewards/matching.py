"""R_TIM: how well a drawing matches its words in the policy's own eyes."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from unified_rl.core.errors import CapabilityError, ConfigError, RewardError
from unified_rl.core.protocols import Policy, Represents
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.decoding.modes import evaluation_mode
from unified_rl.rewards.golden import golden_drawing
from unified_rl.rewards.own_policy import OwnPolicy
from unified_rl.rewards.pictures import resized

TEXTS = ("words", "released")
RELEASED_GAP = 5
"""Positions behind the image that the released code leaves out; its words begin at the next."""
UNDRAWN = -1.0
"""Of a drawing without a picture: no picture can match worse, so it never pays not to draw."""
MOST_NOISE, LEAST_DIFFERENCE = 1e-3, 1e-6
"""In the self-test: what scores of one picture may differ by, and those of unlike ones must."""


class MatchingReward(OwnPolicy):
    """How well each token of a prompt and each position of its drawing find their like, in [-1, 1].

    The policy is shown the decoded picture with the prompt as a question about it, and its states
    of the two are compared by `match`. A drawing without a picture scores -1. Tasks other than
    drawings: outcome 0, no step scores.

    The judge is the learner. With `judge="live"` the score rises when the policy's states of words
    and images move together, whatever it draws; log a held-out reward beside it (weight 0).

    Source: CoRL 3.3.1, R_TIM, eq. 4.
    Departs: the paper says neither which states nor which tokens; `layer` and `text` choose. The
    released code takes the last states under the weights in training, as the defaults do, but cuts
    by fixed positions: its text leaves out the border of the image, the line break and the first
    three tokens of the prompt, and has the words of the empty answer's turn; `text="released"` is
    that. It holds for one prompt at a time there, as it pads on the left. Its prompt has no system
    prompt before the image; here the layout of questions keeps its own.

    Args:
        weight: factor in a hybrid reward; the paper's eq. 5 has 1.
        judge: "live" or "frozen"; see `OwnPolicy`.
        layer: which states; see `Represents.states`.
        text: "words" are the prompt's own tokens; "released" all from the sixth position behind
            the image to the end of the prompt.
        batch_size: drawings looked at in one pass. Changes no score.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        weight: float = 1.0,
        judge: Literal["live", "frozen"] = "live",
        layer: int | Literal["embeddings"] = -1,
        text: Literal["words", "released"] = "words",
        batch_size: int = 8,
    ) -> None:
        super().__init__(judge)
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"weight={weight} must be finite and at least 0 (0: logged only)")
        if text not in TEXTS:
            raise ConfigError(f"text={text!r} is none of {', '.join(TEXTS)}")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        self.weight, self.layer, self.text, self.batch_size = weight, layer, text, batch_size

    def bind(self, policy: Policy, start: Callable[[], Policy]) -> None:
        """Takes the policy; see `OwnPolicy.bind`.

        Raises:
            CapabilityError: it has no states to compare.
        """
        if not isinstance(policy, Represents):
            raise CapabilityError(
                f"{type(policy).__name__} does not tell its hidden states, which the reward "
                "'matching' compares; leave it out, or use a Janus, Show-o or VILA-U policy"
            )
        super().bind(policy, start)

    def __call__(self, rollout: Rollout) -> RewardScores:
        """Outcomes (B,), the mean over a drawing's pictures, and steps (B, K), one a picture.

        Raises:
            RewardError: no policy is bound, or a prompt has no words.
        """
        longest = max((len(c.segments) for c in rollout.completions), default=0)
        steps = torch.full((len(rollout.samples), longest), float("nan"))
        places: list[tuple[int, int]] = []
        questions: list[Sample] = []
        for row, (sample, completion) in enumerate(
            zip(rollout.samples, rollout.completions, strict=True)
        ):
            if sample.task != Task.TEXT_TO_IMAGE:
                continue
            for column, segment in enumerate(completion.segments):
                if isinstance(segment, Image):
                    places.append((row, column))
                    questions.append(_asked(sample, segment))
        for place, score in zip(places, self._scores(questions), strict=True):
            steps[place] = score
        drawn = torch.tensor([s.task == Task.TEXT_TO_IMAGE for s in rollout.samples])
        empty = torch.where(drawn, UNDRAWN, 0.0)
        outcome = torch.where(steps.isnan().all(1), empty, steps.nanmean(1))
        return RewardScores(outcome, steps, drawn)

    def self_test(self) -> None:
        """Tells whether the judge looks at pictures at all.

        It cannot ask for more: a policy before its training need not match a word with the right
        picture, which is what this reward is to teach. So a golden drawing and its negative must
        have scores in [-1, 1] for the same prompt, the same twice, that differ from one another.

        Raises:
            RewardError: they do not, or no policy is bound.
        """
        sample, drawing = golden_drawing("attribution")
        pixels = resized(drawing.images[0], self.policy.capabilities.image_size)
        questions = [_asked(sample, Image(shown)) for shown in (pixels, 255 - pixels)]
        first, again = self._scores(questions), self._scores(questions)
        if not all(-1 <= score <= 1 for score in first):  # also when one is NaN
            raise RewardError(
                f"two pictures for {sample.prompt_text!r} match it by {first}, outside "
                "[-1, 1]; check the weights of the policy"
            )
        noise = max(abs(one - other) for one, other in zip(first, again, strict=True))
        if noise > MOST_NOISE:
            raise RewardError(
                f"two pictures for {sample.prompt_text!r} match it by {first}, then by "
                f"{again}; the policy is not deterministic in evaluation mode"
            )
        if abs(first[0] - first[1]) <= max(noise, LEAST_DIFFERENCE):
            raise RewardError(
                f"a picture and its negative match {sample.prompt_text!r} by {first[0]} both; the "
                f"policy's states of layer {self.layer!r} do not show what it looks at"
            )

    def _scores(self, questions: Sequence[Sample]) -> list[float]:
        """Of pictures with their prompts, `batch_size` at a time."""
        scores: list[float] = []
        with evaluation_mode(self.policy):
            for start in range(0, len(questions), self.batch_size):
                asked = questions[start : start + self.batch_size]
                for question, states in zip(
                    asked, self.policy.states(asked, self.layer), strict=True
                ):
                    text = states.text if self.text == "words" else states.behind[RELEASED_GAP:]
                    if not len(text):
                        raise _wordless(question, self.text, len(states.behind))
                    scores.append(match(text, states.image).item())
        return scores


def match(text: Tensor, image: Tensor) -> Tensor:
    """() float64 in [-1, 1]: how well tokens and positions find their like among each other.

    Half the mean over positions of the greatest cosine with a token, and half the mean over tokens
    of the greatest with a position. In float64, as pictures of one prompt differ by little and
    automatic mixed precision would round that away.

    Source: CoRL eq. 4.

    Args:
        text: (L_t, d), at least one token.
        image: (L_i, d), at least one position.
    """
    cosines = (
        functional.normalize(image.double(), dim=-1)
        @ functional.normalize(text.double(), dim=-1).mT
    )  # (L_i, L_t)
    return (cosines.amax(1).mean() + cosines.amax(0).mean()) / 2


def _asked(sample: Sample, picture: Image) -> Sample:
    """The prompt of a drawing as a question about a picture."""
    return Sample(sample.id, Task.UNDERSTANDING, (picture, Text(sample.prompt_text)))


def _wordless(question: Sample, text: str, behind: int) -> RewardError:
    if text == "words":
        return RewardError(
            f"the prompt of {question.id!r} has no words that a drawing could match; take it out "
            "of the data"
        )
    return RewardError(
        f"the prompt of {question.id!r} has {behind} positions behind its image, of which "
        f"text='released' leaves out {RELEASED_GAP}; use longer prompts or text=words"
    )
