"""Fixed samples of every task, with gold answers; prompts of different length."""

import numpy as np

from unified_rl.core.sample import Sample
from unified_rl.data.microworld import DrawingSource, QuestionSource, StorySource, TextSource


def stories(count: int) -> list[Sample]:
    """Interleaved."""
    return _draw(StorySource("train", gold=True), count)


def drawings(count: int) -> list[Sample]:
    """Text to image."""
    return _draw(DrawingSource("train"), count)


def questions(count: int) -> list[Sample]:
    """Understanding: a shown image and a question."""
    return _draw(QuestionSource("train"), count)


def sums(count: int) -> list[Sample]:
    """Text only."""
    return _draw(TextSource("train"), count)


def mixed() -> list[Sample]:
    """All tasks in one batch."""
    return [*stories(2), *drawings(2), *questions(1), *sums(1)]


def _draw(source: object, count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [source.draw(rng) for _ in range(count)]
