"""Learning curves of one training, as small multiples."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import numpy as np

from unified_rl.runtime.report_svg import PAINT, SERIES, STYLE, new_axes, svg_of

Curve = tuple[np.ndarray, np.ndarray]
"""Iterations and the finite values logged at them, both (n,)."""

_LINES = (("c2", "solid"), ("c3", "dashed"), ("c1", "dotted"))


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
        dull_when_constant=True,
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
        if spec.dull_when_constant and name in curves and _is_constant(curves[name][1])
    ]


def _line_panel(spec: _Spec, curves: Mapping[str, Curve]) -> Panel | None:
    """Raw values faint, a running mean over them; None where there is nothing to show."""
    among_others = len(spec.lines) > 1
    lines = [
        (Key(label, *stroke), *curves[name])
        for (label, name), stroke in zip(spec.lines, _LINES, strict=False)
        # a modality that no task of the training asks for is 0 throughout
        if name in curves and (curves[name][1].any() or not among_others)
    ]
    if not lines or (spec.dull_when_constant and all(_is_constant(y) for _, _, y in lines)):
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(6.9 if spec.wide else 3.3, 2.0, spec.unit)
        for key, x, y in lines:
            axes.plot(x, y, color=PAINT[key.color], alpha=0.45, linewidth=0.7)
            axes.plot(x, smoothed(y), color=PAINT[key.color], linestyle=key.stroke)
        axes.set_xlabel("iteration", loc="right")
        if spec.limits:
            low, high = spec.limits
            values = np.concatenate([y for _, _, y in lines])
            if low <= values.min() and values.max() <= high:
                axes.set_ylim(low - 0.03 * (high - low), high + 0.05 * (high - low))
        svg = svg_of(figure)
    keys = tuple(key for key, _, _ in lines) if among_others else ()
    return Panel(spec.title, svg, keys, spec.caption, spec.wide)


def _time_panel(curves: Mapping[str, Curve]) -> Panel | None:
    """Seconds of an iteration, stacked by what they went into."""
    parts = [(label, *curves[name]) for label, name in _TIMES if name in curves]
    if not parts or len({len(x) for _, x, _ in parts}) > 1:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = new_axes(6.9, 2.0, "seconds an iteration")
        colors = [PAINT[color] for color in SERIES[1:]]
        axes.stackplot(parts[0][1], *(smoothed(y) for _, _, y in parts), colors=colors, linewidth=0)
        axes.set_xlabel("iteration", loc="right")
        axes.set_ylim(bottom=0)
        svg = svg_of(figure)
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


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) < 1e-6)
