"""Pictures of which nobody can doubt what they show, for sanity sets of judges."""

import numpy as np

from unified_rl.core.sample import Image

SIDE = 128
COLORS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 70, 220)}


def disc(color: str) -> Image:
    """A disc of one of `COLORS` on white."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = (rows - SIDE / 2) ** 2 + (columns - SIDE / 2) ** 2 < (SIDE / 3) ** 2
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[inside] = COLORS[color]
    return Image(pixels)


def noise() -> Image:
    """Nothing but noise; the same each time."""
    return Image(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
