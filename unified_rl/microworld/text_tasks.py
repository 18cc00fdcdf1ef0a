"""Questions without an image, which keep the language alive while images are learned."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from unified_rl.microworld.language import NUMBERS, name
from unified_rl.microworld.scene import COLORS, RELATIONS, SHAPES, inverse
from unified_rl.microworld.splits import check_split, cut

KINDS = ("relation", "binding", "arithmetic")
VALIDATION_SHARE = 0.1
TEST_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class TextTask:
    """A question and its only right answer."""

    question: str
    answer: str


@functools.cache
def text_tasks(kind: str, split: str) -> tuple[TextTask, ...]:
    """All tasks of a kind in one split (60/10/30%, by the question).

    Raises:
        ValueError: For an unknown kind or split.
    """
    check_split(split)
    if kind == "relation":
        tasks = _relation_tasks()
    elif kind == "binding":
        tasks = _binding_tasks()
    elif kind == "arithmetic":
        tasks = _arithmetic_tasks()
    else:
        raise ValueError(f"kind={kind!r} is not one of {KINDS}")
    splits = cut([task.question for task in tasks], VALIDATION_SHARE, TEST_SHARE)
    return tuple(task for task in tasks if splits[task.question] == split)


def sample_text_task(split: str, rng: np.random.Generator) -> TextTask:
    """A random task: first its kind, then one of that kind.

    Raises:
        ValueError: For an unknown split.
    """
    choices = text_tasks(KINDS[rng.integers(len(KINDS))], split)
    return choices[rng.integers(len(choices))]


def _relation_tasks() -> list[TextTask]:
    """Where one of two objects is, told from the other one; some with colours, some without."""
    colorings = [(None, None), *itertools.permutations(COLORS, 2)]
    tasks = []
    for (a, b), kind, (color_a, color_b) in itertools.product(
        itertools.permutations(SHAPES, 2), RELATIONS, colorings
    ):
        first, second = name(a, color_a), name(b, color_b)
        told = f"the {first} is {kind} the {second} where is the"
        tasks.append(TextTask(f"{told} {second}", f"{inverse(kind)} the {first}"))
        tasks.append(TextTask(f"{told} {first}", f"{kind} the {second}"))
    return tasks


def _binding_tasks() -> list[TextTask]:
    """Which colour belongs to which object, asked from both sides."""
    tasks = []
    for (a, b), (color_a, color_b) in itertools.product(
        itertools.permutations(SHAPES, 2), itertools.permutations(COLORS, 2)
    ):
        told = f"the {a} is {color_a} and the {b} is {color_b}"
        for shape, color in ((a, color_a), (b, color_b)):
            tasks.append(TextTask(f"{told} what is {color}", f"the {shape}"))
            tasks.append(TextTask(f"{told} what is the color of the {shape}", color))
    return tasks


def _arithmetic_tasks() -> list[TextTask]:
    """Sums and differences whose terms and results lie in zero to six."""
    top = len(NUMBERS)
    tasks = []
    for a, b in itertools.product(range(top), repeat=2):
        if a + b < top:
            tasks.append(TextTask(f"count {NUMBERS[a]} plus {NUMBERS[b]}", NUMBERS[a + b]))
        if a >= b:
            tasks.append(TextTask(f"count {NUMBERS[a]} minus {NUMBERS[b]}", NUMBERS[a - b]))
    return tasks
