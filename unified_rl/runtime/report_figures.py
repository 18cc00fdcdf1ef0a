"""Figures of the report: inline SVG whose colours are the page's own, in light and dark."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Curve = tuple[np.ndarray, np.ndarray]
"""Iterations and the finite values logged at them, both (n,)."""

SERIES = ("c0", "c1", "c2", "c3")
"""Names of the page's series colours; later series begin again."""
# Colours that nobody would choose, each replaced by the page's variable of that name.
_PAINT = {name: f"#0a0b{code:02x}" for code, name in enumerate(("ink", "muted", "grid", *SERIES))}
_LINES = (("c2", "solid"), ("c3", "dashed"), ("c1", "dotted"))
_STYLE = {
    "svg.fonttype": "none",  # text stays text: small, crisp, selectable
    "svg.hashsalt": "unified-rl",
    "font.size": 8,
    "font.family": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _PAINT["muted"],
    "axes.linewidth": 0.6,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": _PAINT["muted"],
    "axes.labelcolor": _PAINT["muted"],
    "axes.labelsize": 7.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _PAINT["grid"],
    "grid.linewidth": 0.6,
    "text.color": _PAINT["ink"],
    "xtick.color": _PAINT["muted"],
    "ytick.color": _PAINT["muted"],
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Key:
    """One entry of a legend.

    Attributes:
        label: what it stands for.
        color: one of `SERIES`.
        stroke: "solid", "dashed" or "dotted" for a line, "area" for an area.
    """

    label: str
    color: str
    stroke: str


@dataclass(frozen=True)
class Panel:
    """One small plot with what a reader needs beside it.

    Attributes:
        title: what is plotted.
        svg: the plot; safe to put into a page.
        keys: legend; empty for a single line.
        caption: what one should see.
        wide: whether it deserves two columns.
    """

    title: str
    svg: str
    keys: tuple[Key, ...]
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class _Spec:
    """What a panel plots: labels and names of logged metrics."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    caption: str
    wide: bool = False
    limits: tuple[float, float] | None = None
    dull_when_constant: bool = False


_BEFORE_REWARDS = (
    _Spec(
        "Loss by modality",
        "nats a token",
        (("text", "text_nll"), ("image", "image_nll")),
        "Negative log-likelihood of the gold answers. Both should fall, text lower than image: a "
        "picture can be drawn in many right ways.",
        wide=True,
    ),
    _Spec(
        "Total reward",
        "mean over the rollout",
        (("reward", "reward"),),
        "Weighted sum of the components. It should rise and level off.",
        wide=True,
    ),
)
_AFTER_REWARDS = (
    _Spec(
        "KL to the reference",
        "nats",
        (("KL", "kl"),),
        "Distance from the frozen start of the stage. It should grow slowly and stay bounded.",
    ),
    _Spec(
        "Entropy by modality",
        "nats a token",
        (("text", "text_entropy"), ("image", "image_entropy")),
        "Mean surprise of the sampled tokens. A sudden fall would be collapse.",
    ),
    _Spec(
        "Groups without a signal",
        "share of groups",
        (("groups", "frac_reward_zero_std"),),
        "Groups whose completions all got the same reward; they teach nothing. Near 1, learning "
        "stops.",
        limits=(0, 1),
    ),
    _Spec(
        "Importance ratio",
        "mean",
        (("ratio", "ratio_mean"),),
        "New over behaviour probability of the sampled tokens. It should stay near 1.",
        dull_when_constant=True,
    ),
    _Spec(
        "Clipped ratios",
        "share of tokens",
        (("clipped", "clip_fraction"),),
        "Tokens that the trust region stops. A few per cent are healthy.",
        dull_when_constant=True,
    ),
    _Spec(
        "Gradient norm",
        "before clipping",
        (("norm", "gradient_norm"),),
        "Spikes are cut at the clip, if one is set; a steady rise would announce divergence.",
    ),
)
_TIMES = (("rollout", "rollout_s"), ("reward", "reward_s"), ("update", "update_s"))


def panels(curves: Mapping[str, Curve], weights: Mapping[str, float]) -> list[Panel]:
    """Small multiples of whatever of the known metrics was logged.

    Args:
        curves: by metric.
        weights: of reward components, where the configuration names them.
    """
    logged = [key.removesuffix("_share") for key in curves if key.endswith("_share")]
    components = [
        _Spec(
            f"Reward: {name}",
            "mean over the rollout",
            ((name, name),),
            "Weight 0: a held-out judge, never trained on; it shows side effects."
            if weights.get(name) == 0
            else f"Weight {weights[name]:g} in the total."
            if name in weights
            else "",
            limits=(0, 1),
        )
        for name in sorted(logged, key=lambda name: [*weights, name].index(name))
    ]
    found = [_line_panel(s, curves) for s in (*_BEFORE_REWARDS, *components, *_AFTER_REWARDS)]
    found.append(_time_panel(curves))
    return [panel for panel in found if panel is not None]


def constants(curves: Mapping[str, Curve]) -> list[str]:
    """Sentences on metrics that get no panel because they never move."""
    return [
        f"{spec.title} ({spec.unit}): {curves[name][1][0]:.4g} throughout."
        for spec in _AFTER_REWARDS
        for _, name in spec.lines
        if spec.dull_when_constant and name in curves and _is_constant(curves[name])
    ]


def score_chart(
    scores: Sequence[str], phases: Mapping[str, Sequence[tuple[float, float, float] | None]]
) -> str:
    """Grouped bars with 95% whiskers.

    Args:
        scores: names of the groups of bars.
        phases: by name (value, low, high) of each score in per cent, None where not measured.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(12, 3.3, "per cent; whiskers: 95% interval")
        width = 0.8 / max(1, len(phases))
        for number, triples in enumerate(phases.values()):
            offset = (number - (len(phases) - 1) / 2) * width
            for group, triple in enumerate(triples):
                if triple is None:
                    continue
                value, low, high = triple
                at, color = group + offset, _PAINT[SERIES[number % len(SERIES)]]
                axes.bar(at, value, width * 0.9, color=color)
                axes.vlines(at, low, high, color=_PAINT["ink"], linewidth=1)
                axes.hlines((low, high), at - 0.03, at + 0.03, color=_PAINT["ink"], linewidth=1)
                axes.text(at, high + 2, f"{value:.1f}", ha="center", fontsize=8.5)
        axes.set_xticks(range(len(scores)), scores, fontsize=9.5, color=_PAINT["ink"])
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.5, len(scores) - 0.5)
        axes.set_ylim(0, 110)
        axes.set_yticks(range(0, 101, 20))
        return _svg(figure)


def _line_panel(spec: _Spec, curves: Mapping[str, Curve]) -> Panel | None:
    """Raw values faint, a running mean over them; None where there is nothing to show."""
    lines = [(label, curves[name]) for label, name in spec.lines if name in curves]
    if not lines or (spec.dull_when_constant and all(_is_constant(curve) for _, curve in lines)):
        return None
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(6.9 if spec.wide else 3.3, 2.0, spec.unit)
        for (_, (x, y)), (color, stroke) in zip(lines, _LINES, strict=False):
            axes.plot(x, y, color=_PAINT[color], alpha=0.45, linewidth=0.7)
            axes.plot(x, smoothed(y), color=_PAINT[color], linestyle=stroke)
        axes.set_xlabel("iteration", loc="right")
        if spec.limits:
            low, high = spec.limits
            values = np.concatenate([y for _, (_, y) in lines])
            if low <= values.min() and values.max() <= high:
                axes.set_ylim(low - 0.03 * (high - low), high + 0.05 * (high - low))
        svg = _svg(figure)
    keys = tuple(Key(label, *line) for (label, _), line in zip(lines, _LINES, strict=False))
    return Panel(spec.title, svg, keys if len(keys) > 1 else (), spec.caption, spec.wide)


def _time_panel(curves: Mapping[str, Curve]) -> Panel | None:
    """Seconds of an iteration, stacked by what they went into."""
    parts = [(label, *curves[name]) for label, name in _TIMES if name in curves]
    if not parts or len({len(x) for _, x, _ in parts}) > 1:
        return None
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(6.9, 2.0, "seconds an iteration")
        colors = [_PAINT[color] for color in SERIES[1:]]
        axes.stackplot(parts[0][1], *(smoothed(y) for _, _, y in parts), colors=colors, linewidth=0)
        axes.set_xlabel("iteration", loc="right")
        axes.set_ylim(bottom=0)
        svg = _svg(figure)
    whole = sum(y.sum() for _, _, y in parts) or 1.0
    keys = tuple(
        Key(f"{label} {y.sum() / whole:.0%}", color, "area")
        for (label, _, y), color in zip(parts, SERIES[1:], strict=False)
    )
    caption = "Running mean, stacked from bottom to top in this order."
    return Panel("Time of an iteration", svg, keys, caption, wide=True)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred running mean over a twelfth of the run; at both ends over what there is of it."""
    half = len(values) // 24
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, beyond = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (sums[beyond] - sums[first]) / (beyond - first)


def _is_constant(curve: Curve) -> bool:
    return bool(np.ptp(curve[1]) < 1e-6)


def _axes(width: float, height: float, unit: str) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(unit)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.01)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an element of a page, without ids that would clash there."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # HTML knows them
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # would apply to all figures
    for name, color in _PAINT.items():
        text = text.replace(color, f"var(--{name})")
    return text.replace("<svg", '<svg aria-hidden="true"', 1)
