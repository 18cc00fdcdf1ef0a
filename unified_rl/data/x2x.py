"""Drawings, questions and pairs of them from tables with the columns of CoRL's data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL.Image import Image as Picture

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.core.sample import ANSWER, ANSWER_END, Image, Pair, Sample, Task, Text
from unified_rl.data.cells import image_of, text_of
from unified_rl.data.checked_rows import CheckedRows
from unified_rl.data.images import ImageError, check_fit, fit
from unified_rl.data.jsonl import BrokenRowError
from unified_rl.data.ordered_rows import OrderedRows
from unified_rl.data.tables import Table

COLUMNS = {
    "image": "real_image",
    "prompt": "prompt",
    "problem": "qa_problem",
    "solution": "qa_solution",
    "kind": "qa_type",
}
"""Columns of x2x_rft_22k by what they hold."""
UNITS = {
    "pair": ("image", "prompt", "problem", "solution"),
    "drawing": ("image", "prompt"),
    "question": ("image", "problem", "solution"),
}
"""What a unit is made of, its kind aside."""
TASKS = {
    "pair": (Task.TEXT_TO_IMAGE, Task.UNDERSTANDING),
    "drawing": (Task.TEXT_TO_IMAGE,),
    "question": (Task.UNDERSTANDING,),
}
"""Of the samples of a unit."""
KINDS = ("any", "choice", "open")
CHOICE_NAMES = ("mc", "mcq", "choice", "multiple choice")
"""What the kind of a question with options is called, case and hyphens aside."""


class PairSource(OrderedRows):
    """A drawing and a question about the real picture a row, or one of the two.

    A drawing has the prompt as its prompt and the real picture as its target, the reference of the
    cycle reward. A question shows the real picture and the problem; its target is the whole
    solution, its fact "answer" what is in `<answer>..</answer>` of it, or all of it. The kind is
    the fact "qa_type". Rows are drawn at random, or read in order as `reader.OrderedReader` does.
    Broken ones are passed over; see `checked_rows.CheckedRows`.

    Source: CoRL 3.2 and A.1; the columns are those that its released code reads.

    Args:
        table: where the rows are.
        unit: what is made of a row.
        columns: names of the table's columns that differ from `COLUMNS`, by what they hold: image,
            prompt, problem, solution, kind. None says that the table has no such column, which
            the kind and the picture of a drawing can do without.
        kind: of the questions: with options, without, or any.
        instruction: text put behind problems that do not contain it, on a line of its own.
        image_root: folder that image paths are relative to, or lie in where they are absolute;
            None is the table's, where absolute ones are refused.
        image_size: side in pixels of the squares that images are made; None leaves them as they
            are.
        image_fit: how the picture that a question shows is made square, as the policy's family has
            it; see `images.fit`.
        target_fit: how the real picture of a drawing is. "stretch" is what the released code does
            to both pictures before it compares them; learn from the target with "crop", as a
            stretched one teaches its proportions and a padded one its bars.
        max_text_length: most characters of a prompt or problem; a longer one breaks its row.
        max_solution_length: most characters of a solution; a longer one breaks its row.
        quarantine: file that lists broken rows; None is one beside the table.
        max_broken: share of broken rows from 0 to 1 above which the table is refused.

    Raises:
        ConfigError: a setting outside of its range, or a column that the table lacks.
        DataError: no rows, none of the kind, or too many broken ones.
    """

    def __init__(
        self,
        table: Table,
        unit: Literal["pair", "drawing", "question"] = "pair",
        columns: Mapping[str, str | None] | None = None,
        kind: Literal["any", "choice", "open"] = "any",
        instruction: str = "",
        image_root: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        target_fit: Literal["crop", "pad", "stretch"] = "stretch",
        max_text_length: int = 8192,
        max_solution_length: int = 8192,
        quarantine: str | None = None,
        max_broken: float = 0.5,
    ) -> None:
        if unit not in UNITS:
            raise ConfigError(f"unit={unit!r} is none of {', '.join(UNITS)}")
        if kind not in KINDS:
            raise ConfigError(f"kind={kind!r} is none of {', '.join(KINDS)}")
        for name, value in (
            ("image_size", image_size),
            ("max_text_length", max_text_length),
            ("max_solution_length", max_solution_length),
        ):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        check_fit(image_fit)
        check_fit(target_fit, "target_fit")
        if image_root is not None and not Path(image_root).is_dir():
            raise DataError(f"image_root={image_root} is not a folder")
        if not len(table):
            raise DataError(f"{table.path} holds no rows")
        self.path, self.image_size = Path(table.path), image_size
        self.tasks = TASKS[unit]
        self._image_fit, self._target_fit = image_fit, target_fit
        self._table, self._unit = table, unit
        self._columns = _columns(table, unit, columns or {}, kind)
        self._instruction = instruction.strip()
        self._folder = table.folder if image_root is None else Path(image_root)
        self._allow_absolute = image_root is not None
        self._max_text_length = max_text_length
        self._max_solution_length = max_solution_length
        self._name = Path(table.path).stem
        if quarantine is None and table.folder is not None:
            quarantine = f"{table.path}.quarantine.jsonl"
        self._indices = self._of_kind(kind)
        self._rows = CheckedRows(
            table.path, table.number, self._indices, self._load, quarantine, max_broken
        )

    def __len__(self) -> int:
        """Number of rows to draw from, good or broken."""
        return len(self._rows)

    def load(self, index: int) -> Sample | Pair:
        """What is made of a row of the kind, counted from 0.

        Raises:
            BrokenRowError: the row is broken.
        """
        return self._load(int(self._indices[index]))

    def place(self, index: int) -> int:
        """The number from 1 by which people find a row."""
        return self._table.number(int(self._indices[index]))

    def take(self, index: int) -> Sample | Pair | None:
        """What is made of a row of the kind; None where it is broken, which is then listed.

        Raises:
            DataError: too many rows have turned out broken.
        """
        return self._rows.take(int(self._indices[index]))

    @property
    def broken_count(self) -> int:
        """Number of rows found broken so far."""
        return self._rows.broken_count

    @property
    def broken_reasons(self) -> list[tuple[str, int]]:
        """Kinds of reasons why they are broken, with their counts; the most frequent first."""
        return self._rows.reasons.most_common()

    def draw(self, rng: np.random.Generator) -> Sample | Pair:
        """What is made of a random good row; depends on `rng` alone.

        Raises:
            DataError: too many rows have turned out broken.
        """
        return self._rows.draw(rng)

    def _of_kind(self, kind: str) -> range | np.ndarray:
        if kind == "any":
            return range(len(self._table))
        wanted, indices, seen = kind == "choice", [], set()
        for index, value in enumerate(self._table.column(self._columns["kind"])):
            if not isinstance(value, str):
                continue  # of no kind
            seen.add(value)
            if _is_choice(value) == wanted:
                indices.append(index)
        if not indices:
            found = ", ".join(repr(value[:40]) for value in sorted(seen)[:8]) or "no text at all"
            raise DataError(
                f"{self._table.path}: none of {len(self._table)} rows is of kind={kind}; "
                f"{self._columns['kind']!r} holds {found}"
            )
        return np.array(indices)

    def _load(self, index: int) -> Sample | Pair:
        row = self._table.row(index, list(self._columns.values()))
        number = self._table.number(index)
        picture = self._picture(row) if "image" in self._columns else None
        if self._unit == "drawing":
            return self._drawing(number, row, picture)
        question = self._question(number, row, picture)
        if self._unit == "question":
            return question
        return Pair(self._drawing(number, row, picture), question)

    def _drawing(self, number: int, row: Mapping[str, Any], picture: Picture | None) -> Sample:
        target = () if picture is None else (self._image(picture, self._target_fit),)
        return Sample(
            id=f"drawing/{self._name}/{number}",
            task=Task.TEXT_TO_IMAGE,
            prompt=(Text(self._text(row, "prompt")),),
            target=target,
        )

    def _question(self, number: int, row: Mapping[str, Any], picture: Picture) -> Sample:
        problem = self._text(row, "problem")
        solution = self._text(row, "solution", self._max_solution_length)
        if self._instruction not in problem:
            problem = f"{problem}\n{self._instruction}"
        facts = {"answer": answer_in(solution)}
        kind = row.get(self._columns.get("kind"))
        if isinstance(kind, str):
            facts["qa_type"] = kind
        return Sample(
            id=f"question/{self._name}/{number}",
            task=Task.UNDERSTANDING,
            prompt=(self._image(picture, self._image_fit), Text(problem)),
            target=(Text(solution),),
            facts=facts,
        )

    def _text(self, row: Mapping[str, Any], part: str, max_length: int | None = None) -> str:
        name = self._columns[part]
        return text_of(row.get(name), name, max_length or self._max_text_length)

    def _picture(self, row: Mapping[str, Any]) -> Picture:
        name = self._columns["image"]
        return image_of(row.get(name), name, self._folder, self._allow_absolute)

    def _image(self, picture: Picture, how: Literal["crop", "pad", "stretch"]) -> Image:
        if self.image_size is None:
            return Image(np.array(picture))
        try:
            return Image(fit(picture, self.image_size, how))
        except ImageError as error:
            raise BrokenRowError(f"{self._columns['image']!r} {error}") from error


def answer_in(solution: str) -> str:
    """What stands in the last `<answer>..</answer>` of a solution, or all of it without one.

    A thought may speak of the tags; the answer comes after it.

    Raises:
        BrokenRowError: the answer is empty or not closed.
    """
    _, opened, rest = solution.rpartition(ANSWER)
    if not opened:
        return solution
    answer, closed, _ = rest.partition(ANSWER_END)
    if not closed:
        raise BrokenRowError(f"opens {ANSWER} without closing it")
    if not answer.strip():
        raise BrokenRowError("has an empty answer")
    return answer.strip()


def _is_choice(kind: str) -> bool:
    return kind.strip().casefold().replace("-", " ").replace("_", " ") in CHOICE_NAMES


def _columns(table: Table, unit: str, named: Mapping[str, str | None], kind: str) -> dict[str, str]:
    """The table's columns of a unit by what they hold."""
    for part in named:
        if part not in COLUMNS:
            raise ConfigError(f"columns.{part} is not a column's part; {nearest(part, COLUMNS)}")
    columns: dict[str, str] = {}
    for part in (*UNITS[unit], "kind"):
        name = named.get(part, COLUMNS[part])
        asked_for = part in named or part != "kind" or kind != "any"
        if name is None:
            if kind != "any" if part == "kind" else (unit, part) != ("drawing", "image"):
                raise ConfigError(f"columns.{part}=null, but unit={unit} with kind={kind} needs it")
        elif name in table.columns:
            columns[part] = name
        elif asked_for:
            known = ", ".join(sorted(table.columns)[:30])
            hint = nearest(name, table.columns)
            hint = hint if known in hint else f"{hint} It has {known}"
            mend = f"set columns.{part}" + (", to null if there is none" if part == "kind" else "")
            raise ConfigError(f"{table.path} has no column {name!r} for the {part}; {hint}; {mend}")
    return columns
