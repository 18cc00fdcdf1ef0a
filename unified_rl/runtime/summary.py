"""One JSON file with the numbers of a pipeline's phases."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unified_rl.core.durable import write_text
from unified_rl.runtime.provenance import provenance

HEADLINE = (
    "format_validity",
    "text_relevance",
    "visual_correctness",
    "joint_correctness",
    "generation_accuracy",
    "understanding_accuracy",
)
"""The scores that summary and table show unless a pipeline names others; `evaluation.json` has all
of them."""


def write_summary(
    root: Path,
    records: Mapping[str, Mapping[str, Any]],
    config: Mapping[str, Any],
    headline: Sequence[str] = HEADLINE,
) -> Path:
    """Writes `summary.json`: headline scores with intervals and wall seconds of each phase.

    Args:
        root: folder of the pipeline.
        records: by phase; with `evaluation` (as written), `train_s`, `evaluate_s` where they apply.
        config: the composed configuration.
        headline: the scores to write, as far as a phase has them.
    """
    summary: dict[str, Any] = {}
    for name, record in records.items():
        scores = record.get("evaluation", {}).get("metrics", {})
        summary[name] = {key: scores[key] for key in headline if key in scores}
        summary[name]["wall_s"] = _wall_seconds(root / name, record)
        summary[name]["checkpoint"] = str(record["checkpoint"]) if record["checkpoint"] else None
    summary["scale"] = "micro-world; not comparable with the papers' numbers"
    summary["provenance"] = provenance(config, config["seed"])
    path = root / "summary.json"
    write_text(path, json.dumps(summary, indent=2) + "\n")
    return path


def _wall_seconds(folder: Path, record: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of training and evaluation; a phase that was skipped reports what it took before."""
    seconds = {key: round(record[key], 1) for key in ("train_s", "evaluate_s") if key in record}
    result = folder / "result.json"
    if "train_s" in seconds and result.is_file():
        seconds["train_s"] = json.loads(result.read_text())["wall_s"]
    return seconds
