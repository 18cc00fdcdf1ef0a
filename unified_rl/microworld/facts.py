"""What a prompt requires of an image, and random scenes that satisfy it exactly."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unified_rl.microworld.scene import (
    COLORS,
    GRID,
    IMAGE_SIZE,
    OBJECT_SIZE,
    RELATIONS,
    SHAPES,
    Placed,
    Scene,
    apart,
    inverse,
    offset_relation,
)


@dataclass(frozen=True, slots=True)
class Item:
    """`count` objects of one kind; None leaves an attribute free, for each object by itself."""

    shape: str | None
    color: str | None
    count: int = 1

    def __post_init__(self) -> None:
        if self.shape is not None and self.shape not in SHAPES:
            raise ValueError(f"shape={self.shape!r} is not one of {SHAPES} or None")
        if self.color is not None and self.color not in COLORS:
            raise ValueError(f"color={self.color!r} is not one of {COLORS} or None")
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1:
            raise ValueError(f"count={self.count!r} is not a positive integer")


@dataclass(frozen=True, slots=True)
class Relation:
    """Item `subject` is `kind` item `object`; both are indices into `Facts.items`."""

    subject: int
    kind: str
    object: int

    def __post_init__(self) -> None:
        if self.kind not in RELATIONS:
            raise ValueError(f"relation kind={self.kind!r} is not one of {RELATIONS}")


@dataclass(frozen=True, slots=True)
class Facts:
    """Exactly these objects, nothing else, with these relations.

    Raises:
        ValueError: If a relation points at no item, or at one item twice.
    """

    items: tuple[Item, ...]
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        for relation in self.relations:
            for index in (relation.subject, relation.object):
                if not isinstance(index, int) or not 0 <= index < len(self.items):
                    raise ValueError(f"{relation} points outside of {len(self.items)} items")
            if relation.subject == relation.object:
                raise ValueError(f"{relation} relates an item to itself")

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts; `from_json` is the inverse."""
        return {
            "items": [asdict(item) for item in self.items],
            "relations": [asdict(relation) for relation in self.relations],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Facts":
        """Reads what `to_json` wrote.

        Raises:
            ValueError: Naming the value that is not facts.
        """
        try:
            items = tuple(Item(**item) for item in value["items"])
            relations = tuple(Relation(**relation) for relation in value.get("relations", ()))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not facts: {value!r} ({error})") from error
        return cls(items, relations)

    def key(self) -> str:
        """The same string for the same requirement, however it is ordered or phrased.

        "a circle right of a square" and "a square left of a circle" share their key.
        """
        names = [f"{item.count} {item.color} {item.shape}" for item in self.items]
        relations = []
        for relation in self.relations:
            subject, kind, other = names[relation.subject], relation.kind, names[relation.object]
            if RELATIONS.index(kind) % 2:
                subject, kind, other = other, inverse(kind), subject
            relations.append(f"{subject} {kind} {other}")
        return "; ".join(sorted(names) + sorted(relations))


def compose(facts: Facts, rng: np.random.Generator, keep: Scene | None = None) -> Scene:
    """A random scene that satisfies the facts exactly; objects follow the order of the items.

    Positions come from a randomised but complete search, so it fails only for impossible facts.

    Args:
        facts: What the scene must show.
        rng: Source of the free attributes and of the positions.
        keep: Objects that stay where they are: they are the first instances of the items.

    Raises:
        ValueError: If a kept object contradicts its item, or no arrangement exists.
    """
    owners = [index for index, item in enumerate(facts.items) for _ in range(item.count)]
    kept = keep.objects if keep is not None else ()
    if len(kept) > len(owners):
        raise ValueError(f"{len(kept)} kept objects are more than the {len(owners)} required")
    for placed, owner in zip(kept, owners, strict=False):
        item = facts.items[owner]
        if item.shape not in (None, placed.shape) or item.color not in (None, placed.color):
            raise ValueError(f"kept {placed} contradicts {item}")
    positions = [(placed.x, placed.y) for placed in kept]
    if not all(_fits(positions[:n], positions[n], owners, facts) for n in range(len(kept))):
        raise ValueError(f"kept objects {kept} contradict {facts.relations} or overlap")
    if not _place(positions, owners, facts, rng):
        raise ValueError(f"no arrangement of {len(owners)} objects satisfies {facts} with {kept}")
    objects = list(kept)
    for owner, (x, y) in list(zip(owners, positions, strict=True))[len(kept) :]:
        item = facts.items[owner]
        shape = item.shape or SHAPES[rng.integers(len(SHAPES))]
        color = item.color or COLORS[rng.integers(len(COLORS))]
        objects.append(Placed(shape, color, x, y))
    return Scene(tuple(objects))


def _place(
    positions: list[tuple[int, int]], owners: list[int], facts: Facts, rng: np.random.Generator
) -> bool:
    """Extends `positions` until every object has one; leaves it as it was when none exists."""
    if len(positions) == len(owners):
        return True
    side = (IMAGE_SIZE - OBJECT_SIZE) // GRID + 1
    for cell in rng.permutation(side * side).tolist():
        position = (cell % side * GRID, cell // side * GRID)
        if _fits(positions, position, owners, facts):
            positions.append(position)
            if _place(positions, owners, facts, rng):
                return True
            positions.pop()
    return False


def _fits(
    positions: list[tuple[int, int]], position: tuple[int, int], owners: list[int], facts: Facts
) -> bool:
    """Whether the next object may lie at `position` beside those placed already."""
    x, y = position
    if not all(apart(x - other_x, y - other_y) for other_x, other_y in positions):
        return False
    owner = owners[len(positions)]
    for relation in facts.relations:
        if owner not in (relation.subject, relation.object):
            continue
        is_subject = owner == relation.subject
        partner = relation.object if is_subject else relation.subject
        kind = relation.kind if is_subject else inverse(relation.kind)
        for other, (other_x, other_y) in zip(owners, positions, strict=False):
            if other == partner and offset_relation(x - other_x, y - other_y) != kind:
                return False
    return True
