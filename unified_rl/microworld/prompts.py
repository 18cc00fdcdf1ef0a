"""Text-to-image prompts in the six categories of GenEval, with their facts and splits."""

import functools
import itertools
from dataclasses import dataclass

from unified_rl.microworld.facts import Facts, Item, Relation
from unified_rl.microworld.language import name
from unified_rl.microworld.scene import COLORS, RELATIONS, SHAPES
from unified_rl.microworld.splits import check_split, cut

CATEGORIES = ("single", "two", "counting", "colors", "position", "attribution")
OPENERS = ("a photo of", "a picture of", "an image of", "a drawing of")
COUNTS = (2, 3, 4)
VALIDATION_SHARE = 0.1
TEST_SHARE = 0.3
_SPLIT_BY_FACTS = ("attribution",)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One wording of some facts, and the only split in which it occurs."""

    text: str
    category: str
    facts: Facts
    split: str


def check_category(category: str) -> None:
    """Raises ValueError for a category that does not exist."""
    if category not in CATEGORIES:
        raise ValueError(f"category={category!r} is not one of {CATEGORIES}")


def category_facts(category: str) -> tuple[Facts, ...]:
    """Every requirement of a category, in each order in which it can be said.

    Objects of counting prompts have free colours, each its own. Two-object prompts name two
    different shapes; attribution names two different colours as well.

    Raises:
        ValueError: For an unknown category.
    """
    check_category(category)
    pairs = tuple(itertools.permutations(SHAPES, 2))
    if category == "single":
        return tuple(Facts((Item(shape, None),)) for shape in SHAPES)
    if category == "counting":
        return tuple(Facts((Item(s, None, n),)) for s, n in itertools.product(SHAPES, COUNTS))
    if category == "colors":
        return tuple(Facts((Item(s, c),)) for s, c in itertools.product(SHAPES, COLORS))
    if category == "two":
        return tuple(Facts((Item(a, None), Item(b, None))) for a, b in pairs)
    if category == "position":
        return tuple(
            Facts((Item(a, None), Item(b, None)), (Relation(0, kind, 1),))
            for (a, b), kind in itertools.product(pairs, RELATIONS)
        )
    colors = tuple(itertools.permutations(COLORS, 2))
    return tuple(
        Facts((Item(a, color_a), Item(b, color_b)))
        for (a, b), (color_a, color_b) in itertools.product(pairs, colors)
    )


def describe(facts: Facts) -> str:
    """The facts of a prompt as a noun phrase: "a red circle and a blue square"."""
    nouns = [
        ("" if item.count > 1 else "a ") + name(item.shape, item.color, item.count)
        for item in facts.items
    ]
    if facts.relations:
        (relation,) = facts.relations
        return f"{nouns[relation.subject]} {relation.kind} {nouns[relation.object]}"
    return " and ".join(nouns)


@functools.cache
def prompts(category: str, split: str) -> tuple[Prompt, ...]:
    """All prompts of a category in one split: "train" 60%, "validation" 10%, "test" 30%.

    Attribution is split by its facts, so no wording of a test requirement is trained on. The other
    categories have too few facts for that (4 to 24) and are split by wording: with a third of 24
    spatial facts held out, a small model learns the trained ones by heart and puts every unseen
    one where it has seen the pair before.

    Raises:
        ValueError: For an unknown category or split.
    """
    check_split(split)
    drafts = [
        (f"{opener} {describe(facts)}", facts)
        for facts, opener in itertools.product(category_facts(category), OPENERS)
    ]
    by_facts = category in _SPLIT_BY_FACTS
    keys = [facts.key() if by_facts else text for text, facts in drafts]
    splits = cut(keys, VALIDATION_SHARE, TEST_SHARE)
    return tuple(
        Prompt(text, category, facts, split)
        for key, (text, facts) in zip(keys, drafts, strict=True)
        if splits[key] == split
    )
