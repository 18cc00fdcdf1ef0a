"""What WISE's judge is told, how its reply is read, and what its scores are worth."""

import re
from pathlib import Path
from typing import NamedTuple

from unified_rl.core.errors import DataError
from unified_rl.data.jsonl import existing_file
from unified_rl.evaluation.drawings.wise_prompts import WisePrompt

INSTRUCTION = (
    "You are shown a picture that a model drew for a prompt, and an explanation of what the prompt "
    "calls for. Score the picture on three scales, each 0, 1 or 2, strictly; where in doubt, give "
    "the lower score.\n"
    "Consistency: 0 where key parts of the prompt are missing or contradicted, 1 where it is met "
    "in part, 2 where every detail is met.\n"
    "Realism: 0 where the picture breaks the laws of physics or is plainly artificial, 1 where it "
    "has small faults, 2 where it could be a photograph.\n"
    "Aesthetic Quality: 0 where it is poorly composed, 1 where it is acceptable, 2 where it is "
    "exceptional.\n"
    'Prompt: "{prompt}"\nExplanation: "{explanation}"\n'
    "Reply with three lines and nothing else:\nConsistency: <score>\nRealism: <score>\n"
    "Aesthetic Quality: <score>"
)
"""Ours: the official text stands in the benchmark's own code."""
_REPLY_LIMIT = 400
_TEXT_LIMIT = 50_000
_NAMES = ("consistency", "realism", "aesthetic quality")
_LINE = re.compile(r"([a-z ]+?) ?[:\uff1a] ?([0-2])")


class WiseScores(NamedTuple):
    """A judge's scores of a picture, each 0, 1 or 2."""

    consistency: int
    realism: int
    aesthetics: int


def instructed(instruction: str, prompt: WisePrompt) -> str:
    """What the judge is told of a picture: the instruction with that prompt in it."""
    texts = {"{prompt}": prompt.text, "{explanation}": prompt.explanation}
    return re.sub(r"\{prompt\}|\{explanation\}", lambda found: texts[found[0]], instruction)


def wiscore(scores: WiseScores) -> float:
    """WiScore in [0, 1].

    Source: WISE (arXiv 2503.07265), WISE_legacy/Calculate.py.
    """
    return (0.7 * scores.consistency + 0.2 * scores.realism + 0.1 * scores.aesthetics) / 2


def read_scores(reply: str) -> WiseScores | None:
    """The three scores of a reply; None unless it holds them, each once, and nothing else.

    Asterisks around names and scores, case and white space do not matter; three lines of a digit
    each are taken in the order consistency, realism, aesthetics, as the official tool does.

    Departs: the official tool finds the names anywhere in a reply and takes any digit, the last of
    several; here a reply with more words, or a score beyond 2, is no reply.
    """
    if len(reply) > _REPLY_LIMIT:
        return None
    lines = [" ".join(line.replace("*", " ").split()).casefold() for line in reply.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) != len(_NAMES):
        return None
    if all(line in ("0", "1", "2") for line in lines):
        return WiseScores(*map(int, lines))
    found = [_LINE.fullmatch(line) for line in lines]
    named = {match[1]: int(match[2]) for match in found if match}
    if named.keys() != set(_NAMES):
        return None
    return WiseScores(*(named[name] for name in _NAMES))


def read_instruction(path: str) -> str:
    """A text for the judge out of a file.

    Raises:
        DataError: it cannot be read, or lacks {prompt} or {explanation}.
    """
    try:
        with existing_file(Path(path)).open(encoding="utf-8") as file:
            text = file.read(_TEXT_LIMIT + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"instruction={path} cannot be read: {str(error)[:80]}") from error
    if len(text) > _TEXT_LIMIT:
        raise DataError(f"instruction={path} is over {_TEXT_LIMIT} characters")
    for part in ("{prompt}", "{explanation}"):
        if part not in text:
            raise DataError(f"instruction={path} lacks {part}; put it where that text belongs")
    return text
