"""Figures as inline SVG whose colours are the page's own, in light and dark."""

import io
import re

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SERIES = ("c0", "c1", "c2", "c3")
"""Names of the page's series colours; later series begin again."""
# Colours that nobody would choose, each replaced by the page's variable of that name.
_NAMES = ("ink", "muted", "grid", *SERIES, "good", "bad")
PAINT = {name: f"#0a0b{code:02x}" for code, name in enumerate(_NAMES)}
"""The page's colours by name, to draw with."""
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, crisp, selectable
    "svg.hashsalt": "unified-rl",
    "font.size": 8,
    "font.family": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": PAINT["muted"],
    "axes.linewidth": 0.6,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": PAINT["muted"],
    "axes.labelcolor": PAINT["muted"],
    "axes.labelsize": 7.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": PAINT["grid"],
    "grid.linewidth": 0.6,
    "text.color": PAINT["ink"],
    "xtick.color": PAINT["muted"],
    "ytick.color": PAINT["muted"],
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "lines.linewidth": 1.5,
}
"""Matplotlib's settings, for `rc_context` around whatever draws and writes a figure."""


def new_axes(width: float, height: float, unit: str) -> tuple[Figure, Axes]:
    """An empty figure of this size, in inches, with a unit where others have a title."""
    figure = Figure((width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(unit)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.01)
    return figure, axes


def svg_of(figure: Figure) -> str:
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
    for name, color in PAINT.items():
        text = text.replace(color, f"var(--{name})")
    return text.replace("<svg", '<svg aria-hidden="true"', 1)
