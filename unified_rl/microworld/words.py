"""The closed vocabulary of the world."""

import functools
import itertools
from collections.abc import Iterator

from unified_rl.microworld.language import plural
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.questions import QUESTIONS
from unified_rl.microworld.scene import COLORS, RELATIONS, SHAPES
from unified_rl.microworld.splits import SPLITS
from unified_rl.microworld.stories import stories
from unified_rl.microworld.text_tasks import KINDS, text_tasks


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Every word that a text of the world can contain, sorted."""
    return tuple(sorted({word for text in _texts() for word in text.split()}))


def _texts() -> Iterator[str]:
    """The whole grammar: all that is enumerable, and the parts of the answers."""
    for category, split in itertools.product(CATEGORIES, SPLITS):
        yield from (prompt.text for prompt in prompts(category, split))
    for split in SPLITS:
        # Longer stories repeat the words of the two-step ones.
        for story in stories(split):
            yield story.prompt
            yield from (step.text for step in story.steps)
        for task in itertools.chain.from_iterable(text_tasks(kind, split) for kind in KINDS):
            yield f"{task.question} {task.answer}"
    yield from QUESTIONS.values()
    # Answers: names, colours and relations, joined by these four words.
    yield from itertools.chain(SHAPES, map(plural, SHAPES), COLORS, RELATIONS)
    yield "a the is and"
