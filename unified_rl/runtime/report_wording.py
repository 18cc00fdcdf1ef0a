"""How the report says names, durations and differences."""

from collections.abc import Mapping
from typing import Any

_SPELLINGS = {
    "interleavedbench_like": "InterleavedBench-like",
    "mmie_like": "MMIE-like",
    "text_image": "text-image",
}


def change(
    new: Mapping[str, float] | None, old: Mapping[str, float] | None
) -> dict[str, Any] | None:
    """Difference of two scores in points, and whether their intervals lie apart."""
    if new is None or old is None:
        return None
    verdict = "same"
    if new["low"] > old["high"]:
        verdict = "up"
    elif new["high"] < old["low"]:
        verdict = "down"
    relative = new["value"] / old["value"] - 1 if old["value"] > 0 else None
    return {"points": 100 * (new["value"] - old["value"]), "relative": relative, "verdict": verdict}


def spoken_name(metric: str) -> str:
    """A metric for readers: visual_correctness/step_1 is "visual correctness, step 1"."""
    for name, spelling in _SPELLINGS.items():
        metric = metric.replace(name, spelling)
    return metric.replace("/", ", ").replace("_", " ")


def duration(seconds: float) -> str:
    """45 s, 3 min 05 s, 2 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
