"""Files of results side by side, and beside what papers print."""

import json
import math
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unified_rl.core.errors import DataError
from unified_rl.core.printable import printable
from unified_rl.runtime.published_numbers import PublishedTable, published_tables

FILE_BYTES = 64 * 2**20
NAME = "evaluation.json"
_MICRO = "micro_world"
_MICRO_NOTE = "micro-world: not comparable with any paper's numbers"
_INSTRUMENTS = ("scorer", "verifier", "answerer", "judge", "clip")
_KNOWN_BY = ("model", "checkpoint", "detector", "judge", "answerer", "scorer", "file")


@dataclass(frozen=True)
class Result:
    """A file of results.

    Attributes:
        name: for readers.
        suite: that measured.
        metrics: value, low and high by name.
        notes: what readers must know of all its numbers.
    """

    name: str
    suite: str
    metrics: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows to print; the first cell of each is its name, marks of notes behind it.

    Attributes:
        title: what is compared.
        header: names of the columns, the first that of the rows.
        rows: cells as text.
        notes: by mark, and those without one under "".
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[tuple[str, str], ...]


def read_result(argument: str) -> Result:
    """The results of a file, of the folder that holds it, or of either with a name before it.

    Args:
        argument: "PATH" or "NAME=PATH".

    Raises:
        DataError: no such file, or none of results.
    """
    name, _, rest = argument.partition("=")
    path = Path(argument) if not rest or Path(argument).exists() else Path(rest)
    given = name if path == Path(rest) and rest else ""
    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        raise DataError(f"{path} does not exist; give an {NAME} or the folder that holds one")
    if path.stat().st_size > FILE_BYTES:
        raise DataError(f"{path} is over {FILE_BYTES} bytes and no file of results")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        metrics = {
            clean(key): {end: float(value[end]) for end in ("value", "low", "high")}
            for key, value in content["metrics"].items()
        }
        suite, labels = str(content["suite"]), dict(content.get("labels", {}))
        settings = dict(content.get("settings", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is no file of results ({type(error).__name__})") from error
    if not all(math.isfinite(value) for ends in metrics.values() for value in ends.values()):
        raise DataError(f"{path} holds numbers that are not finite")
    shown = given or path.parent.name or str(path)
    return Result(clean(shown), clean(suite), metrics, tuple(_notes(suite, labels, settings)))


def tables(results: Sequence[Result]) -> list[Table]:
    """Every paper's table that has numbers for these, else one of their own a suite."""
    made = []
    for suite in dict.fromkeys(result.suite for result in results):
        ours = [result for result in results if result.suite == suite]
        published = [table for table in published_tables() if table.suite == suite]
        made += [_beside(table, ours) for table in published] or [_alone(suite, ours)]
    return made


def markdown(table: Table) -> str:
    """The table for a page."""
    rows = [table.header, ["---"] + ["---:"] * (len(table.header) - 1), *table.rows]
    cells = ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    notes = [f"{_marked(mark)}{_escaped(text)}" for mark, text in table.notes]
    return "\n".join([f"**{_escaped(table.title)}**", "", *cells, "", *(f"- {n}" for n in notes)])


def clean(text: str) -> str:
    """One line of printable characters, at most 200."""
    return " ".join(printable(text[:1000]).split())[:200]


def _beside(table: PublishedTable, results: Sequence[Result]) -> Table:
    printed = [value for values in table.rows.values() for value in values if value is not None]
    digits = max(len(repr(value).partition(".")[2]) for value in printed)
    rows = [
        (name, *("-" if value is None else f"{value:.{digits}f}" for value in values))
        for name, values in table.rows.items()
    ]
    marks, notes = _marks(results)
    for result in results:
        cells = (_cell(result.metrics.get(key), table.scale) for key in table.columns.values())
        rows.append((f"ours: {result.name}{marks[result.name, result.notes]}", *cells))
    general = [("", table.note)] if table.note else []
    return Table(
        title=f"{table.title} beside {table.source}",
        header=("model", *table.columns),
        rows=tuple(rows),
        notes=(*general, *notes),
    )


def _alone(suite: str, results: Sequence[Result]) -> Table:
    found = dict.fromkeys(key for result in results for key in result.metrics if "/" not in key)
    marks, notes = _marks(results)
    rows = [
        (
            f"{result.name}{marks[result.name, result.notes]}",
            *(_cell(result.metrics.get(key), 1) for key in found),
        )
        for result in results
    ]
    header = ("results", *(key.replace("_", " ") for key in found))
    return Table(suite.replace("_", " "), header, tuple(rows), tuple(notes))


def _marks(
    results: Sequence[Result],
) -> tuple[dict[tuple[str, tuple[str, ...]], str], list[tuple[str, str]]]:
    """Marks behind each result's name, and what they stand for: a letter a note."""
    letters: dict[str, str] = {}
    marks = {}
    for result in results:
        for note in result.notes:
            letters.setdefault(note, _letter(len(letters)))
        own = ",".join(letters[note] for note in result.notes)
        marks[result.name, result.notes] = f" ({own})" if own else ""
    return marks, [(letter, note) for note, letter in letters.items()]


def _letter(index: int) -> str:
    alphabet = string.ascii_lowercase
    return alphabet[index] if index < len(alphabet) else f"n{index}"


def _notes(suite: str, labels: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """What differs from the published protocol, and by what the numbers were measured."""
    if suite.startswith(_MICRO):
        yield _MICRO_NOTE
        return
    for key, label in labels.items():
        if key == suite:
            yield clean(str(label))
    for key in _INSTRUMENTS:
        if settings.get(key):
            yield clean(f"{key}: {_name(settings[key])}")
    drawing = settings.get("drawing")
    if isinstance(drawing, Mapping) and isinstance(drawing.get("behaviour"), Mapping):
        behaviour = drawing["behaviour"]
        parts = [f"guidance {behaviour.get('guidance_scale')}"]
        parts += [f"image steps {behaviour.get('image_step_count')}"]
        yield clean(f"drawn with {', '.join(parts)}, seed {drawing.get('seed')}")


def _name(described: Any) -> str:
    """What a scorer, answerer or judge calls itself."""
    if not isinstance(described, Mapping):
        return str(described)
    for key in ("detector", "judge"):
        if isinstance(described.get(key), Mapping):
            return _name(described[key])
    known = [str(described[key]) for key in _KNOWN_BY if isinstance(described.get(key), str)]
    return ", ".join(dict.fromkeys(known)) or "unnamed"


def _cell(metric: Mapping[str, float] | None, scale: float) -> str:
    if metric is None:
        return "-"
    value, low, high = (metric[end] * scale for end in ("value", "low", "high"))
    digits = 3 if max(abs(value), abs(high)) <= 1.5 else 2
    return f"{value:.{digits}f} [{low:.{digits}f} {high:.{digits}f}]"


def _marked(mark: str) -> str:
    return f"({mark}) " if mark else ""


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~&$!])", r"\\\1", text)
