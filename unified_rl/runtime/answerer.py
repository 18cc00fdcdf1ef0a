"""Questions about pictures, answered greedily, as benchmarks of understanding ask them."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image as PillowImage

from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Image, Sample, Segment, Task, Text
from unified_rl.data.images import check_size, fit
from unified_rl.models.base import UnifiedPolicy

MARKER = "<image>"
"""Where a question shows its next picture."""

logger = logging.getLogger(__name__)


class Answerer:
    """Asks a policy as CoRL evaluates understanding: one answer, the most likely token each time.

    Source: CoRL 4.1, which evaluates with VLMEvalKit and greedy decoding.

    Args:
        policy: in evaluation mode.
        behaviour: how it draws; its text is made greedy.
        batch_size: questions at once; what is answered does not depend on it.

    Attributes:
        greedy: how answers are drawn, but for their length.
        unasked_count: questions so far that do not fit the policy's context; their answer is "".
    """

    def __init__(self, policy: UnifiedPolicy, behaviour: Behaviour, batch_size: int = 1) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        self.policy, self.batch_size, self.unasked_count = policy, batch_size, 0
        self.greedy = dataclasses.replace(behaviour, text=Sampling(temperature=0.0))

    def question(self, sample_id: str, text: str, pictures: Sequence[PillowImage.Image]) -> Sample:
        """What the policy is shown.

        A text with as many `MARKER`s as there are pictures shows them there; else they stand before
        it and its markers are left out. Without pictures it is a task of text alone.

        Raises:
            ImageError: a picture without pixels, with too many, or of an unknown mode.
        """
        shown = [self._image(picture) for picture in pictures]
        runs = text.split(MARKER)
        if len(runs) != len(shown) + 1:
            runs = [""] * len(shown) + ["".join(runs).strip()]
        prompt: list[Segment] = []
        for place, run in enumerate(runs):
            prompt += [Text(run)] if run.strip() else []
            prompt += shown[place : place + 1]
        task = Task.UNDERSTANDING if shown else Task.TEXT
        return Sample(sample_id, task, tuple(prompt) or (Text(""),))

    def answer(self, samples: Sequence[Sample], token_limit: int) -> Iterator[str]:
        """The answers in order; "" to a question that does not fit the context.

        Args:
            samples: of `question`.
            token_limit: most tokens of an answer; fewer where the context holds no more.
        """
        for start in range(0, len(samples), self.batch_size):
            batch = samples[start : start + self.batch_size]
            limits = [self._limit(sample, token_limit) for sample in batch]
            answers = {
                limit: iter(
                    self._ask(
                        [s for s, own in zip(batch, limits, strict=True) if own == limit], limit
                    )
                )
                for limit in sorted(set(limits))
            }
            yield from (next(answers[limit]) for limit in limits)

    def _ask(self, samples: Sequence[Sample], token_limit: int) -> list[str]:
        if not token_limit:
            return [""] * len(samples)
        behaviour = dataclasses.replace(self.greedy, max_text_tokens=token_limit)
        generator = torch.Generator(self.policy.device).manual_seed(0)  # greedy: never drawn from
        _, completions = self.policy.sample(samples, behaviour, generator)
        return [" ".join(completion.texts).strip() for completion in completions]

    def _limit(self, sample: Sample, token_limit: int) -> int:
        """Tokens that its answer may take; 0 if there is no room for any."""
        context = self.policy.context_length
        if context is None:
            return token_limit
        length = len(self.policy.prompt_ids(sample))
        one = dataclasses.replace(self.greedy, max_text_tokens=1)
        room = context - length - self.policy.longest_answer(sample.task, one) + 1
        if room < 1:
            self.unasked_count += 1
            logger.warning(
                "question %r of %d tokens does not fit the context of %d and is not asked",
                sample.id, length, context,
            )  # fmt: skip
        return max(0, min(token_limit, room))

    def _image(self, picture: PillowImage.Image) -> Image:
        check_size(*picture.size)
        capabilities = self.policy.capabilities
        pixels = fit(picture, capabilities.image_size, capabilities.image_fit)
        return Image(np.ascontiguousarray(pixels))


def cut_at(text: str, ends: Sequence[str]) -> str:
    """The text up to the first of the given ends."""
    places = [text.find(end) for end in ends if end and end in text]
    return text[: min(places)] if places else text
