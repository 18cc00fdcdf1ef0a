"""Questions about a picture that depend on one another: the table of DSG-1K and DPG-Bench.

A CSV file with the columns item_id, text, proposition_id, dependency (numbers, 0 for none),
category_broad, tuple and question_natural_language, a row a question.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unified_rl.core.errors import DataError
from unified_rl.data.jsonl import existing_file

COLUMNS = (
    "item_id",
    "text",
    "proposition_id",
    "dependency",
    "tuple",
    "question_natural_language",
)
FILE_BYTES = 256 * 2**20
_MOST = 10_000
"""Questions of one prompt."""


@dataclass
class QuestionGraph:
    """The questions about pictures of one prompt.

    Attributes:
        text: the prompt.
        questions: by number, in the order of the file.
        parents: numbers of the questions that one depends on; empty for none.
        categories: of each question, "attribute - color" as the part of its tuple before "(".
        unclear: whether a dependency of this prompt names something else than numbers.
    """

    text: str
    questions: dict[int, str] = field(default_factory=dict)
    parents: dict[int, tuple[int, ...]] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    unclear: bool = False

    @property
    def lost_parents(self) -> set[int]:
        """Numbers that questions depend on and that no question has."""
        return {p for parents in self.parents.values() for p in parents} - self.questions.keys()


def read_graphs(path: str | Path, skip_first_row: bool = False) -> dict[str, QuestionGraph]:
    """The graphs of a file by the id of their prompt, in order.

    Rows of a prompt stand side by side; where its id turns up again later, what stands there takes
    the place of what stood before, as in DPG-Bench's loader.

    Args:
        path: of the table.
        skip_first_row: whether the first question is left out.

    Raises:
        DataError: no such file, another table, or a broken row.
    """
    path = Path(path)
    if existing_file(path).stat().st_size > FILE_BYTES:
        raise DataError(f"{path} is over {FILE_BYTES} bytes; give the benchmark's own table")
    graphs: dict[str, QuestionGraph] = {}
    last = None
    for number, row in enumerate(_rows(path)):
        if number == 0 and skip_first_row:
            continue
        where = f"{path} row {number + 1}"
        item = row["item_id"]
        if item != last:
            graphs[item] = QuestionGraph(row["text"])
        _add(graphs[item], row, where)
        last = item
    if not graphs:
        raise DataError(f"{path} holds no questions")
    return graphs


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the columns {', '.join(missing)}")
            for number, row in enumerate(reader, start=1):
                if any(not isinstance(row[name], str) for name in COLUMNS):
                    raise DataError(f"{path} row {number} has too few cells")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {str(error)[:100]}") from error


def _add(graph: QuestionGraph, row: Mapping[str, str], where: str) -> None:
    question = row["question_natural_language"].strip()
    number = _number(row["proposition_id"])
    if number is None or not question:
        raise DataError(f"{where} lacks a number under proposition_id, or its question")
    if len(graph.questions) >= _MOST:
        raise DataError(f"{where}: {row['item_id'][:40]!r} has over {_MOST} questions")
    parents = [_number(part) for part in row["dependency"].split(",")]
    graph.unclear |= None in parents
    graph.questions[number] = question
    graph.parents[number] = tuple(parent for parent in parents if parent)
    graph.categories[number] = row["tuple"].split("(")[0].strip()


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
