"""How the code that CoRL released reads an answer: looser than the paper says.

Source: github.com/mm-vl/ULM-R1, `corl/open_r1/rewards/r_base.py` and `r_utils.py`; read as a
description of what it computes. Its regular expressions take quadratic time on hostile texts; here
the results are equal and the time is linear.
"""

import re
from difflib import SequenceMatcher

from unified_rl.core.sample import THINK
from unified_rl.rewards.answers import ANSWER, ANSWER_END, TAGS, THINK_END
from unified_rl.rewards.numerals import number_of

ALIKE = 0.8
"""Least `difflib` ratio of two words that count as alike."""

# Neither class can begin with what follows it, and `*+` never gives anything back.
_TURN = re.compile(rf"{THINK_END}[.\s]*+{ANSWER}")


def is_lazily_reasoned(text: str) -> bool:
    r"""Whether `<think>.*?</think>[.\s]*<answer>.*?</answer>` matches a whole text, lines and all.

    Tags may repeat and nest: only the outer ones and one turn from thought to answer are asked for.
    """
    if not (text.startswith(THINK) and text.endswith(ANSWER_END)):
        return False
    turn = _TURN.search(text, len(THINK))
    return turn is not None and turn.end() <= len(text) - len(ANSWER_END)


def tagged_answer(text: str) -> str | None:
    """What stands in the first `<answer>..</answer>` that is on one line; None without one."""
    for line in text.split("\n"):
        _, opened, rest = line.partition(ANSWER)
        answer, closed, _ = rest.partition(ANSWER_END)
        if opened and closed:
            return answer.strip()
    return None


def loose_answer(text: str) -> str:
    """The tagged answer, or else all but the thoughts, tags and the word "Answer"."""
    answer = tagged_answer(text)
    if answer is not None:
        return answer
    text = _without_thoughts(text)
    for word in (*TAGS, "Answer:", "Answer"):
        text = text.replace(word, "")
    return text.strip()


def _without_thoughts(text: str) -> str:
    kept, start = [], 0
    # Where no end follows one thought, none follows a later one either.
    while (begin := text.find(THINK, start)) >= 0 and (end := text.find(THINK_END, begin)) >= 0:
        kept.append(text[start:begin])
        start = end + len(THINK_END)
    return "".join((*kept, text[start:]))


def loosely_same(answer: str, gold: str) -> bool:
    """Equal but for case, white space and the answer's last dots; one number word is its digits."""
    answer, gold = answer.rstrip(".").lower().strip(), gold.lower().strip()
    return answer == gold or _in_digits(answer) == gold or answer == _in_digits(gold)


def soft_jaccard(answer: str, gold: str) -> float:
    """Shared words by all words, in [0, 1], where words that are alike count by their ratio.

    Departs: the released code pairs words in the order of a Python set, which differs from run to
    run; here it is that in which they appear.
    """
    said, wanted = (dict.fromkeys(text.lower().split()) for text in (answer, gold))
    shared = float(len(said.keys() & wanted.keys()))
    # One matcher a gold word: what it learns of its second text is kept.
    left = {word: SequenceMatcher(None, "", word) for word in wanted if word not in said}
    for word in said:
        if word in wanted:
            continue
        ratios = {other: _ratio(matcher, word) for other, matcher in left.items()}
        best = max(ratios, key=ratios.__getitem__, default=None)
        if best is not None and ratios[best] >= ALIKE:
            shared += ratios[best]
            del left[best]
    union = len(said) + len(wanted) - shared
    return shared / union if union else 0.0


def _ratio(matcher: SequenceMatcher, word: str) -> float:
    """The ratio of two words, 0 where cheap bounds say that it is below `ALIKE`."""
    matcher.set_seq1(word)
    if matcher.real_quick_ratio() < ALIKE or matcher.quick_ratio() < ALIKE:
        return 0.0
    return matcher.ratio()


def _in_digits(text: str) -> str:
    number = number_of(text) if text.isalpha() else None
    return text if number is None else str(number)
