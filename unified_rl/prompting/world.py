"""What prompts can speak of, and in which words: the world that a builder is given."""

from collections.abc import Mapping
from dataclasses import dataclass

from unified_rl.prompting.categories import CATEGORIES

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "ten"),
)
"""Number words, indexed by their value."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A kind of object.

    Attributes:
        name: as one says of a single one, without an article; lower case.
        plural: of the name.
        takes_color: whether a prompt may give it a colour.
        unit: what it is counted in where it is not counted itself: a *pair* of scissors.
    """

    name: str
    plural: str
    takes_color: bool = True
    unit: str | None = None

    @property
    def verb(self) -> str:
        """The "are" of "the scissors are red", else "is"."""
        return "are" if self.unit == "pair" else "is"


@dataclass(frozen=True, slots=True)
class Wording:
    """Questions and gold answers.

    Answers are templates. Their fields: {name}, {one} ("a bench"), {verb} and {color} of the first
    object, {other}, {other_one}, {other_verb} and {other_color} of the second, {many} ("three
    vases") and {relation}.

    Attributes:
        questions: by category.
        answers: templates by category.
        capitalised: whether answers start with a capital.
    """

    questions: Mapping[str, str]
    answers: Mapping[str, str]
    capitalised: bool = False

    def __post_init__(self) -> None:
        for texts in (self.questions, self.answers):
            if set(texts) != set(CATEGORIES):
                raise ValueError(f"a wording of {sorted(texts)} is not one of {CATEGORIES}")


@dataclass(frozen=True, slots=True)
class World:
    """What prompts are made of.

    Attributes:
        things: the kinds of objects, names distinct.
        colors: that objects are given.
        counts: of counting prompts, 2 to 10.
        relations: pairs of opposites such as ("above", "below"): a above b is b below a.
        openers: what a prompt starts with, such as "a photo of".
        wording: of questions and answers.
    """

    things: tuple[Thing, ...]
    colors: tuple[str, ...]
    counts: tuple[int, ...]
    relations: tuple[tuple[str, str], ...]
    openers: tuple[str, ...]
    wording: Wording

    def __post_init__(self) -> None:
        kinds = [relation for pair in self.relations for relation in pair]
        names = [thing.name for thing in self.things]
        for noun, values in (
            ("thing", names),
            ("color", self.colors),
            ("count", self.counts),
            ("relation", kinds),
            ("opener", self.openers),
        ):
            twice = sorted(str(value) for value in set(values) if values.count(value) > 1)
            if not values:
                raise ValueError(f"a world needs at least one {noun}")
            if twice:
                raise ValueError(f"{noun} {', '.join(twice)} appears twice")
        for count in self.counts:
            if not 2 <= count < len(NUMBERS):
                raise ValueError(f"count {count} is outside of 2 to {len(NUMBERS) - 1}")
