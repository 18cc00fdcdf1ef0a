"""The embedded micro-world as samples: stories, drawings, questions and pure text."""

from collections.abc import Sequence

import numpy as np

from unified_rl.core.sample import THINK, VISUALISE, Image, Sample, Task, Text
from unified_rl.microworld.facts import compose
from unified_rl.microworld.prompts import CATEGORIES, Prompt, prompts
from unified_rl.microworld.questions import Question, sample_question
from unified_rl.microworld.render import render
from unified_rl.microworld.scene import IMAGE_SIZE
from unified_rl.microworld.stories import Story, paint, stories
from unified_rl.microworld.text_tasks import sample_text_task


def story_sample(story: Story, rng: np.random.Generator | None = None) -> Sample:
    """A story to be told; with `rng` a gold telling is painted as its target."""
    target: list[Text | Image] = []
    if rng is not None:
        for step, scene in zip(story.steps, paint(story, rng), strict=True):
            target.append(Text(f"{THINK} {step.text} {VISUALISE}"))
            target.append(Image(render(scene)))
    return Sample(
        id=f"story/{story.prompt}",
        task=Task.INTERLEAVED,
        prompt=(Text(story.prompt),),
        target=tuple(target),
        facts={"story": story.to_json()},
    )


def drawing_sample(prompt: Prompt, rng: np.random.Generator | None = None) -> Sample:
    """A text-to-image prompt; with `rng` a random picture of its facts is the target."""
    target = () if rng is None else (Image(render(compose(prompt.facts, rng))),)
    return Sample(
        id=f"drawing/{prompt.text}",
        task=Task.TEXT_TO_IMAGE,
        prompt=(Text(prompt.text),),
        target=target,
        facts={"category": prompt.category, "facts": prompt.facts.to_json()},
    )


def question_sample(question: Question) -> Sample:
    """A picture with a question; the target is the gold answer."""
    scene = [[o.shape, o.color, o.x, o.y] for o in question.scene.objects]
    return Sample(
        id=f"question/{question.category}/{scene}",
        task=Task.UNDERSTANDING,
        prompt=(Image(render(question.scene)), Text(question.question)),
        target=(Text(question.answer),),
        facts={
            "category": question.category,
            "question": question.question,
            "answer": question.answer,
            "scene": scene,
        },
    )


class StorySource:
    """Stories to tell, drawn at random.

    Args:
        split: of the world's stories.
        steps: pictures a story has, 2 or 3.
        gold: whether samples carry a gold telling.
        gold_limit: how many different gold tellings exist in all, one a story (the first stories
            of a fixed shuffle); None makes a fresh picture at every draw. Gold tellings are what
            is scarce in earnest, so the demo rations them.
    """

    image_size = IMAGE_SIZE

    def __init__(
        self, split: str, steps: int = 2, gold: bool = False, gold_limit: int | None = None
    ) -> None:
        self._stories = stories(split, steps)
        self._gold, self._rationed = gold, gold_limit is not None
        if gold_limit is not None:
            if not 0 < gold_limit <= len(self._stories):
                raise ValueError(
                    f"gold_limit={gold_limit} is outside 1..{len(self._stories)}, the number of "
                    f"{split} stories of {steps} steps"
                )
            order = np.random.default_rng(0).permutation(len(self._stories))[:gold_limit]
            self._stories = tuple(self._stories[index] for index in order)

    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample."""
        index = int(rng.integers(len(self._stories)))
        if not self._gold:
            return story_sample(self._stories[index])
        painter = np.random.default_rng([7, index]) if self._rationed else rng
        return story_sample(self._stories[index], painter)


class DrawingSource:
    """Text-to-image pairs, a category at a time by weight.

    Args:
        split: of the world's prompts.
        gold: whether samples carry a picture.
        categories: which to draw from; None takes all six.
        weights: relative frequency of each of them; None draws all alike.
    """

    image_size = IMAGE_SIZE

    def __init__(
        self,
        split: str,
        gold: bool = True,
        categories: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self._gold, self._split = gold, split
        self._categories = tuple(categories or CATEGORIES)
        self._weights = normalised_weights(weights, self._categories)

    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample."""
        category = self._categories[rng.choice(len(self._categories), p=self._weights)]
        choices = prompts(category, self._split)
        prompt = choices[int(rng.integers(len(choices)))]
        return drawing_sample(prompt, rng if self._gold else None)


class QuestionSource:
    """Questions about random pictures; arguments as of `DrawingSource`."""

    image_size = IMAGE_SIZE

    def __init__(
        self,
        split: str,
        categories: Sequence[str] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self._split = split
        self._categories = tuple(categories or CATEGORIES)
        self._weights = normalised_weights(weights, self._categories)

    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample."""
        category = self._categories[rng.choice(len(self._categories), p=self._weights)]
        return question_sample(sample_question(category, self._split, rng))


class TextSource:
    """Pure text tasks, which keep the language alive."""

    image_size = None

    def __init__(self, split: str) -> None:
        self._split = split

    def draw(self, rng: np.random.Generator) -> Sample:
        """One sample."""
        task = sample_text_task(self._split, rng)
        return Sample(
            id=f"text/{task.question}",
            task=Task.TEXT,
            prompt=(Text(task.question),),
            target=(Text(task.answer),),
            facts={"answer": task.answer},
        )


def normalised_weights(weights: Sequence[float] | None, categories: tuple[str, ...]) -> np.ndarray:
    """The weights of categories of prompts, as shares that add up to 1.

    Raises:
        ValueError: an unknown category, or weights that do not fit.
    """
    for category in categories:
        if category not in CATEGORIES:
            raise ValueError(f"category {category!r} is none of {', '.join(CATEGORIES)}")
    weights = [1.0] * len(categories) if weights is None else list(weights)
    if len(weights) != len(categories) or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"weights={weights} do not fit the {len(categories)} categories")
    return np.asarray(weights) / sum(weights)
