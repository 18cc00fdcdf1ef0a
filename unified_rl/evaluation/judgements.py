"""What judges are shown of answers and how their scores are read: delimited, strict, kept."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Image, Text
from unified_rl.data.images import read_image
from unified_rl.evaluation.kept_answers import KeptAnswers
from unified_rl.rewards.judging import Judge, JudgeQuestion

FEEDBACK, SCORE = "### Feedback", "### Score"
SHOWN_LENGTH = 6000
"""Characters of one text that a judge is shown."""
SHOWN_SIDE = 1024
"""Pixels of the longer side to which a picture is scaled down for a judge."""
REPLY_LENGTH = 100_000
"""Characters of a reply that are read."""
_LOOKALIKES = str.maketrans("<>[]|#", "\u2039\u203a\u27e6\u27e7\u00a6\u266f")
"""Marks of delimiters, special tokens and headings, by others that no normalisation takes back."""
_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")


def harmless(text: str) -> Text:
    """A text for a judge, in which no delimiter, heading or special token can be written."""
    text = unicodedata.normalize("NFKC", text[:SHOWN_LENGTH])[:SHOWN_LENGTH]
    kept = (letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    return Text("".join(kept).translate(_LOOKALIKES))


def picture(path: Path, side: int = SHOWN_SIDE) -> Image:
    """An image file as a judge is shown it, scaled down to `side` pixels where it is larger.

    Raises:
        ImageError: it cannot be read.
    """
    image = read_image(path)
    image.thumbnail((side, side))
    return Image(np.array(image))


def opened(parts: Sequence[str | Path]) -> list[str | Image]:
    """Texts, and image files as a judge is shown them.

    Raises:
        ImageError: a file that cannot be read.
    """
    return [part if isinstance(part, str) else picture(part) for part in parts]


def read_score(reply: str | None, greatest: int) -> int | None:
    """The one score of a reply, a whole number from 0 to `greatest`; None for any other reply.

    A reply holds `SCORE` once, at the start of a line, and behind it nothing but the number.
    """
    if reply is None or len(reply) > REPLY_LENGTH:
        return None
    before, heading, behind = ("\n" + reply).partition(f"\n{SCORE}")
    if not heading or SCORE in before or SCORE in behind:
        return None
    found = re.fullmatch(r"[:*\s]*([0-9]{1,2})[.*\s]*", behind)
    if found is None or int(found[1]) > greatest:
        return None
    return int(found[1])


def read_score_as_released(reply: str | None, greatest: int) -> int | None:
    """As MMIE's released code reads it: the first number anywhere behind `SCORE`, rounded."""
    if reply is None:
        return None
    _, heading, behind = reply[:REPLY_LENGTH].partition(SCORE)
    found = _NUMBER.search(behind) if heading else None
    if found is None or not 0 <= round(float(found[0])) <= greatest:
        return None
    return round(float(found[0]))


class CachedJudge:
    """A judge whose replies are kept in a file, by the content of what it was asked.

    Questions that it failed to answer are not kept and are asked again by the next run.

    Args:
        judge: asked what is not there yet.
        path: of the file, see `KeptAnswers`.
        batch_size: questions that are put to the judge at once.

    Raises:
        DataError: the file is another one.
    """

    def __init__(self, judge: Judge, path: Path, batch_size: int = 16) -> None:
        self._judge, self._batch_size = judge, batch_size
        self._kept = KeptAnswers(path, dict(judge.describe()))

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[str | None]:
        """One reply a question, in order; see `Judge.ask`."""
        keys = [self._key(question) for question in questions]
        missing = {
            key: question
            for key, question in zip(keys, questions, strict=True)
            if self._reply(key) is None
        }
        left = list(missing.items())
        for start in range(0, len(left), self._batch_size):
            batch = left[start : start + self._batch_size]
            replies = self._judge.ask([question for _, question in batch])
            for (key, _), reply in zip(batch, replies, strict=True):
                if reply is not None:
                    self._kept.put(key, reply)
        return [self._reply(key) for key in keys]

    def describe(self) -> Mapping[str, Any]:
        """What the judge says of itself."""
        return self._judge.describe()

    def _reply(self, key: str) -> str | None:
        kept = self._kept.get(key)
        return kept if isinstance(kept, str) else None  # whatever else a file may hold

    def _key(self, question: JudgeQuestion) -> str:
        parts = [part.text if isinstance(part, Text) else part.pixels for part in question.parts]
        return self._kept.key(question.instruction, *parts)


class SanityCase(NamedTuple):
    """Two answers that any judge must tell apart."""

    name: str
    good: JudgeQuestion
    bad: JudgeQuestion


def require_sound(
    judge: Judge, cases: Sequence[SanityCase], read: Callable[[str | None], int | None]
) -> None:
    """Refuses a judge that does not score every good answer above its bad one.

    Args:
        judge: to be tried.
        cases: made by hand.
        read: the score of a reply, None if it has none.

    Raises:
        RewardError: names the case and the scores.
    """
    asked = [question for case in cases for question in (case.good, case.bad)]
    scores = [read(reply) for reply in judge.ask(asked)]
    for case, good, bad in zip(cases, scores[::2], scores[1::2], strict=True):
        if good is None or bad is None or good <= bad:
            said = ["no readable score" if score is None else str(score) for score in (good, bad)]
            raise RewardError(
                f"this judge cannot be trusted: in the sanity case {case.name!r} it gave the good "
                f"answer {said[0]} and the bad one {said[1]}; choose another judge"
            )


def check_scoring(judge: Judge | None, feedback: str | None) -> None:
    """Raises ConfigError for two sources of scores."""
    if judge is not None and feedback is not None:
        raise ConfigError("suite.judge and suite.feedback both give scores; set one of them null")
