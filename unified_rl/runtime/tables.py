"""Scores as a table in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from unified_rl.runtime.summary import HEADLINE

_MICRO = "micro_world"


def print_scores(
    evaluations: Mapping[str, Mapping[str, Any]], headline: Sequence[str] | None = None
) -> None:
    """Prints one column a checkpoint: value and 95% interval of each headline score.

    Args:
        evaluations: as written, by the checkpoint's name.
        headline: the scores to show. None: those of stories if a suite took them all, else every
            score that is no part of another.
    """
    found = list(dict.fromkeys(key for e in evaluations.values() for key in e["metrics"]))
    if headline is None:
        has_all = set(HEADLINE) <= set(found)
        headline = HEADLINE if has_all else [key for key in found if "/" not in key]
    suites = {str(evaluation.get("suite", _MICRO)) for evaluation in evaluations.values()}
    micro = all(suite.startswith(_MICRO) for suite in suites)
    what = "micro-world, held-out prompts" if micro else " and ".join(sorted(suites))
    table = Table(title=f"{what} (95% interval)", title_justify="left")
    table.add_column("score")
    for name in evaluations:
        table.add_column(name, justify="right", no_wrap=True)
    for key in headline:
        cells = [_cell(evaluation["metrics"].get(key)) for evaluation in evaluations.values()]
        table.add_row(key.replace("_", " "), *cells)
    Console().print(table)


def _cell(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "-"
    low, high = (f"{score[end]:.2f}".removeprefix("0") for end in ("low", "high"))
    return f"{score['value']:.3f} [{low} {high}]"  # three columns fit in 80 characters
