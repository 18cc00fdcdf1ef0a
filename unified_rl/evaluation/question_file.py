"""Questions of a benchmark, read from its JSON file within bounds; broken rows are set aside."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unified_rl.core.errors import DataError
from unified_rl.core.sample import Task
from unified_rl.data.images import ImageError, check_header, path_inside
from unified_rl.data.jsonl import BrokenRowError, existing_file
from unified_rl.data.nesting import NESTING, nested_too_deep
from unified_rl.data.requests import Request

FILE_BYTES = 512 * 2**20
"""A larger file is refused unread."""
TEXT_LENGTH = 20_000
"""Characters of a question; a row with a longer one is set aside."""


@dataclass(frozen=True, eq=False)
class Question:
    """One row of a benchmark.

    Attributes:
        request: what the policy is asked.
        kind: the class of task that the benchmark counts it under.
        reference: texts, and files of images, of the right answer; empty where there is none.
        row: as it stands in the file.
    """

    request: Request
    kind: str
    reference: tuple[str | Path, ...]
    row: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Unique in the file."""
        return self.request.id


class SetAside(NamedTuple):
    """A row that is not asked: its place from 1, its id where it has one, and why."""

    place: int
    id: str | None
    reason: str


def read_questions(
    path: Path, parse: Callable[[dict[str, Any], int], Question], count: int = 0
) -> tuple[list[Question], list[SetAside]]:
    """The questions of a file that is one JSON list, and its broken rows.

    Args:
        path: of the file.
        parse: makes a question of a row and its place from 1; raises BrokenRowError.
        count: of rows, spread evenly over the file, that are read; 0 reads all.

    Raises:
        DataError: no such file, one that is too large or no list, or no good row in it.
    """
    rows = read_list(path)
    places = range(len(rows))
    if 0 < count < len(rows):
        places = [index * len(rows) // count for index in range(count)]
    questions: dict[str, Question] = {}
    broken: list[SetAside] = []
    for place in places:
        try:
            question = _question(rows[place], place + 1, parse)
            if question.id in questions:
                raise BrokenRowError(f"id {question.id[:100]!r} is there twice")
            questions[question.id] = question
        except BrokenRowError as error:
            broken.append(SetAside(place + 1, _id_of(rows[place]), str(error)))
    if not questions:
        why = f"; row {broken[0].place}: {broken[0].reason}" if broken else ""
        raise DataError(f"{path} holds no question that can be asked{why}")
    return list(questions.values()), broken


def read_list(path: Path) -> list[Any]:
    """A file that is one JSON list.

    Raises:
        DataError: no such file, or one that is too large or no list.
    """
    size = existing_file(path).stat().st_size
    if size > FILE_BYTES:
        raise DataError(f"{path} of {size} bytes is over {FILE_BYTES}; split it")
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path} is not a JSON list")
    return rows


def interleaved(number: int, row_id: str, prompt: Sequence[str | Path]) -> Request:
    """A prompt that is answered in text and images.

    Raises:
        BrokenRowError: a prompt without words or with too many.
    """
    words = [part for part in prompt if isinstance(part, str)]
    if not "".join(words).strip():
        raise BrokenRowError("has a question without words")
    if sum(map(len, words)) > TEXT_LENGTH:
        raise BrokenRowError(f"has a question of over {TEXT_LENGTH} characters")
    return Request(number, row_id, number, Task.INTERLEAVED, tuple(prompt))


def image_inside(root: Path, name: Any) -> Path:
    """A good image file that a row names.

    Raises:
        BrokenRowError: it is not in the folder, or no image within bounds.
    """
    if not isinstance(name, str):
        raise BrokenRowError(f"has an image {str(name)[:100]!r} that is no path")
    try:
        path = path_inside(root, name)
        check_header(path)
    except ImageError as error:
        raise BrokenRowError(f"shows image {name[:200]!r}, which {error}") from error
    return path


def _question(row: Any, place: int, parse: Callable[[dict[str, Any], int], Question]) -> Question:
    if not isinstance(row, dict):
        raise BrokenRowError("is not a JSON object")
    if nested_too_deep(row):
        raise BrokenRowError(f"is nested deeper than {NESTING} lists and objects")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BrokenRowError(f"holds text that is not Unicode: {error.reason}") from error
    return parse(row, place)


def _id_of(row: Any) -> str | None:
    row_id = row.get("id") if isinstance(row, dict) else None
    return row_id[:200] if isinstance(row_id, str) else None


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
