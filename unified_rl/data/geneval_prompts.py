"""GenEval's prompts, and UniRL's with a question and an answer each, from a copy of one's own."""

from array import array
from collections.abc import Mapping
from typing import Any

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.cells import text_of
from unified_rl.data.jsonl import LINE_BYTES, existing_file, numbered_lines, parse_row
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.prompting.categories import category_named

TEXT_LENGTH = 2048


class GenevalPrompts(DatasetAdapter):
    """Prompts to draw with what must be seen; in UniRL's file a question and its answer too.

    One JSON object a line: "tag", "include" (a list of {"class", "count", ..}), "prompt", and in
    places "exclude", "question" and "answer". All of them are facts, and so is "category", our
    name of the tag. These are benchmarks: measure with them, and train on data=unirl_prompts.

    Source: prompts/evaluation_metadata.jsonl of GenEval (arXiv 2310.11513) and
    validation_prompts/evaluation_metadata_qa.jsonl of UniRL's released code.

    Args:
        path: of the file.
        quarantine: file that lists broken rows; None puts `.quarantine.jsonl` behind `path`.
        max_broken: share of broken rows from 0 to 1 above which the file is refused.

    Raises:
        DataError: no such file, or too many broken rows.
    """

    def __init__(self, path: str, quarantine: str | None = None, max_broken: float = 0.5) -> None:
        super().__init__(path, quarantine=quarantine, max_broken=max_broken)
        existing_file(self.path)
        self._offsets, self._lines = array("Q"), array("Q")
        with self.path.open("rb") as file:
            for number, offset, _ in numbered_lines(file):
                self._offsets.append(offset)
                self._lines.append(number)
        self._check_rows()

    def __len__(self) -> int:
        """Number of lines but blank ones."""
        return len(self._offsets)

    def place(self, index: int) -> int:
        """The number of its line, from 1."""
        return self._lines[index]

    def load(self, index: int) -> Sample:
        """A prompt to draw.

        Raises:
            BrokenRowError: not in GenEval's form.
        """
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            row = parse_row(file.readline(LINE_BYTES + 1))
        prompt = text_of(row.get("prompt"), "prompt", TEXT_LENGTH)
        return Sample(
            id=f"{self.path.stem}/{self._lines[index]}",
            task=Task.TEXT_TO_IMAGE,
            prompt=(Text(prompt),),
            facts=_facts(row),
        )


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    tag = text_of(row.get("tag"), "tag", TEXT_LENGTH)
    try:
        facts: dict[str, Any] = {"category": category_named(tag), "tag": tag}
    except ConfigError as error:
        raise BrokenRowError(f"has a tag of no category: {error}") from error
    for key in ("include", "exclude"):
        if key in row or key == "include":
            facts[key] = _things(row.get(key), key)
    for key in ("question", "answer"):
        if key in row:
            facts[key] = text_of(row[key], key, TEXT_LENGTH)
    return facts


def _things(things: Any, key: str) -> list[dict[str, Any]]:
    if not isinstance(things, list) or not (things or key == "exclude"):
        raise BrokenRowError(f"{key!r} is not a list of things")
    for thing in things:
        if not isinstance(thing, dict) or not isinstance(thing.get("class"), str):
            raise BrokenRowError(f"{key!r} has a thing without a class")
        if not isinstance(thing.get("count"), int) or thing["count"] < 1:
            raise BrokenRowError(f"{key!r} has a {thing['class'][:40]!r} without a count")
    return things
