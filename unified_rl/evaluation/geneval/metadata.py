"""GenEval's prompts with what each picture must show: `evaluation_metadata.jsonl`.

One JSON object a line: `tag`, one of six tasks; `prompt`; `include`, clauses that must all hold,
each with `class`, `count` and perhaps `color` or `position` (a relation, and the index of the
earlier clause whose objects it relates to); `exclude`, clauses of which none may hold.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unified_rl.core.errors import DataError, nearest
from unified_rl.data.jsonl import BrokenRowError, existing_file, numbered_lines, parse_row
from unified_rl.prompting.categories import GENEVAL_TAGS
from unified_rl.prompting.everyday import COCO, COLORS

TAGS = tuple(GENEVAL_TAGS.values())
"""The six tasks, by GenEval's own names."""
PROMPT_COUNT = 553
"""Prompts of the published file."""
CLASSES = COCO
"""COCO's 80 classes in the order of the detector's indices, under GenEval's names."""
RELATIONS = ("left of", "right of", "above", "below")
_MOST = 100
"""Clauses, or objects of a clause, that a row may have."""
_TEXT = 2000


class Clause(NamedTuple):
    """Objects of one class that a picture must show, or must not.

    Attributes:
        name: of the class.
        count: of objects; at least so many, of an excluded class fewer.
        color: that so many of them must have; None for any.
        relation: in which each of them must stand to each object of `target`; None for none.
        target: index of an earlier clause.
    """

    name: str
    count: int
    color: str | None = None
    relation: str | None = None
    target: int | None = None


class Request(NamedTuple):
    """What a picture is asked to show.

    Attributes:
        tag: of the task.
        prompt: as the policy is asked.
        include: clauses that must all hold.
        exclude: clauses none of which may hold.
        row: as it stands in the file, for GenEval's own tool.
    """

    tag: str
    prompt: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...]
    row: Mapping[str, Any]


def read_metadata(path: str | Path) -> list[Request]:
    """The prompts of a file, in order.

    Raises:
        DataError: no such file, no prompts, or a broken row.
    """
    path = Path(path)
    requests = []
    with existing_file(path).open("rb") as file:
        for number, _, line in numbered_lines(file):
            try:
                requests.append(request_of(parse_row(line)))
            except BrokenRowError as error:
                raise DataError(f"{path} line {number} {error}") from error
    if not requests:
        raise DataError(f"{path} holds no prompts; give GenEval's evaluation_metadata.jsonl")
    return requests


def request_of(row: Mapping[str, Any]) -> Request:
    """One row, checked.

    Raises:
        BrokenRowError: what it says cannot be judged.
    """
    tag, prompt = row.get("tag"), row.get("prompt")
    if tag not in TAGS:
        raise BrokenRowError(f"has the tag {str(tag)[:40]!r}; {nearest(str(tag)[:40], TAGS)}")
    if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > _TEXT:
        raise BrokenRowError(f"has no 'prompt' of 1 to {_TEXT} characters")
    include = _clauses(row, "include")
    exclude = _clauses(row, "exclude")
    if not include and not exclude:
        raise BrokenRowError("has neither 'include' nor 'exclude', so nothing can be judged")
    return Request(tag, prompt, include, exclude, row)


def request_row(request: Request) -> str:
    """The row as GenEval's own tool reads it, in one line."""
    return json.dumps(dict(request.row))


def digest(requests: list[Request]) -> str:
    """16 hexadecimal digits that stand for the prompts and what they ask for."""
    rows = json.dumps([request.row for request in requests], sort_keys=True)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _clauses(row: Mapping[str, Any], key: str) -> tuple[Clause, ...]:
    entries = row.get(key, [])
    if not isinstance(entries, list) or len(entries) > _MOST:
        raise BrokenRowError(f"{key!r} is no list of at most {_MOST} clauses")
    return tuple(_clause(entry, f"{key}[{i}]", i) for i, entry in enumerate(entries))


def _clause(entry: Any, where: str, index: int) -> Clause:
    if not isinstance(entry, dict):
        raise BrokenRowError(f"{where} is no object")
    name, count, color = entry.get("class"), entry.get("count"), entry.get("color")
    if name not in CLASSES:
        raise BrokenRowError(f"{where} has the class {str(name)[:40]!r}, none of COCO's 80")
    if type(count) is not int or not 1 <= count <= _MOST:
        raise BrokenRowError(f"{where} has the count {str(count)[:20]}, not 1 to {_MOST}")
    if color is not None and color not in COLORS:
        raise BrokenRowError(f"{where} has the color {str(color)[:20]!r}, none of {len(COLORS)}")
    if "position" not in entry:
        return Clause(name, count, color)
    position = entry["position"]
    if not (isinstance(position, list) and len(position) == 2 and position[0] in RELATIONS):
        raise BrokenRowError(
            f"{where} has the position {str(position)[:40]}, not [relation, index]"
        )
    if type(position[1]) is not int or not 0 <= position[1] < index:
        raise BrokenRowError(f"{where} relates to clause {str(position[1])[:20]}, no earlier one")
    return Clause(name, count, color, position[0], position[1])
