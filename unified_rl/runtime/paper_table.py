"""A table of a paper as `experiments/<table>/paper.yaml` states it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.runtime.claims import Claim, Comparison, Pairing
from unified_rl.runtime.summary import HEADLINE

RowsAre = Literal["phases", "rungs"]
"""What a row's scores come from: phases of every run, or runs of their own of a reward ladder."""

_REQUIRED = ("title", "columns", "rows_are", "rows", "claims", "run", "runs")
_OPTIONAL = ("model", "metrics", "comparison", "labels")
_CLAIMS_OF_OLD = "joint_correctness"
"""What a claim that names no metric speaks of."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: in results.
        label: for readers.
        paper: the paper's numbers, one a column; "-" where it prints none.
        sources: by metric, the phase (or rung) that gives it; a metric that is not here is not
            part of the row.
    """

    name: str
    label: str
    paper: tuple[str, ...]
    sources: Mapping[str, str]


@dataclass(frozen=True)
class PaperTable:
    """What to lay side by side.

    Attributes:
        name: of its folder.
        title: for readers.
        model: whose numbers the paper's are.
        columns: of the paper.
        metrics: ours.
        rows_are: "phases" or "rungs".
        comparison: how differences are judged; see `claims.judge`.
        rows: in order.
        claims: of the paper.
        run: the command that makes the runs.
        runs: the folder that it leaves them in.
    """

    name: str
    title: str
    model: str
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    rows_are: RowsAre
    comparison: Pairing
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    run: str
    runs: Path

    @property
    def labels(self) -> dict[str, str]:
        """Of the rows, by name."""
        return {row.name: row.label for row in self.rows}


def read_table(folder: Path) -> PaperTable:
    """Reads `paper.yaml`.

    Beside what stands in the old tables it may have `model`; `metrics`, for stories' scores;
    `comparison: paired`; rows `{paper: [...], from: PHASE or {metric: PHASE}}`; claims `{text,
    metric, lower, higher}`, `{text, metric, row, than, expect: no_gain}`, or `{text, all: [...]}`
    of several such comparisons.

    Args:
        folder: of the table.

    Raises:
        ConfigError: there is no such table, or it names what it does not have.
    """
    path = folder / "paper.yaml"
    if not path.is_file():
        known = [other.parent.name for other in folder.parent.glob("*/paper.yaml")]
        raise ConfigError(f"table={folder.name} has no paper.yaml; {nearest(folder.name, known)}")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    _require_known(content, (*_REQUIRED, *_OPTIONAL), str(path))
    for key in _REQUIRED:
        if key not in content:
            raise ConfigError(f"{path} lacks {key}")
    pairing = _one_of(content.get("comparison", "independent"), Pairing, f"{path}: comparison")
    metrics = tuple(content.get("metrics", HEADLINE))
    labels = content.get("labels", {})
    rows = tuple(
        _row(name, entry, labels.get(name, name), content["columns"], metrics, path)
        for name, entry in content["rows"].items()
    )
    return PaperTable(
        name=folder.name,
        title=content["title"],
        model=content.get("model", "7B model"),
        columns=tuple(content["columns"]),
        metrics=metrics,
        rows_are=_one_of(content["rows_are"], RowsAre, f"{path}: rows_are"),
        comparison=pairing,
        rows=rows,
        claims=tuple(
            _claim(entry, {row.name: row for row in rows}, path) for entry in content["claims"]
        ),
        run=content["run"],
        runs=Path(content["runs"]),
    )


def _row(
    name: str, entry: Any, label: str, columns: Sequence[str], metrics: Sequence[str], path: Path
) -> Row:
    where = f"{path}: row {name!r}"
    entry = entry if isinstance(entry, dict) else {"paper": entry}
    _require_known(entry, ("paper", "from"), where)
    paper = entry.get("paper") or ["-"] * len(columns)
    if len(paper) != len(columns):
        raise ConfigError(f"{where} has {len(paper)} numbers for {len(columns)} columns")
    sources = entry.get("from", name)
    if not isinstance(sources, dict):
        sources = dict.fromkeys(metrics, sources)
    _require_known(sources, metrics, where)
    return Row(name, label, tuple(map(str, paper)), sources)


def _claim(entry: Mapping[str, Any], rows: Mapping[str, Row], path: Path) -> Claim:
    where = f"{path}: claim {entry.get('text')!r}"
    if "all" in entry:
        _require_known(entry, ("text", "all"), where)
        if not (isinstance(entry["all"], list) and entry["all"]):
            raise ConfigError(f"{where}: all must list comparisons, not {entry['all']!r}")
        return Claim(entry["text"], tuple(_comparison(e, rows, where) for e in entry["all"]))
    entry = dict(entry)
    return Claim(entry.pop("text"), (_comparison(entry, rows, where),))


def _comparison(entry: Mapping[str, Any], rows: Mapping[str, Row], where: str) -> Comparison:
    expect = entry.get("expect", "gain")
    keys = ("lower", "higher") if expect == "gain" else ("than", "row")
    _require_known(entry, ("metric", "expect", *keys), where)
    if expect not in ("gain", "no_gain") or not set(keys) <= entry.keys():
        raise ConfigError(
            f"{where}: give lower and higher, or row, than and expect: no_gain, not {dict(entry)}"
        )
    metric = entry.get("metric", _CLAIMS_OF_OLD)
    for key in keys:
        row = rows.get(entry[key])
        if row is None:
            raise ConfigError(f"{where}: no row {entry[key]!r}; {nearest(str(entry[key]), rows)}")
        if metric not in row.sources:
            hint = nearest(metric, row.sources)
            raise ConfigError(f"{where}: row {entry[key]!r} has no {metric}; {hint}")
    return Comparison(metric, entry[keys[0]], entry[keys[1]], expect)


def _one_of(value: Any, kind: Any, where: str) -> Any:
    if value not in get_args(kind):
        raise ConfigError(f"{where}={value} must be one of {', '.join(get_args(kind))}")
    return value


def _require_known(entry: Any, keys: Sequence[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must name its settings, not {entry!r}")
    for key in entry:
        if key not in keys:
            raise ConfigError(f"{where} has no {key!r}; {nearest(str(key), keys)}")
