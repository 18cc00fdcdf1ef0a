"""What a policy drew and answered best and worst for one prompt, as JSON."""

import base64
import binascii
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from unified_rl.core.errors import DataError
from unified_rl.core.preference import Preference
from unified_rl.core.sample import DrawnImage, Image, Sample, Segment, Task, Text
from unified_rl.data.images import ImageError, read_image
from unified_rl.data.self_questions import ask_about

_KEYS = {"id", "prompt", "facts", "drawings", "picture", "answers"}
_CHOICE_KEYS = {"win", "lose", "win_score", "lose_score"}


@dataclass(frozen=True, eq=False)
class Choice:
    """The best and the worst of several candidates.

    Attributes:
        win: the best.
        lose: the worst.
        win_score: what the best was given.
        lose_score: what the worst was given, less than that.
    """

    win: Segment
    lose: Segment
    win_score: float
    lose_score: float


@dataclass(frozen=True, eq=False)
class Ranked:
    """Drawings of one prompt and answers about one picture, the best and the worst of each.

    Attributes:
        sample: the prompt, with the facts "question" and "answer".
        drawings: of the prompt; None where no two were apart enough.
        picture: that the answers are about; None without answers.
        answers: to the question; None where no two were apart enough.
    """

    sample: Sample
    drawings: Choice | None
    picture: Image | DrawnImage | None
    answers: Choice | None

    @property
    def halves(self) -> tuple[bool, bool]:
        """Whether there are drawings, and answers, to prefer."""
        return self.drawings is not None, self.answers is not None

    @property
    def preference(self) -> Preference | None:
        """What to learn from it, if anything."""
        if not any(self.halves):
            return None
        drawings = answers = (None, None)
        if self.drawings is not None:
            both = self.drawings.win, self.drawings.lose
            drawings = tuple(replace(self.sample, target=(drawing,)) for drawing in both)
        if self.answers is not None:
            both = self.answers.win, self.answers.lose
            asked = ask_about(self.sample, self.picture)
            answers = tuple(replace(asked, target=(answer,)) for answer in both)
        return Preference(*drawings, *answers)

    def to_json(self) -> dict[str, Any]:
        """Plain values; codes as lists, pixels as base64 PNG."""
        return {
            "id": self.sample.id,
            "prompt": self.sample.prompt_text,
            "facts": dict(self.sample.facts),
            "drawings": _choice_to_json(self.drawings),
            "picture": None if self.picture is None else _to_json(self.picture),
            "answers": _choice_to_json(self.answers),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Ranked":
        """What `to_json` made.

        Raises:
            DataError: it did not make this; a clause to put behind the name of the file.
        """
        if set(row) != _KEYS:
            raise DataError(f"has {sorted(row)}, not {sorted(_KEYS)}")
        if not (isinstance(row["id"], str) and isinstance(row["prompt"], str)):
            raise DataError("has an id or a prompt that is no text")
        facts = row["facts"]
        if not isinstance(facts, dict):
            raise DataError("has facts that are no object")
        sample = Sample(row["id"], Task.TEXT_TO_IMAGE, (Text(row["prompt"]),), facts=facts)
        picture = None if row["picture"] is None else _from_json(row["picture"], Image | DrawnImage)
        answers = _choice_from_json(row["answers"], Text)
        if (picture is None) != (answers is None):
            raise DataError("has a picture without answers, or answers without a picture")
        found = cls(sample, _choice_from_json(row["drawings"], DrawnImage), picture, answers)
        if answers is not None:
            ask_about(sample, picture)  # raises where there is no question
        return found


def _choice_to_json(choice: Choice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    return {
        "win": _to_json(choice.win),
        "lose": _to_json(choice.lose),
        "win_score": choice.win_score,
        "lose_score": choice.lose_score,
    }


def _choice_from_json(found: Any, kind: type) -> Choice | None:
    if found is None:
        return None
    if not isinstance(found, dict) or set(found) != _CHOICE_KEYS:
        raise DataError(f"has a choice that is not of {sorted(_CHOICE_KEYS)}")
    scores = found["win_score"], found["lose_score"]
    if not all(map(_is_number, scores)) or not scores[0] > scores[1]:
        said = str(scores)[:80]
        raise DataError(f"has the scores {said}, of which the first has to be greater")
    return Choice(_from_json(found["win"], kind), _from_json(found["lose"], kind), *scores)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number; JSON has whole ones that no float holds, and they are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _to_json(segment: Segment) -> dict[str, Any]:
    if isinstance(segment, Text):
        return {"text": segment.text}
    if isinstance(segment, DrawnImage):
        return {"codes": segment.codes.tolist()}
    buffer = io.BytesIO()
    PillowImage.fromarray(segment.pixels).save(buffer, format="PNG")
    return {"png": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _from_json(found: Any, kind: type) -> Any:
    """A segment of that kind, or one of those kinds."""
    name, value = next(iter(found.items())) if isinstance(found, dict) and found else (None, None)
    segment: Segment | None = None
    if name == "text" and isinstance(value, str):
        segment = Text(value)
    elif name == "codes" and isinstance(value, list):
        segment = _drawn(value)
    elif name == "png" and isinstance(value, str):
        try:
            segment = Image(np.array(read_image(base64.b64decode(value, validate=True))))
        except (ImageError, binascii.Error, ValueError) as error:
            raise DataError(f"has a picture that {error}") from error
    if not isinstance(segment, kind):
        raise DataError(f"has a {name!r} where it may not stand")
    return segment


def _drawn(value: list[Any]) -> DrawnImage:
    try:
        codes = np.asarray(value)
    except ValueError as error:
        raise DataError("has codes that form no table") from error
    if codes.dtype != np.int64 or codes.ndim != 2 or not codes.size:
        raise DataError("has codes that are no table of whole numbers")
    return DrawnImage(codes)
