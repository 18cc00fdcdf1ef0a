"""WISE's prompts: JSON lists with Prompt, Explanation and prompt_id."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unified_rl.core.errors import DataError
from unified_rl.data.jsonl import existing_file
from unified_rl.data.nesting import nested_too_deep

CATEGORIES = {
    "culture": range(1, 401),
    "time": range(401, 568),
    "space": range(568, 701),
    "biology": range(701, 801),
    "physics": range(801, 901),
    "chemistry": range(901, 1001),
}
"""Ids of each category's prompts."""
PROMPT_COUNT = 1000
FILE_BYTES = 64 * 2**20
_TEXT = 10_000


class WisePrompt(NamedTuple):
    """A prompt and what a picture of it must show.

    Attributes:
        id: from 1 to 1000; it tells the category.
        text: as the policy is asked.
        explanation: for the judge.
    """

    id: int
    text: str
    explanation: str


def read_wise(paths: Sequence[str]) -> list[WisePrompt]:
    """The prompts of some files, by their ids.

    Raises:
        DataError: a file that is missing or no such list, an id that is none or stands twice.
    """
    prompts: dict[int, WisePrompt] = {}
    for path in map(Path, paths):
        for number, row in enumerate(_rows(path), start=1):
            prompt = _prompt(row, f"{path} entry {number}")
            if prompt.id in prompts:
                raise DataError(f"{path} entry {number} has prompt_id {prompt.id} a second time")
            prompts[prompt.id] = prompt
    if not prompts:
        raise DataError("prompts names no files with prompts; give WISE_legacy's three JSON files")
    return [prompts[number] for number in sorted(prompts)]


def category_of(number: int) -> str:
    """The category of a prompt's id, from 1 to 1000."""
    return next(name for name, ids in CATEGORIES.items() if number in ids)


def _rows(path: Path) -> list[object]:
    if existing_file(path).stat().st_size > FILE_BYTES:
        raise DataError(f"{path} is over {FILE_BYTES} bytes; give WISE's own file")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {str(error)[:80]}") from error
    if not isinstance(rows, list) or any(map(nested_too_deep, rows)):
        raise DataError(f"{path} is no list of prompts; give WISE's own file")
    return rows


def _prompt(row: object, where: str) -> WisePrompt:
    if not isinstance(row, dict):
        raise DataError(f"{where} is no object")
    number, text, explanation = (row.get(k) for k in ("prompt_id", "Prompt", "Explanation"))
    if type(number) is not int or not 1 <= number <= PROMPT_COUNT:
        raise DataError(f"{where} has prompt_id {str(number)[:20]}, not 1 to {PROMPT_COUNT}")
    for name, value in (("Prompt", text), ("Explanation", explanation)):
        if not isinstance(value, str) or not value.strip() or len(value) > _TEXT:
            raise DataError(f"{where} has no {name!r} of 1 to {_TEXT} characters")
    return WisePrompt(number, text, explanation)
