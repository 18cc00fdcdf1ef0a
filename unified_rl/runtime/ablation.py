"""An ablation's runs, gathered over seeds and laid beside the paper's numbers."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.runtime.summary import HEADLINE

SEEDS_FOR_A_CLAIM = 3


def render(table: Path, runs: Path) -> Path:
    """Writes the table's page and results.

    Args:
        table: folder with `paper.yaml`.
        runs: folder of a sweep; each job left a `summary.json` with the phase `grpo`.

    Returns:
        The page, `table / "README.md"`.

    Raises:
        ConfigError: the table or its runs are not there.
    """
    if not (table / "paper.yaml").is_file():
        known = [path.parent.name for path in table.parent.glob("*/paper.yaml")]
        raise ConfigError(f"table={table.name} has no paper.yaml; {nearest(table.name, known)}")
    paper = yaml.safe_load((table / "paper.yaml").read_text())
    found = _gather(runs, paper["rows"])
    if not found:
        raise ConfigError(f"runs={runs} holds no finished run of {table.name}; run: {paper['run']}")
    results = {row: _spread(found[row]) for row in paper["rows"] if row in found}
    provenance = next(iter(found.values()))[0]["provenance"]
    content = {"results": results, "provenance": provenance, "scale": "micro-world"}
    (table / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    page = table / "README.md"
    page.write_text(_page(paper, results, provenance))
    return page


def _gather(runs: Path, rows: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Summaries by row; the row is the rung that a job's own configuration names."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(runs.glob("*/summary.json")):
        summary = json.loads(path.read_text())
        row = summary["provenance"]["config"].get("choose", {}).get("rung")
        if row in rows and "grpo" in summary:
            found[row].append(summary)
    return found


def _spread(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of each headline score."""
    spread: dict[str, Any] = {"seeds": len(summaries)}
    for key in HEADLINE:
        values = [summary["grpo"][key]["value"] for summary in summaries]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        spread[key] = {"mean": statistics.mean(values), "std": deviation, "values": values}
    return spread


def _page(
    paper: Mapping[str, Any], results: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str:
    header = ["row", *(f"paper: {c}" for c in paper["columns"]), *HEADLINE[:4], "seeds"]
    lines = [
        f"# {paper['title']}",
        "",
        "Left the paper's numbers (7B model, its benchmarks), right ours on the micro-world: two",
        "different scales, to be compared in their order only.",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in header) + " |",
        "|" + "---|" * len(header),
    ]
    for row, numbers in paper["rows"].items():
        ours = [_cell(results[row][key]) if row in results else "-" for key in HEADLINE[:4]]
        seeds = str(results[row]["seeds"]) if row in results else "0"
        cells = [paper["labels"][row], *map(str, numbers), *ours, seeds]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| the paper's claim | here |", "|---|---|"]
    lines += [f"| {claim['text']} | {_verdict(claim, results)} |" for claim in paper["claims"]]
    commit = (provenance["commit"] or "unknown")[:12]
    lines += [
        "",
        f"Run: `{paper['run']}`, then `python -m unified_rl.reproduce`. Commit {commit}.",
        "",
    ]
    return "\n".join(lines)


def _cell(score: Mapping[str, Any]) -> str:
    spread = "" if score["std"] is None else f" ± {score['std']:.3f}"
    return f"{score['mean']:.3f}{spread}"


def _verdict(claim: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """By joint correctness: a difference counts if it exceeds two standard errors of itself."""
    pair = [results.get(claim[side]) for side in ("lower", "higher")]
    if None in pair or min(entry["seeds"] for entry in pair) < SEEDS_FOR_A_CLAIM:
        return f"inconclusive (fewer than {SEEDS_FOR_A_CLAIM} seeds)"
    low, high = (entry["joint_correctness"] for entry in pair)
    difference = high["mean"] - low["mean"]
    seeds = min(entry["seeds"] for entry in pair)
    error = ((low["std"] ** 2 + high["std"] ** 2) / seeds) ** 0.5
    word = "reproduced" if difference > 2 * error else "not reproduced"
    if abs(difference) <= 2 * error:
        word = "inconclusive"
    return f"{word} ({difference:+.3f}, standard error {error:.3f})"
