"""Numbers as people write them: in digits or in English words."""

import re
from collections.abc import Sequence
from fractions import Fraction
from types import MappingProxyType

LENGTH_LIMIT = 200
"""A longer text is no number; it bounds the work on what a policy wrote."""

_ONES = MappingProxyType(
    {
        "zero": 0,
        "one": 1,
        "two": 2,
        "three": 3,
        "four": 4,
        "five": 5,
        "six": 6,
        "seven": 7,
        "eight": 8,
        "nine": 9,
        "ten": 10,
        "eleven": 11,
        "twelve": 12,
        "thirteen": 13,
        "fourteen": 14,
        "fifteen": 15,
        "sixteen": 16,
        "seventeen": 17,
        "eighteen": 18,
        "nineteen": 19,
    }
)
_TENS = MappingProxyType(
    {
        "twenty": 20,
        "thirty": 30,
        "forty": 40,
        "fifty": 50,
        "sixty": 60,
        "seventy": 70,
        "eighty": 80,
        "ninety": 90,
    }
)
_SCALES = MappingProxyType({"thousand": 10**3, "million": 10**6, "billion": 10**9})
_SIGNS = MappingProxyType({"-": -1, "\N{MINUS SIGN}": -1, "minus ": -1, "negative ": -1, "+": 1})
# Only ASCII digits: `float` would take those of any script.
_DIGITS = re.compile(r"(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?|\.[0-9]+")


def number_of(text: str) -> Fraction | None:
    """The number that a text is, exactly, or None if it is anything else.

    Digits may have thousands separators ("1,200.5"), words may have hyphens and "and" ("one hundred
    and twenty-one"), decimals ("two point five") and scales up to below a thousand billion; digits
    go before a scale, too ("2.5 million"). "Hundred", "a thousand" and "twelve hundred" are
    numbers; "one two", "twenty ten", fractions and anything with a unit are not.
    """
    text = text.strip().lower()
    if len(text) > LENGTH_LIMIT:
        return None
    for mark, sign in _SIGNS.items():
        if text.startswith(mark):
            value = _unsigned(text.removeprefix(mark).strip())
            return None if value is None else sign * value
    return _unsigned(text)


def _unsigned(text: str) -> Fraction | None:
    digits, _, scale = text.partition(" ")
    if _DIGITS.fullmatch(digits) and scale in ("", *_SCALES):
        return Fraction(digits.replace(",", "")) * _SCALES.get(scale, 1)
    words = text.replace("-", " ").split()
    if "point" not in words:
        return _whole(words)
    place = words.index("point")
    whole = _whole(words[:place]) if place else Fraction(0)
    decimals = [_ONES.get(word, 10) for word in words[place + 1 :]]
    if whole is None or not decimals or max(decimals) > 9:
        return None
    return whole + Fraction(int("".join(map(str, decimals))), 10 ** len(decimals))


def _whole(words: Sequence[str]) -> Fraction | None:
    """A number without decimals: groups below a thousand, each with a smaller scale."""
    total, ceiling, group = 0, 0, []  # ceiling: the last scale, 0 before the first
    for word in words:
        if word not in _SCALES:
            group.append(word)
            continue
        scale = _SCALES[word]
        count = 1 if not total and group in ([], ["a"]) else _group(group, after=total)
        if not count or count >= 1000 or (total and scale >= ceiling):
            return None
        total, ceiling, group = total + count * scale, scale, []
    if not group:
        return Fraction(total) if total else None
    rest = _group(group, after=total)
    if rest is None or (total and not 0 < rest < 1000):
        return None
    return Fraction(total + rest)


def _group(words: list[str], after: int) -> int | None:
    """A number with at most one "hundred"; "and" may open it if larger groups came before.

    `after` is the sum of those groups, 0 if there are none.
    """
    if after and words[:1] == ["and"]:
        words = words[1:]
    if "hundred" not in words:
        return _below_hundred(words)
    place = words.index("hundred")
    count, rest = words[:place], words[place + 1 :]
    hundreds = 1 if count in ([], ["a"]) else _below_hundred(count)
    if rest[:1] == ["and"] and len(rest) > 1:
        rest = rest[1:]
    ones = _below_hundred(rest) if rest else 0
    if not hundreds or ones is None:
        return None
    return 100 * hundreds + ones


def _below_hundred(words: Sequence[str]) -> int | None:
    if len(words) == 1:
        return _ONES.get(words[0], _TENS.get(words[0]))
    if len(words) == 2 and words[0] in _TENS and 0 < _ONES.get(words[1], 0) < 10:
        return _TENS[words[0]] + _ONES[words[1]]
    return None
