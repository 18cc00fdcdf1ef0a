"""Strict reading of a score out of 100 in what a judge says."""

import re
from typing import Literal

FORMS = ("line", "anywhere")
READ_CHARACTERS = 20_000
"""A longer reply states no score."""
_NUMBER = r"[0-9]{1,4}(?:\.[0-9]{1,2})?"
_LINE = re.compile(
    rf"(?:\*\*)?score: ?(?:\*\*)? ?({_NUMBER})(?: ?/ ?100)?\.?(?:\*\*)?", re.IGNORECASE
)
_OF_100 = r"[*_\s]{0,4}(?:/|out of)[*_\s]{0,4}100(?![0-9]|\.[0-9])"
_OF_OTHER = rf"(?!{_OF_100})[*_\s]{{0,4}}(?:/|out of)[*_\s]{{0,4}}[0-9]"
_SAID = re.compile(
    # "score: 85", "a score of **85**", "the score is about 85"; not "score: 8/10"
    r"(?<![a-z])score(?![a-z])[\s*_:=\"'(\[-]{0,8}(?:(?:of|is|as|at|about)\b[\s*_:\"'(\[]{0,8})?"
    rf"(?<![0-9.-])({_NUMBER})(?![0-9]|\.[0-9]|{_OF_OTHER})"
    # "85/100", "85 out of 100"
    rf"|(?<![0-9.])(-?{_NUMBER}){_OF_100}",
    re.IGNORECASE,
)


def read_score(reply: str, form: Literal["line", "anywhere"]) -> float | None:
    """The one score that a reply states, in [0, 1]; None where it states none or several.

    A score is stated by "score: N" ("score of N", "score is N") or by "N/100" ("N out of 100"),
    not by "he scored 3 goals". All that a reply states must be the same number, in [0, 100] with
    two decimals at most: whoever quotes another score has stated two.

    Args:
        reply: all that the judge said.
        form: "line" asks besides that the last line, white space aside, is "Score: N" and nothing
            else, whatever its case; "Score: N/100", a stop behind it and bold type are let pass.
            "anywhere" is content with any of the statements above.
    """
    if len(reply) > READ_CHARACTERS:
        return None
    stated = {float(a or b) for a, b in _SAID.findall(reply)}
    if form == "line":
        last = _LINE.fullmatch(reply.strip().rpartition("\n")[2].strip())
        if last is None:
            return None
        stated.add(float(last[1]))
    if len(stated) != 1:
        return None
    (score,) = stated
    return score / 100 if 0 <= score <= 100 else None


def without_scores(text: str) -> str:
    """The text with "#" for the numbers of every score that it states, so that none is stated."""
    while True:  # "score 1/100/100": without the second fraction the first is a score
        blank = _SAID.sub(lambda found: re.sub("[0-9]+", "#", found[0]), text)
        if blank == text:
            return text
        text = blank
