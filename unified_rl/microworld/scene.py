"""Scenes: a few coloured shapes on a small white canvas."""

from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "cross")
COLORS = ("red", "green", "blue", "yellow")
RELATIONS = ("left of", "right of", "above", "below")

IMAGE_SIZE = 24
"""Height and width of the canvas, px."""
OBJECT_SIZE = 8
"""Height and width of every object's bounding box, px."""
GRID = 4
"""Objects of composed scenes lie on multiples of this, px."""
MINIMUM_GAP = 2
"""Least distance between two bounding boxes along at least one axis, px."""
RELATION_MARGIN = 3
"""Least distance of two centres along the axis of a relation, px."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One object; `x` and `y` are the left and top of its bounding box, px, y pointing down.

    Composed scenes use multiples of `GRID` in 0..16; a detected object may lie anywhere.

    Raises:
        ValueError: For a shape or colour the world does not have.
    """

    shape: str
    color: str
    x: int
    y: int

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape={self.shape!r} is not one of {SHAPES}")
        if self.color not in COLORS:
            raise ValueError(f"color={self.color!r} is not one of {COLORS}")


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects in the order in which they are drawn and spoken of."""

    objects: tuple[Placed, ...]


def inverse(kind: str) -> str:
    """The relation that b has to a when a has `kind` to b.

    Raises:
        ValueError: For an unknown relation.
    """
    if kind not in RELATIONS:
        raise ValueError(f"relation {kind!r} is not one of {RELATIONS}")
    return RELATIONS[RELATIONS.index(kind) ^ 1]


def offset_relation(dx: int, dy: int) -> str | None:
    """The relation of an object to another that lies at (-dx, -dy) px from it, if there is one.

    The dominant axis decides; an exact diagonal, or less than the margin, is no relation.
    """
    if max(abs(dx), abs(dy)) < RELATION_MARGIN or abs(dx) == abs(dy):
        return None
    if abs(dx) > abs(dy):
        return "right of" if dx > 0 else "left of"
    return "below" if dy > 0 else "above"


def relation_between(a: Placed, b: Placed) -> str | None:
    """The relation of `a` to `b`, or None where neither axis dominates."""
    return offset_relation(a.x - b.x, a.y - b.y)


def relation_holds(a: Placed, kind: str, b: Placed) -> bool:
    """Whether `a` is `kind` `b`, e.g. a "right of" b.

    Raises:
        ValueError: For an unknown relation.
    """
    if kind not in RELATIONS:
        raise ValueError(f"relation {kind!r} is not one of {RELATIONS}")
    return relation_between(a, b) == kind


def apart(dx: int, dy: int) -> bool:
    """Whether two objects at this offset keep the gap between their bounding boxes."""
    return max(abs(dx), abs(dy)) >= OBJECT_SIZE + MINIMUM_GAP
