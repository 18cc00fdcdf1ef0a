"""The facts of micro-world samples, turned back from JSON into the world's own types."""

import itertools
from typing import Any

from unified_rl.core.errors import RewardError
from unified_rl.core.sample import Sample
from unified_rl.microworld.facts import Facts
from unified_rl.microworld.questions import Question, ask
from unified_rl.microworld.scene import Placed, Scene
from unified_rl.microworld.stories import Story


def story_of(sample: Sample) -> Story:
    """The story that an interleaved sample asks for.

    Raises:
        RewardError: the sample carries none.
    """
    try:
        return Story.from_json(_fact(sample, "story"))
    except ValueError as error:
        raise RewardError(f"sample {sample.id!r}: {error}") from error


def drawing_of(sample: Sample) -> Facts:
    """What the picture of a text-to-image sample must show.

    Raises:
        RewardError: the sample does not say.
    """
    try:
        return Facts.from_json(_fact(sample, "facts"))
    except ValueError as error:
        raise RewardError(f"sample {sample.id!r}: {error}") from error


def question_of(sample: Sample) -> Question:
    """The question of an understanding sample, with its scene and keywords.

    The facts keep no keywords: they follow from the order in which the gold answer names the
    objects of the scene.

    Raises:
        RewardError: the sample carries no question, or its answer is not one to its scene.
    """
    category, answer = _fact(sample, "category"), _fact(sample, "answer")
    try:
        scene = Scene(tuple(Placed(*placed) for placed in _fact(sample, "scene")))
        for order in itertools.permutations(scene.objects):
            told = ask(category, Scene(order))
            if told.answer == answer:
                return Question(category, scene, _fact(sample, "question"), answer, told.keywords)
    except (TypeError, ValueError) as error:
        raise RewardError(f"sample {sample.id!r} is no question: {error}") from error
    raise RewardError(f"sample {sample.id!r}: {answer!r} is no gold answer to its {category} scene")


def answer_of(sample: Sample) -> str:
    """The only right answer to a text task.

    Raises:
        RewardError: the sample carries none.
    """
    return str(_fact(sample, "answer"))


def _fact(sample: Sample, name: str) -> Any:
    if name not in sample.facts:
        raise RewardError(
            f"sample {sample.id!r} of task {sample.task} has no fact {name!r} (it has "
            f"{sorted(sample.facts)}); micro-world rewards need micro-world data"
        )
    return sample.facts[name]
