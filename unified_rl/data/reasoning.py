"""The micro-world as CoRL's data: a real picture with its caption, and a reasoned question."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import (
    ANSWER,
    ANSWER_END,
    THINK,
    THINK_END,
    Image,
    Pair,
    Sample,
    Task,
    Text,
)
from unified_rl.data.microworld import drawing_sample, normalised_weights
from unified_rl.microworld.facts import compose
from unified_rl.microworld.prompts import CATEGORIES, Prompt, prompts
from unified_rl.microworld.reasoning import KINDS, ReasonedQuestion, ask_reasoned
from unified_rl.microworld.render import render
from unified_rl.microworld.scene import IMAGE_SIZE

UNITS = ("pair", "drawing", "question", "either")


def reasoned_sample(question: ReasonedQuestion, gold: bool = True) -> Sample:
    """A picture with a question; the target is the gold thought and answer."""
    told = f"{THINK} {question.thought} {THINK_END} {ANSWER} {question.words} {ANSWER_END}"
    scene = [[o.shape, o.color, o.x, o.y] for o in question.scene.objects]
    return Sample(
        id=f"reasoned/{question.kind}/{question.text.splitlines()[0]}/{scene}",
        task=Task.UNDERSTANDING,
        prompt=(Image(render(question.scene)), Text(question.text)),
        target=(Text(told),) if gold else (),
        facts={
            "category": question.category,
            "kind": question.kind,
            "answer": question.answer,
            "scene": scene,
        },
    )


def pair_of(prompt: Prompt, kind: str, rng: np.random.Generator, gold: bool = False) -> Pair:
    """A prompt to draw with a real picture of it, and a question about that picture.

    Args:
        prompt: what to draw.
        kind: of the question, "choice" or "open".
        rng: of the picture and the question.
        gold: whether the question has its gold answer as target. The drawing always has the real
            picture, which rewards compare with.
    """
    scene = compose(prompt.facts, rng)
    drawing = dataclasses.replace(drawing_sample(prompt), target=(Image(render(scene)),))
    return Pair(drawing, reasoned_sample(ask_reasoned(prompt, scene, kind, rng), gold))


class ReasonedSource:
    """Pairs of the micro-world, or one half of them, drawn at random.

    Args:
        split: of the world's prompts.
        unit: "pair" for unified reinforcement learning; "drawing" or "question" for one half;
            "either" draws one of the two halves at a time, for supervised training on both.
        kinds: of questions: "choice", "open" or both, drawn alike.
        gold: whether questions have gold answers.
        gold_limit: how many different pairs exist in all; None makes a fresh one at every draw.
        categories: which prompts to draw from; None takes all six.
        weights: relative frequency of each of them; None draws all alike.

    Raises:
        ConfigError: a unit or a kind that does not exist, or a limit below 1.
    """

    image_size = IMAGE_SIZE

    def __init__(
        self,
        split: str,
        unit: str = "pair",
        kinds: Sequence[str] = KINDS,
        gold: bool = False,
        gold_limit: int | None = None,
        categories: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        if unit not in UNITS:
            raise ConfigError(f"unit={unit!r} is none of {', '.join(UNITS)}")
        if not kinds or not set(kinds) <= set(KINDS):
            raise ConfigError(f"kinds={list(kinds)} must be some of {', '.join(KINDS)}")
        if gold_limit is not None and gold_limit < 1:
            raise ConfigError(f"gold_limit={gold_limit} must be at least 1, or null for no limit")
        halves = {"drawing": (Task.TEXT_TO_IMAGE,), "question": (Task.UNDERSTANDING,)}
        self.tasks = halves.get(unit, (Task.TEXT_TO_IMAGE, Task.UNDERSTANDING))
        self._split, self._unit, self._kinds, self._gold = split, unit, tuple(kinds), gold
        self._gold_limit = gold_limit
        self._categories = tuple(categories or CATEGORIES)
        self._weights = normalised_weights(weights, self._categories)

    def draw(self, rng: np.random.Generator) -> Sample | Pair:
        """One pair, or one half of one."""
        maker = rng
        if self._gold_limit is not None:
            maker = np.random.default_rng([11, int(rng.integers(self._gold_limit))])
        category = self._categories[maker.choice(len(self._categories), p=self._weights)]
        choices = prompts(category, self._split)
        prompt = choices[int(maker.integers(len(choices)))]
        kind = self._kinds[int(maker.integers(len(self._kinds)))]
        pair = pair_of(prompt, kind, maker, self._gold)
        if self._unit == "pair":
            return pair
        takes_drawing = self._unit == "drawing" or (self._unit == "either" and rng.random() < 0.5)
        return pair.drawing if takes_drawing else pair.question
