"""Stories told as thoughts with a picture each: (THINK text VISUALISE image)+."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.core.sample import THINK, VISUALISE, Image, Segment, Text
from unified_rl.data.cells import text_of
from unified_rl.data.quarantine import BrokenRowError

SENTENCE_LENGTH = 2000
"""Characters; a longer sentence breaks its row."""
FIELDS = ("story", "first", "count")
"""What an instruction may ask to be put in: all sentences, the first one, how many there are."""

_FIELD = re.compile(r"\{(\w*)\}")


class Instruction:
    """What a policy is told to tell and show.

    Args:
        template: a text with any of the `FIELDS` in braces.

    Raises:
        ConfigError: another word in braces, or no text at all.
    """

    def __init__(self, template: str) -> None:
        if not template.strip():
            raise ConfigError("instruction is empty; write what the policy is to do")
        for name in _FIELD.findall(template):
            if name not in FIELDS:
                raise ConfigError(f"instruction asks for {{{name}}}; {nearest(name, FIELDS)}")
        self._template = template

    def text(self, sentences: Sequence[str]) -> Text:
        """The instruction for a story of one sentence or more."""
        values = {"story": " ".join(sentences), "first": sentences[0], "count": len(sentences)}
        return Text(_FIELD.sub(lambda field: str(values[field[1]]), self._template))


def telling(steps: Iterable[tuple[str, Image]]) -> tuple[Segment, ...]:
    """The target of a story: each step's sentence as a thought, and its picture behind it."""
    segments: list[Segment] = []
    for sentence, image in steps:
        segments += Text(f"{THINK} {sentence} {VISUALISE}"), image
    return tuple(segments)


def sentence_of(value: Any, name: str) -> str:
    """A text of some data as a sentence of a story: on one line and without the grammar's tags.

    Raises:
        BrokenRowError: no text, an empty, too long or damaged one, or one with a tag in it.
    """
    sentence = " ".join(text_of(value, name, SENTENCE_LENGTH).split())
    for tag in (THINK, VISUALISE):
        if tag in sentence:
            raise BrokenRowError(f"{name!r} holds {tag}")
    return sentence


def target_folder(setting: str, folder: str | None, read_target: bool) -> str | None:
    """The folder of a target's pictures; None where no target is read.

    Raises:
        ConfigError: there is none, though the target is read.
        DataError: it is not a folder.
    """
    if not read_target:
        return None
    if folder is None:
        raise ConfigError(f"{setting}=null, but read_target=true needs its pictures")
    if not Path(folder).is_dir():
        raise DataError(f"{setting}={folder} is not a folder")
    return folder
