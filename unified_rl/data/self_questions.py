"""Prompts to draw that come with a question about the drawing: UniRL's self-made training data."""

import dataclasses
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import DrawnImage, Image, Sample, Task, Text
from unified_rl.data.microworld import drawing_sample
from unified_rl.microworld.language import plural
from unified_rl.microworld.prompts import COUNTS, OPENERS, Prompt, prompts
from unified_rl.microworld.questions import QUESTIONS
from unified_rl.microworld.scene import COLORS, IMAGE_SIZE, RELATIONS, SHAPES
from unified_rl.microworld.splits import SPLITS
from unified_rl.prompting.builder import PromptBuilder
from unified_rl.prompting.categories import CATEGORIES, category_named
from unified_rl.prompting.everyday import everyday_world
from unified_rl.prompting.exclusion import Exclusion, benchmark_digests, geneval_digests
from unified_rl.prompting.phrases import PromptItem, Request, prompt_text
from unified_rl.prompting.world import Thing, Wording, World

_INDICES = 2**53
"""Items of a stream that a source draws from."""

MICRO_WORLD = World(
    things=tuple(Thing(shape, plural(shape)) for shape in SHAPES),
    colors=COLORS,
    counts=COUNTS,
    relations=tuple(zip(RELATIONS[::2], RELATIONS[1::2], strict=True)),
    openers=OPENERS,
    wording=Wording(
        questions=QUESTIONS,
        answers=MappingProxyType(
            {
                "single": "{one}",
                "two": "{one} and {other_one}",
                "counting": "{many}",
                "colors": "{color}",
                "position": "the {name} is {relation} the {other}",
                "attribution": "the {name} is {color} and the {other} is {other_color}",
            }
        ),
    ),
)
"""The micro-world, whose prompts and gold answers these are word by word."""


def ask_about(sample: Sample, picture: Image | DrawnImage) -> Sample:
    """The question of a self-question sample about a picture drawn for it.

    Args:
        sample: a prompt to draw with the facts "question" and "answer".
        picture: that was drawn, in pixels or as the codes that it was drawn with.

    Returns:
        The question, its gold answer as target.

    Raises:
        DataError: the sample has no question.
    """
    for fact in ("question", "answer"):
        if not isinstance(sample.facts.get(fact), str):
            raise DataError(
                f"sample {sample.id!r} has no fact {fact!r} to ask about its drawing (it has "
                f"{sorted(sample.facts)}); take data=self_questions or data=unirl_prompts"
            )
    return Sample(
        id=f"own/{sample.id}",
        task=Task.UNDERSTANDING,
        prompt=(picture, Text(sample.facts["question"])),
        target=(Text(sample.facts["answer"]),),
        facts=sample.facts,
    )


def micro_sample(prompt: Prompt, item: PromptItem) -> Sample:
    """A prompt of the micro-world to draw, with the facts of its question and for the verifier.

    Args:
        prompt: to draw.
        item: the same prompt with its question, see `MICRO_WORLD`.
    """
    sample = drawing_sample(prompt)
    return dataclasses.replace(sample, facts={**sample.facts, **_facts(item)})


class SelfQuestionSource:
    """Everyday objects to draw, with a question about the drawing and its gold answer.

    GenEval's prompts are never drawn. Samples carry the facts "category", "question", "answer" and
    "include", what must be seen in the form of GenEval's metadata.

    Source: UniRL (arXiv 2505.23380) 3.2, Table 1 and A.1, where each step draws one of the six
    categories at random.

    Args:
        categories: which to draw from, by name or GenEval's tag; None takes all six.
        weights: relative frequency of each of them; None draws all alike.
        wording: of questions and answers: "table" as in the paper, or "released".
        held_out: names of objects that never appear.
        exclude: file of more prompts that are never drawn, one a line or as GenEval's metadata.
        seed: of the stream of prompts that is drawn from.

    Raises:
        ConfigError: a setting that does not exist, or nothing remains of a category.
        DataError: the file of prompts cannot be read.
    """

    image_size = None

    def __init__(
        self,
        categories: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        wording: str = "table",
        held_out: Sequence[str] | None = None,
        exclude: str | None = None,
        seed: int = 0,
    ) -> None:
        self._choice = _CategoryChoice(categories, weights)
        self._builder = everyday_builder(wording, held_out, exclude, seed)
        self._choice.check(self._builder)

    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample."""
        item = self._builder.item(self._choice.draw(rng), int(rng.integers(_INDICES)))
        return Sample(
            id=f"drawing/{item.prompt}",
            task=Task.TEXT_TO_IMAGE,
            prompt=(Text(item.prompt),),
            facts=_facts(item),
        )


class MicroSelfQuestionSource:
    """Drawings of the micro-world, with a question about the drawing and its gold answer.

    Samples carry what those of `SelfQuestionSource` do, and the fact "facts" for the verifier.

    Args:
        split: of the world's prompts; no others are drawn.
        categories: which to draw from, by name or GenEval's tag; None takes all six.
        weights: relative frequency of each of them; None draws all alike.
        held_out: shapes that never appear.

    Raises:
        ConfigError: a setting that does not exist, or nothing remains of a category.
    """

    image_size = IMAGE_SIZE

    def __init__(
        self,
        split: str,
        categories: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
        held_out: Sequence[str] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ConfigError(f"split={split!r} is none of {', '.join(SPLITS)}")
        self._choice = _CategoryChoice(categories, weights)
        self._split = _Split(split)
        self._builder = PromptBuilder(
            MICRO_WORLD, held_out=held_out or (), excludes=self._split.lacks
        )
        self._choice.check(self._builder)

    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample."""
        item = self._builder.item(self._choice.draw(rng), int(rng.integers(_INDICES)))
        return micro_sample(self._split.prompts[item.prompt], item)


def everyday_builder(
    wording: str = "table",
    held_out: Sequence[str] | None = None,
    exclude: str | None = None,
    seed: int = 0,
) -> PromptBuilder:
    """Prompts about everyday objects, none of them GenEval's; arguments of `SelfQuestionSource`.

    Raises:
        ConfigError: a wording or an object that does not exist.
        DataError: the file of prompts cannot be read.
    """
    world = everyday_world(wording)
    digests = geneval_digests()
    if exclude is not None:
        digests |= benchmark_digests(exclude, world)[0]
    return PromptBuilder(world, seed, held_out or (), Exclusion(world, digests))


class _Split:
    """The prompts of a split by their texts."""

    def __init__(self, split: str) -> None:
        self.prompts: dict[str, Prompt] = {
            prompt.text: prompt for category in CATEGORIES for prompt in prompts(category, split)
        }

    def lacks(self, request: Request) -> bool:
        return prompt_text(request) not in self.prompts


class _CategoryChoice:
    """Draws a category by weight."""

    def __init__(self, categories: Sequence[str] | None, weights: Sequence[float] | None) -> None:
        self._names = tuple(map(category_named, CATEGORIES if categories is None else categories))
        if not self._names:
            raise ConfigError(f"categories=[] must name some of {', '.join(CATEGORIES)}")
        weights = [1.0] * len(self._names) if weights is None else list(weights)
        fits = len(weights) == len(self._names) and all(0 <= w < np.inf for w in weights)
        if not fits or not sum(weights) > 0:
            raise ConfigError(
                f"weights={weights} must give each of the {len(self._names)} categories a weight "
                ">= 0, not all of them 0"
            )
        self._shares = np.asarray(weights, float) / sum(weights)

    def check(self, builder: PromptBuilder) -> None:
        """Raises a ConfigError when nothing remains of a category that can be drawn."""
        for name, share in zip(self._names, self._shares, strict=True):
            if share > 0:
                builder.check(name)

    def draw(self, rng: np.random.Generator) -> str:
        return self._names[rng.choice(len(self._names), p=self._shares)]


def _facts(item: PromptItem) -> dict[str, object]:
    return {
        "category": item.category,
        "question": item.question,
        "answer": item.answer,
        "include": item.include,
    }
