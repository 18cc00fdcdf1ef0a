"""An ablation's runs, gathered over seeds and laid beside the paper's numbers."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.claims import judge, sentence
from unified_rl.runtime.paper_table import PaperTable, Row, read_table


def render(folder: Path, runs: Path | None) -> Path:
    """Writes the table's page and results.

    Args:
        folder: of the table, with `paper.yaml`; see `paper_table.read_table`.
        runs: folder of a sweep; each job left a `summary.json`. None: where the table's command
            leaves them.

    Returns:
        The page, `folder / "README.md"`.

    Raises:
        ConfigError: the table or its runs are not there, or a run lacks what the table shows.
    """
    table = read_table(folder)
    runs = runs or table.runs
    found, origins = _gather(runs, table)
    results = {row.name: _spread(row, found) for row in table.rows}
    results = {name: spread for name, spread in results.items() if spread["seeds"]}
    if not results:
        raise ConfigError(f"runs={runs} holds no finished run of {table.name}; run: {table.run}")
    content = {"results": results, "runs": origins, "scale": "micro-world"}
    (folder / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    page = folder / "README.md"
    page.write_text(_page(table, results, origins))
    return page


Scores = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""By phase or rung, then by seed: scores of one evaluation."""


def _gather(runs: Path, table: PaperTable) -> tuple[Scores, list[dict[str, Any]]]:
    """All scores that the table draws on, and where each run comes from."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for row in table.rows:
        for metric, source in row.sources.items():
            wanted[source].add(metric)
    found: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    origins = []
    for path in sorted(runs.glob("*/summary.json")):
        summary = json.loads(path.read_text())
        provenance = summary["provenance"]
        seed = provenance["seed"]
        rung = provenance["config"].get("choose", {}).get("rung")
        scored = summary if table.rows_are == "phases" else {rung: summary.get("grpo")}
        held = set()
        for source, metrics in wanted.items():
            scores = scored.get(source) or {}
            if not metrics & scores.keys():  # not run, or trained for others' sake only
                continue
            if lacking := metrics - scores.keys():
                raise ConfigError(
                    f"{path}: {source} has no {min(lacking)}; name it in pipeline.headline"
                )
            if seed in found[source]:
                raise ConfigError(
                    f"{path.parent}: a second run of {source!r} with seed {seed}; a repeat is no "
                    "new seed. Move one of the two away"
                )
            found[source][seed] = scores
            held.add(source)
        if held:
            rows = [row.name for row in table.rows if held & set(row.sources.values())]
            keys = ("seed", "commit", "config_hash", "hardware", "versions")
            origins.append({"rows": rows, **{key: provenance[key] for key in keys}})
    return found, origins


def _spread(row: Row, found: Scores) -> dict[str, Any]:
    """Mean and standard deviation of each score, over the seeds for which the row is complete."""
    by_source = [set(found.get(source, {})) for source in row.sources.values()]
    seeds = sorted(set.intersection(*by_source))
    spread: dict[str, Any] = {"seeds": seeds}
    for metric, source in row.sources.items() if seeds else ():
        scores = [found[source][seed][metric] for seed in seeds]
        values = [score["value"] for score in scores]
        spread[metric] = {
            "mean": statistics.mean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "values": values,
            "n": min(score["n"] for score in scores),
        }
    return spread


def _page(
    table: PaperTable, results: Mapping[str, Any], origins: Sequence[Mapping[str, Any]]
) -> str:
    header = ["row", *(f"paper: {c}" for c in table.columns), *table.metrics, "seeds"]
    lines = [
        f"# {table.title}",
        "",
        f"Left the paper's numbers ({table.model}, its benchmarks), right ours on the micro-world: "
        "two\ndifferent scales, to be compared in their order only.",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in header) + " |",
        "|" + "---|" * len(header),
    ]
    for row in table.rows:
        spread = results.get(row.name, {"seeds": []})
        ours = [_cell(row, spread, metric) for metric in table.metrics]
        lines.append(
            "| " + " | ".join([row.label, *row.paper, *ours, str(len(spread["seeds"]))]) + " |"
        )
    lines += ["", "| the paper's claim | here |", "|---|---|"]
    for claim in table.claims:
        verdicts = [judge(c, results, table.comparison) for c in claim.comparisons]
        lines.append(f"| {claim.text} | {sentence(claim, verdicts, table.labels)} |")
    commits = ", ".join(sorted({(origin["commit"] or "unknown")[:12] for origin in origins}))
    again = f"`{table.run}`, then `python -m unified_rl.reproduce table={table.name}`"
    paired = " Differences are taken seed by seed." if table.comparison == "paired" else ""
    lines += [
        "",
        f"Mean ± standard deviation over seeds.{paired} Run: {again}. Commit {commits}.",
        "",
    ]
    return "\n".join(lines)


def _cell(row: Row, spread: Mapping[str, Any], metric: str) -> str:
    if metric not in row.sources:
        return "/"
    if not spread["seeds"]:
        return "-"
    score = spread[metric]
    deviation = "" if score["std"] is None else f" ± {score['std']:.3f}"
    return f"{score['mean']:.3f}{deviation}"
