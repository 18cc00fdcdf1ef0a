"""UniRL's rule of reward for answers about one's own pictures: a point a keyword."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Completion, Sample, Task, Text
from unified_rl.microworld.scene import RELATIONS, inverse
from unified_rl.rewards.answer_words import COLORS
from unified_rl.rewards.base import CompletionReward, Golden, StepwiseScore, silent
from unified_rl.rewards.nouns import WORD_LIMIT, nouns
from unified_rl.rewards.statements import Statement, read_answer

POINTS = MappingProxyType(
    {"single": 1, "two": 2, "counting": 2, "colors": 1, "position": 3, "attribution": 4}
)
"""Keywords of each category, the most points it gives."""
_OBJECT_COUNTS = MappingProxyType(
    {"single": 1, "two": 2, "counting": 1, "colors": 1, "position": 2, "attribution": 2}
)
_NAME_LIMIT = 100
"""Characters of a name."""


class KeywordReward(CompletionReward):
    """How many of the keywords of an understanding sample its answer states.

    What is right is in the facts "category" and "include" (GenEval's metadata). A point each:
    single: the object; two: both objects; counting: the number and the object; colors: the colour;
    position: both objects and their relation; attribution: both objects and the colour of each.
    Steps: every text has the outcome. Drawings and other tasks are not judged.

    Words match whole. Case, articles, punctuation, order, and singular or plural make no
    difference; numbers are words or digits, and common synonyms of objects count. "Above" may be
    "on top of" or "over", "left of" "to the left side of", and so on; a relation may be told from
    the other object ("the elephant is below the train"), or by the places of the objects ("the
    train is at the top"). What is denied ("not red") is not stated.

    So that nothing is won by saying more: where more colours, numbers or relations are stated
    than are asked for, their keyword gets nothing; each known object that is not asked for costs
    a point, down to 0. The first 1000 characters are read.

    Source: UniRL 3.4 and Table 2.
    Departs: the paper does not say how a keyword is found in an answer, nor what becomes of
    superfluous ones. It gives the points as they are, which `normalise=False` does.

    Args:
        weight: factor in a hybrid reward, 0 or more.
        normalise: whether the points are divided by those the category has, so that the outcome
            is in [0, 1]; else it is 0 to 4, and categories with more keywords weigh more.
        bound: whether a colour or number counts only beside its object, and a relation only the
            right way round; else wherever it stands, as a plain reading of Table 2 has it.
        rivals: names of other objects that answers may state; those of the sample are known.

    Raises:
        ConfigError: a weight that is negative or not finite, or rivals that are no list of names.
    """

    def __init__(
        self,
        weight: float = 1.0,
        normalise: bool = True,
        bound: bool = True,
        rivals: Sequence[str] = (),
    ) -> None:
        super().__init__(weight)
        if isinstance(rivals, str) or not all(_is_name(name) for name in rivals):
            raise ConfigError(f"rivals={rivals!r} must be a list of names such as [circle, square]")
        self.normalise, self.bound = normalise, bound
        self._known = nouns(rivals)

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome and the texts' steps, in [0, 1] or, not normalised, points.

        Raises:
            RewardError: the facts do not say what is right.
        """
        if sample.task is not Task.UNDERSTANDING:
            return silent(completion)
        asked = _asked_of(sample)
        # the sample's names come last: "mouse" is a computer's where it is asked for
        known = {**self._known, **nouns(asked.names)}
        told = read_answer(
            " ".join(completion.texts),
            known,
            COLORS | set(asked.colors),
            orange_is_color=asked.category in ("colors", "attribution"),
        )
        extra = {mention.name for mention in told.mentions} - set(asked.names)
        value = float(max(0, self._points(asked, told) - len(extra)))
        if self.normalise:
            value /= POINTS[asked.category]
        steps = tuple(value if isinstance(s, Text) else math.nan for s in completion.segments)
        return StepwiseScore(value, steps)

    def _points(self, asked: "_Asked", told: Statement) -> int:
        named = {mention.name for mention in told.mentions}
        if asked.category == "colors":
            return int(self._colors(told, asked.names[0], loose=True) == set(asked.colors))
        points = sum(name in named for name in asked.names)
        if asked.category == "counting":
            points += self._numbers(told, asked.names[0]) == {asked.number}
        elif asked.category == "position":
            points += named >= set(asked.names) and self._relates(told, asked)
        elif asked.category == "attribution":
            points += sum(self._has_color(told, asked, index) for index in range(2))
        return points

    def _colors(self, told: Statement, name: str, loose: bool) -> set[str]:
        if not self.bound:
            return told.colors.union(*(mention.colors for mention in told.mentions))
        return told.colors_of(name) | (told.colors if loose else set())

    def _numbers(self, told: Statement, name: str) -> set[str]:
        if not self.bound:
            return told.numbers.union(*(mention.numbers for mention in told.mentions))
        return told.numbers_of(name) | told.numbers

    def _has_color(self, told: Statement, asked: "_Asked", index: int) -> bool:
        name, color = asked.names[index], asked.colors[index]
        said = self._colors(told, name, loose=False)
        pairs = zip(asked.names, asked.colors, strict=True)
        right = {c for other, c in pairs if other == name or not self.bound}
        return color in said and len(said) <= len(right)

    def _relates(self, told: Statement, asked: "_Asked") -> bool:
        subject, other = asked.names
        kinds: set[str] = set()
        for first, kind, second in told.relations:
            if first == second:
                return False
            if {first, second} <= {subject, other, None}:
                kinds.add(kind if subject == first or other == second else inverse(kind))
        if kinds == {asked.relation}:
            return True
        return not self.bound and {kind for _, kind, _ in told.relations} == {asked.relation}

    def golden(self) -> tuple[Golden, ...]:
        """Answers about micro-world and everyday objects, against wrong ones."""
        return tuple(_golden(*case) for case in _CASES)


class _Asked(NamedTuple):
    """What an answer is held against.

    Attributes:
        category: of the question.
        names: of its objects; of a relation the subject, then the other.
        colors: of the objects, in the categories that ask for them.
        number: in digits, of the one object.
        relation: of the first object to the second.
    """

    category: str
    names: tuple[str, ...]
    colors: tuple[str, ...]
    number: str
    relation: str


def _asked_of(sample: Sample) -> _Asked:
    category, include = sample.facts.get("category"), sample.facts.get("include")
    if category not in POINTS:
        raise RewardError(
            f"sample {sample.id!r}: category={category!r} is none of {', '.join(POINTS)}"
        )
    try:
        return _read_include(category, include)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RewardError(
            f"sample {sample.id!r}: include={str(include)[:200]} does not say what is right in "
            f"category {category!r} ({type(error).__name__}: {error}); give it as GenEval does"
        ) from error


def _read_include(category: str, include: Sequence[Mapping[str, Any]]) -> _Asked:
    count = _OBJECT_COUNTS[category]
    if len(include) != count:
        raise ValueError(f"it has {len(include)} entries instead of {count}")
    names = tuple(entry["class"] for entry in include)
    if not all(map(_is_name, names)):
        raise ValueError(f"classes {names} must be names of at most {WORD_LIMIT} words")
    colors: tuple[str, ...] = ()
    if category in ("colors", "attribution"):
        colors = tuple(str(entry["color"]).lower().replace("grey", "gray") for entry in include)
        if not all(color.isalpha() for color in colors):
            raise ValueError(f"colors {colors} are not single words")
    relation = ""
    if category == "position":
        relation, place = include[1]["position"]
        if relation not in RELATIONS or place != 0:
            raise ValueError(f"position {include[1]['position']} is not [relation, 0]")
        names = names[::-1]
    number = str(int(include[0]["count"])) if category == "counting" else ""
    return _Asked(category, names, colors, number, relation)


def _is_name(name: Any) -> bool:
    short = isinstance(name, str) and len(name) <= _NAME_LIMIT
    return short and 0 < len(name.split()) <= WORD_LIMIT


_MICRO = {"class": "circle", "count": 1}, {"class": "square", "count": 1}
_EVERYDAY = (
    {"class": "wine glass", "count": 1, "color": "green"},
    {"class": "scissors", "count": 1, "color": "pink"},
)
_CASES: tuple[tuple[str, list[dict[str, Any]], str, str], ...] = (
    ("single", [_MICRO[0]], "a circle", "a shape"),
    ("two", list(_MICRO), "a circle and a square", "a circle"),
    ("counting", [{"class": "person", "count": 3}], "three people", "two people"),
    ("colors", [_EVERYDAY[0]], "green", "green or pink"),
    (
        "position",
        [_MICRO[0], {**_MICRO[1], "position": ["above", 0]}],
        "the circle is below the square",
        "the square is below the circle",
    ),
    (
        "attribution",
        list(_EVERYDAY),
        "The scissors are pink and the wine glass is green.",
        "The scissors are green and the wine glass is pink.",
    ),
)


def _golden(category: str, include: list[dict[str, Any]], good: str, bad: str) -> Golden:
    sample = Sample(
        id=f"golden answer {good!r}",
        task=Task.UNDERSTANDING,
        prompt=(Text(category),),
        facts={"category": category, "include": include},
    )
    right, wrong = (Completion((Text(text),), finished=True) for text in (good, bad))
    return Golden(sample, right, wrong)
