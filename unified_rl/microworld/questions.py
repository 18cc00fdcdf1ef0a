"""Questions about an image, their gold answers, and two ways to score an answer."""

import itertools
import re
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from unified_rl.microworld.facts import compose
from unified_rl.microworld.language import NUMBERS, Mention, name, plural, read, singular
from unified_rl.microworld.prompts import check_category, prompts
from unified_rl.microworld.scene import (
    Placed,
    Scene,
    inverse,
    relation_between,
    relation_holds,
)

QUESTIONS = MappingProxyType(
    {
        "single": "what is the main object of the image",
        "two": "what are the two objects of the image",
        "counting": "how many items in this image",
        "colors": "what is the color of the object",
        "position": "what is the position relationship between the two objects",
        "attribution": "what are the two objects and their colors",
    }
)

_OBJECT_COUNTS = MappingProxyType(
    {
        "single": (1,),
        "two": (2,),
        "counting": (2, 3, 4),
        "colors": (1,),
        "position": (2,),
        "attribution": (2,),
    }
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene; `keywords` are what UniRL's reward looks for in the answer."""

    category: str
    scene: Scene
    question: str
    answer: str
    keywords: tuple[str, ...]


def ask(category: str, scene: Scene, rng: np.random.Generator | None = None) -> Question:
    """The category's question about a scene.

    The gold answer names objects in the scene's order, or in a random one if `rng` is given.

    Raises:
        ValueError: If the scene does not suit the category.
    """
    check_category(category)
    objects = scene.objects
    if len(objects) not in _OBJECT_COUNTS[category]:
        raise ValueError(f"{len(objects)} objects do not suit a question of kind {category!r}")
    if rng is not None:
        objects = tuple(objects[n] for n in rng.permutation(len(objects)))
    answer, keywords = _gold(category, objects)
    return Question(category, scene, QUESTIONS[category], answer, keywords)


def sample_question(category: str, split: str, rng: np.random.Generator) -> Question:
    """A question about a random scene that shows the facts of a random prompt of the split.

    Raises:
        ValueError: For an unknown category or split.
    """
    choices = prompts(category, split)
    facts = choices[rng.integers(len(choices))].facts
    return ask(category, compose(facts, rng), rng)


def _gold(category: str, objects: tuple[Placed, ...]) -> tuple[str, tuple[str, ...]]:
    first, last = objects[0], objects[-1]
    if category == "single":
        return f"a {first.shape}", (first.shape,)
    if category == "two":
        return f"a {first.shape} and a {last.shape}", (first.shape, last.shape)
    if category == "colors":
        return first.color, (first.color,)
    if category == "counting":
        if len({placed.shape for placed in objects}) > 1:
            raise ValueError(f"a counting question needs objects of one shape, not {objects}")
        words = name(first.shape, None, len(objects))
        return words, (NUMBERS[len(objects)], plural(first.shape))
    if category == "position":
        kind = relation_between(first, last)
        if kind is None:
            raise ValueError(f"{first} and {last} have no relation: neither axis dominates")
        return f"the {first.shape} is {kind} the {last.shape}", (first.shape, kind, last.shape)
    return (
        f"the {first.shape} is {first.color} and the {last.shape} is {last.color}",
        (first.shape, first.color, last.shape, last.color),
    )


def judge_answer(question: Question, answer_text: str) -> bool:
    """Whether the answer is right and complete and states nothing that is wrong.

    Order, articles, plurals and the direction in which a relation is told make no difference.
    A word outside the language of the world counts as a wrong statement.
    """
    reading = read(answer_text)
    mentions, relations = list(reading.mentions), list(reading.relations)
    if not reading.clean or not mentions:
        return False
    category = question.category
    if category == "position":
        # "... and the square is left of the circle" speaks of the same two objects again.
        distinct = list(dict.fromkeys(mentions))
        relations = [
            (distinct.index(mentions[subject]), kind, distinct.index(mentions[other]))
            for subject, kind, other in relations
        ]
        mentions = distinct
    if not _answers(category, mentions, relations):
        return False
    objects = question.scene.objects
    numbers = [1 if mention.number is None else mention.number for mention in mentions]
    if 0 in numbers or sum(numbers) != len(objects):
        return False
    spoken = [n for n, number in enumerate(numbers) for _ in range(number)]
    return any(
        all(_fits(mentions[n], placed) for n, placed in zip(spoken, order, strict=True))
        and all(
            relation_holds(order[spoken.index(subject)], kind, order[spoken.index(other)])
            for subject, kind, other in relations
        )
        for order in itertools.permutations(objects)
    )


def _answers(category: str, mentions: list[Mention], relations: list[tuple[int, str, int]]) -> bool:
    """Whether the mentions state what the question asks for, right or wrong."""
    if category == "counting":
        return len(mentions) == 1 and mentions[0].number is not None
    if category == "colors":
        return all(mention.color is not None for mention in mentions)
    if not all(mention.shape is not None for mention in mentions):
        return False
    if category == "position":
        return bool(relations)
    return category != "attribution" or all(mention.color is not None for mention in mentions)


def _fits(mention: Mention, placed: Placed) -> bool:
    return mention.shape in (None, placed.shape) and mention.color in (None, placed.color)


def keyword_score(question: Question, answer: str) -> float:
    """Fraction of the question's keywords in the answer, in [0, 1].

    Source: UniRL, Table 2 (1 keyword for single and colors, 2 for two and counting, 3 for
    position, 4 for attribution).
    Departs: words match whole and whether singular or plural; a relation's keyword is inverted
    when the answer names the objects in the other order. As in the paper, the score does not see
    which colour belongs to which object, nor extra words; `judge_answer` does.
    """
    words = " ".join(map(singular, re.findall(r"[a-z0-9]+", answer.lower())))
    keywords = tuple(map(singular, question.keywords))
    if question.category == "position":
        subject, kind, other = keywords
        places = [f" {words} ".find(f" {shape} ") for shape in (subject, other)]
        if min(places) >= 0 and places[1] < places[0]:
            keywords = (subject, inverse(kind), other)
    return sum(f" {keyword} " in f" {words} " for keyword in keywords) / len(keywords)
