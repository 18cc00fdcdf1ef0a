"""Step-by-step stories: a picture that grows by one object at each step."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from unified_rl.microworld.facts import Facts, Item, Relation, compose
from unified_rl.microworld.language import Mention, name, read
from unified_rl.microworld.scene import COLORS, RELATIONS, SHAPES, Scene, inverse
from unified_rl.microworld.splits import check_split, cut, stable_hash

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.35
THREE_STEP_ONE_IN = 10
"""One in this many three-step stories is kept."""


@dataclass(frozen=True, slots=True)
class Step:
    """The gold thought of a step and the facts of the whole picture after it."""

    text: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Story:
    """A prompt and its steps; step k adds item k, related to item k - 1."""

    prompt: str
    steps: tuple[Step, ...]
    split: str

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts; `from_json` is the inverse."""
        steps = [{"text": step.text, "facts": step.facts.to_json()} for step in self.steps]
        return {"prompt": self.prompt, "steps": steps, "split": self.split}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Story":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: Naming the value that is not a story.
        """
        try:
            steps = tuple(Step(s["text"], Facts.from_json(s["facts"])) for s in value["steps"])
            story = cls(value["prompt"], steps, value["split"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a story: {value!r} ({error})") from error
        check_split(story.split)
        return story


@functools.cache
def stories(split: str, steps: int = 2) -> tuple[Story, ...]:
    """All stories of a split (train 55%, validation 10%, test 35% of the two-step ones).

    Two steps: all 960 pairs of different objects with a relation, split by what the picture
    shows in the end, so a story and the same picture drawn in the other order stay together.
    Three steps: a fixed selection of about 2,000; each has the split of its first two steps. The
    two relations differ, because three objects do not fit in a row, and of a chain and its
    reverse (the same picture) at most one is told.

    Raises:
        ValueError: For an unknown split or a number of steps other than 2 or 3.
    """
    check_split(split)
    if steps not in (2, 3):
        raise ValueError(f"steps={steps!r} is not 2 or 3")
    pairs = list(_pairs())
    splits = cut([facts.key() for facts in pairs], VALIDATION_SHARE, TEST_SHARE)
    prefixes = [facts for facts in pairs if splits[facts.key()] == split]
    if steps == 2:
        return tuple(_tell(facts, split) for facts in prefixes)
    chains = itertools.chain.from_iterable(map(_longer, prefixes))
    return tuple(_tell(facts, split) for facts in chains if _is_selected(facts))


def paint(story: Story, rng: np.random.Generator) -> tuple[Scene, ...]:
    """A random picture after each step; earlier objects stay where they are."""
    final = compose(story.steps[-1].facts, rng)
    return tuple(Scene(final.objects[:count]) for count in range(1, len(story.steps) + 1))


def thought_score(text: str, step_index: int, story: Story) -> float:
    """Fraction of a step's facts that a thought states, less its wrong extra objects, in [0, 1].

    The first step has two facts: the object's shape, and its colour bound to that shape. A later
    step has five: these two, the relation to the object before, and that one's shape and bound
    colour. The objects meant are the ends of the first relation told (either direction will do);
    without a relation, the first and second object named. "it" names no object. Each further
    object that is not one of the story so far costs one fact; words of no meaning cost nothing.

    Args:
        text: The thought.
        step_index: From 0.
        story: The story it belongs to.

    Raises:
        ValueError: If the story has no such step.
    """
    if not 0 <= step_index < len(story.steps):
        raise ValueError(f"step_index={step_index} is outside of {len(story.steps)} steps")
    facts = story.steps[step_index].facts
    reading = read(text)
    mentions = [mention for mention in reading.mentions if mention.shape is not None]
    tellings: list[tuple[Mention | None, str | None, Mention | None]]
    if step_index > 0 and reading.relations:
        subject, kind, other = reading.relations[0]
        ends = reading.mentions[subject], reading.mentions[other]
        tellings = [(ends[0], kind, ends[1]), (ends[1], inverse(kind), ends[0])]
    else:
        first, second = (*mentions, None, None)[:2]
        tellings = [(first, None, second if step_index > 0 else None)]
    return max(_telling_score(telling, mentions, step_index, facts) for telling in tellings)


def _telling_score(
    telling: tuple[Mention | None, str | None, Mention | None],
    mentions: list[Mention],
    step_index: int,
    facts: Facts,
) -> float:
    subject, kind, reference = telling
    held = _attributes_held(subject, facts.items[step_index])
    required = 2
    if step_index > 0:
        held += kind == facts.relations[step_index - 1].kind
        held += _attributes_held(reference, facts.items[step_index - 1])
        required = 5
    known = facts.items[: step_index + 1]
    wrong = sum(
        mention not in (subject, reference)
        and not any(_attributes_held(mention, item) == 2 for item in known)
        for mention in mentions
    )
    return max(0, held - wrong) / required


def _attributes_held(mention: Mention | None, item: Item) -> int:
    """1 for one object of the right shape, 2 if it has the right colour too."""
    if mention is None or mention.shape != item.shape or mention.number not in (None, 1):
        return 0
    return 1 + (mention.color == item.color)


def _objects() -> tuple[Item, ...]:
    return tuple(Item(shape, color) for shape, color in itertools.product(SHAPES, COLORS))


def _pairs() -> Iterator[Facts]:
    for (a, b), kind in itertools.product(itertools.permutations(_objects(), 2), RELATIONS):
        yield Facts((a, b), (Relation(1, kind, 0),))


def _longer(facts: Facts) -> Iterator[Facts]:
    for item, kind in itertools.product(_objects(), RELATIONS):
        if item not in facts.items and kind != facts.relations[0].kind:
            yield Facts((*facts.items, item), (*facts.relations, Relation(2, kind, 1)))


def _is_selected(facts: Facts) -> bool:
    words = _prompt(facts.items, [relation.kind for relation in facts.relations])
    kinds = [inverse(relation.kind) for relation in reversed(facts.relations)]
    reverse = _prompt(facts.items[::-1], kinds)
    chosen = stable_hash(facts.key()) % THREE_STEP_ONE_IN == 0
    return chosen and stable_hash(words) < stable_hash(reverse)


def _prompt(items: tuple[Item, ...], kinds: list[str]) -> str:
    parts = [f"draw a {name(items[0].shape, items[0].color)}"]
    for item, kind in zip(items[1:], kinds, strict=True):
        parts.append(f"add a {name(item.shape, item.color)} {kind} it")
    return " then ".join(parts)


def _tell(facts: Facts, split: str) -> Story:
    nouns = [name(item.shape, item.color) for item in facts.items]
    steps = [Step(f"i draw a {nouns[0]}", Facts(facts.items[:1]))]
    for k, relation in enumerate(facts.relations, start=1):
        text = f"i add a {nouns[k]} {relation.kind} the {nouns[k - 1]}"
        steps.append(Step(text, Facts(facts.items[: k + 1], facts.relations[:k])))
    kinds = [relation.kind for relation in facts.relations]
    return Story(_prompt(facts.items, kinds), tuple(steps), split)
