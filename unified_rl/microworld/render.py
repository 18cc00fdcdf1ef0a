"""Pixels of a scene."""

import functools
from types import MappingProxyType

import numpy as np

from unified_rl.microworld.scene import IMAGE_SIZE, OBJECT_SIZE, Scene

GROUND = (255, 255, 255)
"""RGB of the empty canvas."""

PALETTE = MappingProxyType(
    {
        "red": (220, 30, 30),
        "green": (30, 170, 50),
        "blue": (40, 70, 220),
        "yellow": (240, 200, 20),
    }
)
"""RGB of each colour, 0..255."""

# The circle is a ring: a disc would overlap the square by an IoU of .81.
_TEMPLATES = MappingProxyType(
    {
        "circle": "..####.. .######. ##....## ##....## ##....## ##....## .######. ..####..",
        "square": "######## ######## ######## ######## ######## ######## ######## ########",
        "triangle": "...##... ...##... ..####.. ..####.. ..####.. .######. .######. ########",
        "cross": "...##... ...##... ...##... ######## ######## ...##... ...##... ...##...",
    }
)


@functools.cache
def shape_mask(shape: str) -> np.ndarray:
    """Read-only bool (8, 8) template that fills its bounding box.

    Raises:
        ValueError: For an unknown shape.
    """
    if shape not in _TEMPLATES:
        raise ValueError(f"shape={shape!r} is not one of {tuple(_TEMPLATES)}")
    mask = np.array([[cell == "#" for cell in row] for row in _TEMPLATES[shape].split()])
    mask.setflags(write=False)
    return mask


def render(scene: Scene) -> np.ndarray:
    """Draws the scene as uint8 (24, 24, 3) on a white ground.

    Raises:
        ValueError: If an object leaves the canvas.
    """
    image = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), GROUND, dtype=np.uint8)
    for placed in scene.objects:
        if not (
            0 <= placed.x <= IMAGE_SIZE - OBJECT_SIZE and 0 <= placed.y <= IMAGE_SIZE - OBJECT_SIZE
        ):
            raise ValueError(f"{placed} leaves the {IMAGE_SIZE} px canvas")
        rows = slice(placed.y, placed.y + OBJECT_SIZE)
        columns = slice(placed.x, placed.x + OBJECT_SIZE)
        image[rows, columns][shape_mask(placed.shape)] = PALETTE[placed.color]
    return image
