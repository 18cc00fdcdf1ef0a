"""Reasoned answers, `<think>..</think><answer>..</answer>`, and whether two answers are the same.

All in time linear in the length of what a policy wrote. Tags are ASCII, in lower case and without
blanks; nothing is normalised, so a letter that only looks alike makes no tag and no option.
"""

import re
from typing import NamedTuple

from unified_rl.core.sample import ANSWER, ANSWER_END, THINK, THINK_END
from unified_rl.rewards.numerals import number_of

TAGS = (THINK, THINK_END, ANSWER, ANSWER_END)

_OPTION = re.compile(r"\(?([A-Za-z])[.):]\s*(\S.*)")
# What may stand before an option: fixed words only, so that there is nothing to backtrack into.
_LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore),? )?"
    r"(?:(?:it is|it's|i choose|i pick|i select) "
    r"|(?:the |my )?(?:final |correct |right |best )?(?:answer|choice|option)"
    r"(?: is:?| would be| should be|:)? )?"
    r"(?:(?:the )?(?:option|choice|letter) )?",
    re.IGNORECASE | re.ASCII,
)
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]*")
_LETTER_AND_TEXT = re.compile(r"\(?([A-Za-z])(?:[.):]+ ?| )(.+)")


class Reasoned(NamedTuple):
    """What stands between the tags of a reasoned answer, stripped; either may be empty."""

    thought: str
    answer: str


def reasoned(thought: str, answer: str) -> str:
    """The reasoned answer of a thought and an answer."""
    return f"{THINK}{thought}{THINK_END}{ANSWER}{answer}{ANSWER_END}"


def split_reasoning(text: str) -> Reasoned | None:
    """The parts of a reasoned answer, or None if the text is anything else.

    Each tag is there once, in order; nothing but white space and dots stands between the thought
    and the answer, nothing but white space around them.
    """
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    before, _, rest = text.partition(THINK)
    thought, thought_closed, rest = rest.partition(THINK_END)
    between, answer_opened, rest = rest.partition(ANSWER)
    answer, answer_closed, after = rest.partition(ANSWER_END)
    if not (thought_closed and answer_opened and answer_closed):
        return None  # out of order
    if before.strip() or between.replace(".", " ").strip() or after.strip():
        return None
    return Reasoned(thought.strip(), answer.strip())


def same_answer(answer: str, gold: str) -> bool:
    """Whether two answers are equal but for case, white space, dots at the end, or are one number.

    So "Three." is "3" and "3.0". No part of an answer counts for the whole: "3 or 4" is not "3".
    """
    answer, gold = _folded(answer), _folded(gold)
    if answer == gold:
        return True
    number = number_of(answer)
    return number is not None and number == number_of(gold)


def options_in(question: str) -> dict[str, str]:
    """The texts of a question's options by their letter, from lines "A. text"; empty if none.

    "A) text", "(A) text", "A: text" and lower case do as well. Options begin with A, follow each
    other in the alphabet and are two at least; of several such lists the last one counts.
    """
    options: dict[str, str] = {}
    current: dict[str, str] = {}
    for line in question.splitlines():
        option = _OPTION.fullmatch(line.strip())
        if option is None:
            continue
        letter = option[1].upper()
        if letter == "A":
            current = {}
        if letter == chr(ord("A") + len(current)):
            current[letter] = option[2]
        if len(current) > 1:
            options = current
    return options


def chosen_option(answer: str, options: dict[str, str]) -> str | None:
    """The letter of the one option that an answer names, or None.

    An answer names an option by its letter ("B", "(b)", "option B", "the answer is B"), by its
    text, or by both ("B. a circle"), and says nothing else: "A or B" names none, nor does "B" with
    the text of another option. Without options any letter is one.
    """
    text = " ".join(answer.split())
    stated = text[_LEAD.match(text).end() :]
    for said in (text, stated):
        bare = _LETTER.fullmatch(said)
        if bare and (not options or bare[1].upper() in options):
            return bare[1].upper()
        named = [letter for letter, option in options.items() if same_answer(said, option)]
        if named:
            return named[0] if len(named) == 1 else None
    both = _LETTER_AND_TEXT.fullmatch(stated)
    if both and both[1].upper() in options and same_answer(both[2], options[both[1].upper()]):
        return both[1].upper()
    return None


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(". ")
