"""The small language of the world: how things are named, and what a sentence states."""

import re
from dataclasses import dataclass, replace

from unified_rl.microworld.scene import COLORS, RELATIONS, SHAPES

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
"""Number words, indexed by their value."""

_MOST_DIGITS = 4
"""A longer number is an unknown word; Python refuses to read those of thousands of digits."""

_FILLERS = (
    *("a", "an", "the", "and", "there", "i", "it", "in", "this", "of", "to", "draw", "add", "then"),
    *("image", "photo", "picture", "drawing", "object", "objects", "item", "items"),
    *("main", "color", "position"),
)


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


def singular(word: str) -> str:
    """The name of a shape for its plural; any other word as it is."""
    return next((shape for shape in SHAPES if word == plural(shape)), word)


def name(shape: str | None, color: str | None, count: int = 1) -> str:
    """A noun phrase without its article: "red circle", "three circles"."""
    words = [NUMBERS[count]] if count > 1 else []
    words += [color] if color else []
    words.append(plural(shape or "object") if count > 1 else shape or "object")
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class Mention:
    """One thing that a text speaks of; None where the text leaves an attribute open."""

    shape: str | None
    color: str | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text states.

    Attributes:
        mentions: In the order of the text; a lone colour or number is a mention as well.
        relations: (subject, kind, object), indices into `mentions`.
        clean: False where a word is unknown, a relation lacks an end, or a colour contradicts
            another colour of the same mention.
    """

    mentions: tuple[Mention, ...]
    relations: tuple[tuple[int, str, int], ...]
    clean: bool


def _tokens(text: str) -> list[tuple[str, str]]:
    """(kind, value) of each word: shape, color, number, relation, copula, filler or unknown."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    tokens = []
    for position, word in enumerate(words):
        followed_by_of = words[position + 1 : position + 2] == ["of"]
        if singular(word) in SHAPES:
            tokens.append(("shape", singular(word)))
        elif word in COLORS:
            tokens.append(("color", word))
        elif word in NUMBERS:
            tokens.append(("number", str(NUMBERS.index(word))))
        elif word.isdecimal() and len(word) <= _MOST_DIGITS:
            tokens.append(("number", word))
        elif word in RELATIONS:
            tokens.append(("relation", word))
        elif f"{word} of" in RELATIONS and followed_by_of:
            tokens.append(("relation", f"{word} of"))
        elif word in ("is", "are"):
            tokens.append(("copula", word))
        else:
            tokens.append(("filler" if word in _FILLERS else "unknown", word))
    return tokens


def read(text: str) -> Reading:
    """Parses a text; upper case, punctuation, articles and plurals make no difference."""
    tokens = _tokens(text)
    mentions: list[Mention] = []
    relations: list[tuple[int, str, int]] = []
    color: str | None = None
    number: int | None = None
    open_relation: tuple[int, str] | None = None
    clean = True
    for position, (kind, value) in enumerate(tokens):
        following = [following for following, _ in tokens[position + 1 : position + 3]]
        after_copula = position > 0 and tokens[position - 1][0] == "copula"
        if kind == "shape":
            mentions.append(Mention(value, color, number))
            color = number = None
            if open_relation is not None:
                relations.append((*open_relation, len(mentions) - 1))
                open_relation = None
        elif kind == "color" and following[:1] == ["shape"]:
            color = value
        elif kind == "color" and after_copula and mentions:
            clean &= mentions[-1].color in (None, value)
            mentions[-1] = replace(mentions[-1], color=mentions[-1].color or value)
        elif kind == "color":
            mentions.append(Mention(None, value))
        elif kind == "number" and (following[:1] == ["shape"] or following == ["color", "shape"]):
            number = int(value)
        elif kind == "number":
            mentions.append(Mention(None, None, int(value)))
        elif kind == "relation":
            clean &= bool(mentions) and open_relation is None
            open_relation = (len(mentions) - 1, value) if mentions else None
        elif kind == "unknown":
            clean = False
    return Reading(tuple(mentions), tuple(relations), clean and open_relation is None)
