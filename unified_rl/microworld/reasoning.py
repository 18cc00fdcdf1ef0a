"""Questions to be answered after thought, in free words or as a choice of four."""

import functools
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from unified_rl.core.sample import ANSWER, ANSWER_END, THINK_END
from unified_rl.microworld.language import NUMBERS, name
from unified_rl.microworld.prompts import Prompt
from unified_rl.microworld.scene import COLORS, RELATIONS, SHAPES, Placed, Scene, relation_between

KINDS = ("choice", "open")
LETTERS = ("A", "B", "C", "D")
INSTRUCTIONS = MappingProxyType({"choice": "think then choose", "open": "think then answer"})
"""What is written under a question of each kind."""

_ASPECTS = MappingProxyType(
    {
        "single": ("color",),
        "two": ("color", "shape"),
        "counting": ("count",),
        "colors": ("shape",),
        "position": ("place",),
        "attribution": ("color", "shape"),
    }
)
_ANSWERS = MappingProxyType(
    {"color": COLORS, "shape": SHAPES, "count": NUMBERS[1:5], "place": RELATIONS}
)


@dataclass(frozen=True, slots=True)
class ReasonedQuestion:
    """A question about a scene, with a gold thought and the only right answer.

    Attributes:
        category: of the prompt that the scene shows.
        kind: "choice" or "open".
        scene: what is asked about.
        text: the question, its options if it is a choice, and the instruction; a line each.
        thought: what is seen, said so that the answer follows.
        answer: what is right: words, or the letter of the right option.
        words: the answer in words, also of a choice. Gold answers are told so: to find the letter
            of an option is beyond a model of this size in the time there is.
    """

    category: str
    kind: str
    scene: Scene
    text: str
    thought: str
    answer: str
    words: str


def ask_reasoned(
    prompt: Prompt, scene: Scene, kind: str, rng: np.random.Generator
) -> ReasonedQuestion:
    """A question about a scene that shows the facts of a prompt.

    Args:
        prompt: its category decides what is asked for: a colour, a shape, a number or a place.
        scene: what is asked about.
        kind: "choice" or "open".
        rng: chooses what is asked for and orders the options.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not one of {KINDS}")
    objects = [scene.objects[index] for index in rng.permutation(len(scene.objects))]
    aspects = _ASPECTS[prompt.category]
    if len(objects) == 2 and objects[0].color == objects[1].color:
        aspects = tuple(a for a in aspects if a != "shape")  # which one would be anyone's guess
    aspect = aspects[int(rng.integers(len(aspects)))]
    question, thought, words = _told(aspect, objects)
    lines, answer = [question], words
    if kind == "choice":
        order = rng.permutation(len(LETTERS))
        options = [_ANSWERS[aspect][index] for index in order]
        lines += [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True)]
        answer = LETTERS[options.index(words)]
    lines.append(INSTRUCTIONS[kind])
    return ReasonedQuestion(prompt.category, kind, scene, "\n".join(lines), thought, answer, words)


def _told(aspect: str, objects: list[Placed]) -> tuple[str, str, str]:
    """Question, gold thought and answer."""
    first, last = objects[0], objects[-1]
    seen = " and ".join(f"a {name(placed.shape, placed.color)}" for placed in objects)
    if aspect == "color":
        return f"what is the color of the {first.shape}", seen, first.color
    if aspect == "shape":
        return f"what object is {first.color}", seen, first.shape
    if aspect == "count":
        counted = name(first.shape, None, len(objects))
        return "how many objects in this image", counted, NUMBERS[len(objects)]
    kind = relation_between(first, last)
    if kind is None:
        raise ValueError(f"{first} and {last} have no relation: neither axis dominates")
    seen = f"the {first.shape} is {kind} the {last.shape}"
    return f"where is the {first.shape}", seen, kind


@functools.cache
def reasoning_words() -> tuple[str, ...]:
    """The words of these questions and answers beyond `words.vocabulary`, tags included, sorted."""
    letters = (*LETTERS, *(f"{letter}." for letter in LETTERS))
    return tuple(
        sorted({THINK_END, ANSWER, ANSWER_END, *letters, *" ".join(INSTRUCTIONS.values()).split()})
    )
