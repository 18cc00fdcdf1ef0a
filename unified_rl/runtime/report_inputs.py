"""What a pipeline left in its folder, as far as it is there."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unified_rl.runtime.report_figures import Curve
from unified_rl.runtime.report_svg import SERIES
from unified_rl.runtime.summary import HEADLINE

_LABELS = {"base": "base", "warmup": "warm-up", "grpo": "+ GRPO"}


@dataclass(frozen=True)
class Phase:
    """What is known of one phase; whatever was not written is empty.

    Attributes:
        name: key in `summary.json`, and name of the folder.
        label: for readers.
        color: name of the page's colour.
        scores: `value`, `low`, `high` and `n` by metric.
        evaluation: `evaluation.json`.
        gallery: `gallery.json`.
        result: `result.json`.
        curves: by logged metric.
        wall_s: seconds by activity.
    """

    name: str
    label: str
    color: str
    scores: Mapping[str, Mapping[str, float]]
    evaluation: Mapping[str, Any]
    gallery: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]
    curves: Mapping[str, Curve]
    wall_s: Mapping[str, float]

    @property
    def title(self) -> str:
        """The label where it stands alone."""
        return self.label.removeprefix("+ ")


def read_phase(
    root: Path,
    name: str,
    number: int,
    record: Mapping[str, Any],
    headline: Sequence[str] = HEADLINE,
) -> Phase:
    """Reads the folder of a phase.

    Args:
        root: folder of the pipeline.
        name: of the phase.
        number: its place in the pipeline, from 0.
        record: its part of `summary.json`.
        headline: names of the scores in that part.
    """
    folder = root / name
    evaluation = read_json(folder / "evaluation.json") or {}
    known = {key: record[key] for key in headline if key in record}
    return Phase(
        name=name,
        label=_LABELS.get(name, name),
        color=SERIES[number % len(SERIES)],
        scores={**known, **evaluation.get("metrics", {})},
        evaluation=evaluation,
        gallery=read_json(folder / "gallery.json") or [],
        result=read_json(folder / "result.json") or {},
        curves=read_curves(folder / "metrics" / "metrics.csv"),
        wall_s=record.get("wall_s", {}),
    )


def measured(phases: Sequence[Phase], names: Sequence[str]) -> list[str]:
    """Those of the metrics that some phase has."""
    return [name for name in names if any(name in phase.scores for phase in phases)]


def parts(phases: Sequence[Phase], parent: str) -> list[str]:
    """Metrics `parent/...`, in the order in which they were written."""
    found = {name: None for p in phases for name in p.scores if name.startswith(f"{parent}/")}
    return list(found)


def read_curves(path: Path) -> dict[str, Curve]:
    """Logged metrics over iterations; cells that are empty or not finite numbers are left out.

    Rows of the same step belong together; a later value replaces an earlier one. The abscissa is
    the column `iteration` where there is one, else `step`.
    """
    if not path.is_file():
        return {}
    steps: dict[float, dict[str, float]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cells = {
                key: number for key, cell in row.items() if (number := _number(cell)) is not None
            }
            if "step" in cells:
                steps[cells["step"]] |= cells
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for step, cells in sorted(steps.items()):
        at = cells.get("iteration", step)
        for name in cells.keys() - {"step", "iteration", "epoch"}:
            points[name].append((at, cells[name]))
    return {
        name: (np.array([x for x, _ in pairs]), np.array([y for _, y in pairs]))
        for name, pairs in sorted(points.items())
    }


def read_json(path: Path) -> Any:
    """Content of a JSON file, None if it is missing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def lookup(tree: Any, path: str) -> Any:
    """The value at a path such as "stage.group_size", None if there is none."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
