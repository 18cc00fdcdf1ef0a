"""The words of an answer about a picture, sorted into those that state something and the rest."""

import itertools
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from unified_rl.rewards.nouns import WORD_LIMIT, Words
from unified_rl.rewards.numerals import number_of

TEXT_LIMIT = 1000
"""Characters that are read of an answer."""

COLORS = frozenset(
    (
        *("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"),
        *("gray", "gold", "silver", "beige", "cyan", "magenta", "turquoise", "teal", "violet"),
    )
)
"""GenEval's ten, and others that a picture may have."""

_ARTICLES = frozenset(("a", "an", "the", "its", "their"))
_COPULAS = frozenset(("is", "are", "was", "were", "looks", "appears", "seems", ":"))
_JOINTS = frozenset(("and", "or", "plus"))
_NEGATIONS = frozenset(("not", "no", "never", "neither", "nor", "without"))
_STOPS = frozenset((".", ";", "!", "?", "\n", "there", "but"))
_PAUSES = frozenset((",", "(", ")"))
_ADJECTIVES = frozenset(
    (
        *("colored", "coloured", "bright", "dark", "light", "small", "little", "large", "big"),
        *("round", "wooden", "shiny", "single"),
    )
)
_BEFORE = ((), ("on",), ("to",), ("at",), ("in",))
_MIDDLE = ((), ("side",), ("hand", "side"))
_CANVAS = frozenset(("image", "picture", "photo", "photograph", "frame", "scene", "canvas"))


def _relations() -> dict[int, dict[Words, str]]:
    """Ways to state a relation, by their number of words; articles between them are left out."""
    ways: dict[Words, str] = {}
    for side, before, middle in itertools.product(("left", "right"), _BEFORE, _MIDDLE):
        ways[(*before, side, *middle, "of")] = f"{side} of"
    for kind, words in {
        "above": "above,over,atop,on top of,top of,higher than",
        "below": "below,under,beneath,underneath,lower than",
    }.items():
        for way in words.split(","):
            ways[tuple(way.split())] = kind
            if " " not in way:
                ways[way, "of"] = kind
    return _by_length(ways)


def _places() -> dict[int, dict[Words, str]]:
    """Ways to state where in the picture something is, with its relation to all else."""
    kinds = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
    return _by_length(
        {
            (*before, side, *middle): kinds[side]
            for side, before, middle in itertools.product(kinds, _BEFORE[1:], _MIDDLE)
        }
    )


def _by_length(ways: Mapping[Words, str]) -> dict[int, dict[Words, str]]:
    lengths = sorted(set(map(len, ways)), reverse=True)
    return {n: {words: kind for words, kind in ways.items() if len(words) == n} for n in lengths}


_RELATIONS = MappingProxyType(_relations())
_PLACES = MappingProxyType(_places())


class Token(NamedTuple):
    """One thing that is said.

    Attributes:
        kind: "object", "color", "number", "relation", "place" (a relation to all else in the
            picture), "copula", "joint", "negation", "stop" (of a sentence), "pause", "adjective"
            or "other".
        value: the name of the object, the relation's kind as the micro-world names it, the
            number in digits, or the word.
        article: whether an article stands before it.
    """

    kind: str
    value: str
    article: bool = False


def tokens(
    text: str, nouns: Mapping[Words, str], colors: frozenset[str], orange_is_color: bool
) -> list[Token]:
    """What the first `TEXT_LIMIT` characters say, in order; linear in their number.

    Args:
        text: an answer.
        nouns: names by their words.
        colors: what is read as a colour besides grey, which is gray.
        orange_is_color: whether "orange", where it is the name of an object too, is a colour
            where neither an article nor a colour nor a number stands before it.
    """
    text = text[:TEXT_LIMIT].lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    words: list[str] = []
    after_article: set[int] = set()
    for word in re.findall(r"[a-z0-9]+|[.;:!?,()\n]", text.replace("n't", " not")):
        if word in _ARTICLES:
            after_article.add(len(words))
        else:
            words.append(word)
    names = dict.fromkeys(range(WORD_LIMIT, 0, -1), nouns)
    found: list[Token] = []
    at = 0
    while at < len(words):
        token, taken = _read(words, at, names, colors)
        if token.kind == "object" and words[at : at + taken] == ["orange"] and "orange" in colors:
            named = at in after_article or (found and found[-1].kind in ("color", "number"))
            if (orange_is_color and not named) or _matched(words, at + 1, names):
                token = Token("color", "orange")
        found.append(token._replace(article=at in after_article))
        at += taken
    return found


def _read(
    words: Sequence[str], at: int, names: Mapping[int, Mapping[Words, str]], colors: frozenset[str]
) -> tuple[Token, int]:
    """The token that begins at a word, and how many words it takes."""
    for kind, ways in (("relation", _RELATIONS), ("place", _PLACES), ("object", names)):
        matched = _matched(words, at, ways)
        if matched is None:
            continue
        value, taken = matched
        if kind == "relation" and at + taken < len(words) and words[at + taken] in _CANVAS:
            return Token("place", value), taken + 1  # "on the left side of the image"
        return Token(kind, value), taken
    return _single(words[at], colors), 1


def _single(word: str, colors: frozenset[str]) -> Token:
    word = "gray" if word == "grey" else word
    if word in colors:
        return Token("color", word)
    for kind, known in (
        ("copula", _COPULAS),
        ("joint", _JOINTS),
        ("negation", _NEGATIONS),
        ("stop", _STOPS),
        ("pause", _PAUSES),
        ("adjective", _ADJECTIVES),
    ):
        if word in known:
            return Token(kind, word)
    number = number_of(word)
    return Token("other", word) if number is None else Token("number", str(number))


def _matched(
    words: Sequence[str], at: int, ways: Mapping[int, Mapping[Words, str]]
) -> tuple[str, int] | None:
    """What the longest of the ways that begin at a word stands for, and how many words it has."""
    for length, known in ways.items():
        value = known.get(tuple(words[at : at + length]))
        if value is not None and at + length <= len(words):
            return value, length
    return None
