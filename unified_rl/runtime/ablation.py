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


def render(table: Path, runs: Path | None) -> Path:
    """Writes the table's page and results.

    Args:
        table: folder with `paper.yaml`.
        runs: folder of a sweep; each job left a `summary.json`. A row of the table is a rung of a
            ladder, or a phase that every run has, as `paper.yaml` says. None: where its command
            leaves them.

    Returns:
        The page, `table / "README.md"`.

    Raises:
        ConfigError: the table or its runs are not there.
    """
    if not (table / "paper.yaml").is_file():
        known = [path.parent.name for path in table.parent.glob("*/paper.yaml")]
        raise ConfigError(f"table={table.name} has no paper.yaml; {nearest(table.name, known)}")
    paper = yaml.safe_load((table / "paper.yaml").read_text())
    runs = runs or Path(paper["runs"])
    found, origins = _gather(runs, paper)
    if not found:
        raise ConfigError(f"runs={runs} holds no finished run of {table.name}; run: {paper['run']}")
    results = {row: _spread(found[row]) for row in paper["rows"] if row in found}
    content = {"results": results, "runs": origins, "scale": "micro-world"}
    (table / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    page = table / "README.md"
    page.write_text(_page(paper, results, origins))
    return page


Scores = dict[str, dict[int, Mapping[str, Any]]]


def _gather(runs: Path, paper: Mapping[str, Any]) -> tuple[Scores, list[dict[str, Any]]]:
    """Scores by row and seed, and where each run comes from."""
    found: Scores = defaultdict(dict)
    origins = []
    for path in sorted(runs.glob("*/summary.json")):
        summary = json.loads(path.read_text())
        provenance = summary["provenance"]
        rung = provenance["config"].get("choose", {}).get("rung")
        scored = summary if paper["rows_are"] == "phases" else {rung: summary.get("grpo")}
        rows = [row for row in paper["rows"] if scored.get(row)]
        for row in rows:
            if provenance["seed"] in found[row]:
                raise ConfigError(
                    f"{path.parent}: a second run of {row!r} with seed {provenance['seed']}; "
                    "a repeat is no new seed. Move one of the two away"
                )
            found[row][provenance["seed"]] = scored[row]
        if rows:
            keys = ("seed", "commit", "config_hash", "hardware", "versions")
            origins.append({"rows": rows, **{key: provenance[key] for key in keys}})
    return {row: seeds for row, seeds in found.items() if seeds}, origins


def _spread(by_seed: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of each headline score."""
    spread: dict[str, Any] = {"seeds": sorted(by_seed)}
    for key in HEADLINE:
        values = [by_seed[seed][key]["value"] for seed in sorted(by_seed)]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        spread[key] = {"mean": statistics.mean(values), "std": deviation, "values": values}
    return spread


def _page(
    paper: Mapping[str, Any], results: Mapping[str, Any], origins: Sequence[Mapping[str, Any]]
) -> str:
    header = ["row", *(f"paper: {c}" for c in paper["columns"]), *HEADLINE, "seeds"]
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
        ours = [_cell(results[row][key]) if row in results else "-" for key in HEADLINE]
        seeds = str(len(results[row]["seeds"])) if row in results else "0"
        cells = [paper["labels"][row], *map(str, numbers), *ours, seeds]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| the paper's claim | here |", "|---|---|"]
    lines += [f"| {claim['text']} | {_verdict(claim, results)} |" for claim in paper["claims"]]
    commits = ", ".join(sorted({(origin["commit"] or "unknown")[:12] for origin in origins}))
    again = f"`{paper['run']}`, then `python -m unified_rl.reproduce`"
    lines += ["", f"Mean ± standard deviation over seeds. Run: {again}. Commit {commits}.", ""]
    return "\n".join(lines)


def _cell(score: Mapping[str, Any]) -> str:
    spread = "" if score["std"] is None else f" ± {score['std']:.3f}"
    return f"{score['mean']:.3f}{spread}"


def _verdict(claim: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """By joint correctness: a difference counts if it exceeds two standard errors of itself."""
    pair = [results.get(claim[side]) for side in ("lower", "higher")]
    if None in pair or min(len(entry["seeds"]) for entry in pair) < SEEDS_FOR_A_CLAIM:
        return f"inconclusive (fewer than {SEEDS_FOR_A_CLAIM} seeds)"
    low, high = (entry["joint_correctness"] for entry in pair)
    difference = high["mean"] - low["mean"]
    seeds = min(len(entry["seeds"]) for entry in pair)
    error = ((low["std"] ** 2 + high["std"] ** 2) / seeds) ** 0.5
    word = "reproduced" if difference > 2 * error else "not reproduced"
    if abs(difference) <= 2 * error:
        word = "inconclusive"
    return f"{word} ({difference:+.3f}, standard error {error:.3f})"
