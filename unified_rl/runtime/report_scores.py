"""Figures of the scores of phases: grouped bars, or dots beside each other."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unified_rl.runtime.report_svg import PAINT, SERIES, STYLE, new_axes, svg_of


def score_chart(
    scores: Sequence[str], phases: Mapping[str, Sequence[tuple[float, float, float] | None]]
) -> str:
    """Grouped bars with 95% whiskers.

    Args:
        scores: names of the groups of bars.
        phases: by name (value, low, high) of each score in per cent, None where not measured.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(12, 3.3, "per cent; whiskers: 95% interval")
        width = 0.8 / max(1, len(phases))
        for number, triples in enumerate(phases.values()):
            offset = (number - (len(phases) - 1) / 2) * width
            for group, triple in enumerate(triples):
                if triple is None:
                    continue
                value, low, high = triple
                at, color = group + offset, PAINT[SERIES[number % len(SERIES)]]
                axes.bar(at, value, width * 0.9, color=color)
                axes.vlines(at, low, high, color=PAINT["ink"], linewidth=1)
                axes.hlines((low, high), at - 0.03, at + 0.03, color=PAINT["ink"], linewidth=1)
                axes.text(at, high + 2, f"{value:.1f}", ha="center", fontsize=8.5)
        axes.set_xticks(range(len(scores)), scores, fontsize=9.5, color=PAINT["ink"])
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.5, len(scores) - 0.5)
        axes.set_ylim(0, 110)
        axes.set_yticks(range(0, 101, 20))
        return svg_of(figure)


class Dot(NamedTuple):
    """A score to plot, in per cent.

    Attributes:
        value, low, high: of the estimate and its 95% interval.
        verdict: "up", "down" or "same", against what the phase started from.
    """

    value: float
    low: float
    high: float
    verdict: str


_MARKERS = {"up": ("^", "good"), "down": ("v", "bad"), "same": ("o", "c2")}


def score_dots(
    scores: Sequence[str], phases: Sequence[tuple[str, int, Sequence[Dot | None]]]
) -> str:
    """Dots with 95% intervals: a row for each phase, a column of its own scale for each score.

    A dashed line goes down from the first phase, which has the first row.

    Args:
        scores: names of the columns.
        phases: name, depth in the tree of phases, and a dot for each score, None where not
            measured.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "both"}):
        titles = [textwrap.fill(score, max(12, 96 // len(scores))) for score in scores]
        lines = max(title.count("\n") for title in titles)
        height = 0.8 + 0.27 * len(phases) + 0.16 * lines
        figure = Figure((12, height), layout="constrained")
        columns = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
        for number, (axes, title) in enumerate(zip(columns, titles, strict=True)):
            axes.set_title(title, fontsize=9.5, color=PAINT["ink"], parse_math=False)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(axis="x", labelsize=8.5)
            axes.spines["left"].set_visible(False)
            for row, (_, _, dots) in enumerate(phases):
                if dots[number] is None:
                    continue
                value, low, high, verdict = dots[number]
                marker, color = _MARKERS[verdict]
                axes.hlines(row, low, high, color=PAINT[color], linewidth=1.6)
                axes.plot(value, row, marker, color=PAINT[color], markersize=5)
                if row == 0:
                    axes.axvline(value, color=PAINT["muted"], linewidth=0.8, linestyle="dashed")
        labels = ["\u00a0\u00a0\u00a0" * depth + name for name, depth, _ in phases]
        columns[0].set_yticks(
            range(len(phases)),
            labels,
            ha="left",
            fontsize=9.5,
            color=PAINT["ink"],
            parse_math=False,
        )
        # Labels begin at the left, so that the tree shows; their room is what the longest takes.
        columns[0].tick_params(axis="y", pad=6.2 * max(map(len, labels), default=0))
        columns[0].set_ylim(len(phases) - 0.4, -0.6)
        return svg_of(figure)
