"""One drawing or answering after another, where what is asked depends on what was drawn."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import DrawnImage, Image, Sample
from unified_rl.decoding.modes import evaluation_mode
from unified_rl.evaluation.asking import Progress, device_of

Tell = Callable[[int], None]


class Drawing(NamedTuple):
    """A picture that a policy drew.

    Attributes:
        pixels: uint8 (height, width, 3).
        shown: what a question about it shows that policy: its own codes where it understands by
            the codes that it draws with, else the pixels.
    """

    pixels: np.ndarray
    shown: Image | DrawnImage


class Turns:
    """Asks a policy in evaluation mode; each part has randomness of its own.

    Args:
        policy: each of its modules is left in the mode it was in.
        batch_size: samples at once.
        seed: of the sampling.
        tell: called with the number of samples done since the last call.
    """

    def __init__(self, policy: Policy, batch_size: int, seed: int, tell: Tell) -> None:
        self._policy, self._batch_size, self._seed, self._tell = policy, batch_size, seed, tell

    def draw(self, samples: Sequence[Sample], behaviour: Behaviour, part: int) -> list[Drawing]:
        """One picture a sample of text to image."""
        drawings: list[Drawing] = []
        generator = self._generator(part)
        with evaluation_mode(self._policy):
            for batch in self._batches(samples):
                trajectory, completions = self._policy.sample(batch, behaviour, generator)
                shown = self._policy.own_pictures(trajectory, completions)
                pairs = zip(completions, shown, strict=True)
                drawings += [Drawing(answer.images[0], own) for answer, own in pairs]
                self._tell(len(batch))
        return drawings

    def answer(self, samples: Sequence[Sample], behaviour: Behaviour, part: int) -> list[str]:
        """One text a question."""
        answers: list[str] = []
        generator = self._generator(part)
        with evaluation_mode(self._policy):
            for batch in self._batches(samples):
                completions = self._policy.sample(batch, behaviour, generator)[1]
                answers += [" ".join(completion.texts) for completion in completions]
                self._tell(len(batch))
        return answers

    def _batches(self, samples: Sequence[Sample]) -> list[Sequence[Sample]]:
        starts = range(0, len(samples), self._batch_size)
        return [samples[start : start + self._batch_size] for start in starts]

    def _generator(self, part: int) -> torch.Generator:
        (state,) = np.random.SeedSequence([self._seed, part]).generate_state(1)
        return torch.Generator(device_of(self._policy)).manual_seed(int(state))


class Counting:
    """Tells a progress bar how many samples are done, those that need not be asked among them.

    Args:
        total: samples in all.
        progress: called with the number done and in all.
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def __call__(self, count: int) -> None:
        """So many more are done."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """So many are done in all."""
        self._done = done
        if self._progress is not None:
            self._progress(done, self._total)
