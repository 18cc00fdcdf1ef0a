"""What papers print for benchmarks: `published_numbers.yaml`."""

from dataclasses import dataclass
from pathlib import Path

import yaml

_FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class PublishedTable:
    """One table of one paper for one benchmark.

    Attributes:
        suite: whose results it stands beside.
        title: of the benchmark.
        source: paper and table.
        note: what a reader must know of how the paper measured; "" for nothing.
        scale: our numbers times this are in the paper's unit.
        columns: our metrics by the names of the columns.
        rows: numbers by model, one a column; None where the paper prints none.
    """

    suite: str
    title: str
    source: str
    note: str
    scale: float
    columns: dict[str, str]
    rows: dict[str, tuple[float | None, ...]]


def published_tables() -> tuple[PublishedTable, ...]:
    """All of them, in the order of the file."""
    entries = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return tuple(
        PublishedTable(
            suite=entry["suite"],
            title=entry["title"],
            source=entry["source"],
            note=entry.get("note", ""),
            scale=float(entry.get("scale", 1)),
            columns=dict(entry["columns"]),
            rows={name: tuple(values) for name, values in entry["rows"].items()},
        )
        for entry in entries
    )
