"""Reads the objects of an image from its pixels and checks them against facts."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from unified_rl.microworld.facts import Facts
from unified_rl.microworld.render import GROUND, PALETTE, shape_mask
from unified_rl.microworld.scene import (
    COLORS,
    IMAGE_SIZE,
    OBJECT_SIZE,
    SHAPES,
    Placed,
    relation_holds,
)

FOREGROUND_DISTANCE = 120.0
"""Least RGB distance of a foreground pixel to the ground."""
COLOR_DISTANCE = 90.0
"""Greatest RGB distance of a pixel to the mixtures of a palette colour with the ground."""
MINIMUM_AREA = 10
"""Components of fewer pixels are noise."""
MINIMUM_PURITY = 0.6
"""Least share of a component's pixels that have its colour."""
MINIMUM_IOU = 0.6
"""Least overlap of a component with the template of its shape."""
SIZE_SLACK = 3
"""A component's bounding box may differ from the object size by this much, px."""

Assignment = tuple[tuple[Placed, ...], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`correct` is strict; `score` in [0, 1] is the fraction of the required facts that hold."""

    correct: bool
    score: float
    detected: tuple[Placed, ...]


def detect(image: np.ndarray) -> tuple[Placed, ...]:
    """The recognisable objects of a uint8 (24, 24, 3) image, top to bottom.

    Raises:
        ValueError: For any other shape or type.
    """
    return _read(image)[0]


def verify(image: np.ndarray, facts: Facts) -> Verdict:
    """Checks an image against facts, with the best assignment of its objects to the items.

    The facts that are counted: for each item its presence (an object of its shape), its colour
    (where required, of all its objects), its count (where above 1); each relation, between all
    objects of the two items; and that nothing else is there. The last one needs at least one
    present item, so an empty image scores 0. An unrecognisable blob is something else.

    Raises:
        ValueError: If the image is not uint8 (24, 24, 3).
    """
    detected, blob_count = _read(image)
    score = max(
        _score(facts, assignment, len(detected) + blob_count)
        for assignment in _assignments(facts, detected, 0)
    )
    return Verdict(score == 1.0, score, detected)


@functools.cache
def _constants() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Palette minus ground (4, 3), templates (64, 4) and their areas (4,)."""
    rays = np.array([PALETTE[color] for color in COLORS], np.float32) - np.float32(GROUND)
    templates = np.stack([shape_mask(shape).ravel() for shape in SHAPES], 1).astype(np.float32)
    return rays, templates, templates.sum(0)


def _read(image: np.ndarray) -> tuple[tuple[Placed, ...], int]:
    """The recognised objects and the number of blobs that are none."""
    if not isinstance(image, np.ndarray) or image.shape != (IMAGE_SIZE, IMAGE_SIZE, 3):
        shape = getattr(image, "shape", type(image).__name__)
        raise ValueError(f"image of shape {shape} is not ({IMAGE_SIZE}, {IMAGE_SIZE}, 3)")
    if image.dtype != np.uint8:
        raise ValueError(f"image of shape {image.shape} has dtype {image.dtype}, not uint8")
    ink = image.astype(np.float32) - np.float32(GROUND)
    foreground = np.einsum("hwc,hwc->hw", ink, ink) > FOREGROUND_DISTANCE**2
    labels, count = ndimage.label(foreground, structure=np.ones((3, 3), np.int8))
    if count == 0:
        return (), 0
    histogram = _color_histogram(ink[foreground], labels[foreground], count)
    objects: list[Placed] = []
    blob_count = 0
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        area = int(histogram[label].sum())
        if area < MINIMUM_AREA:
            continue
        color = int(histogram[label, :-1].argmax())
        found = _match(labels, label, box, area)
        if found is None or histogram[label, color] < MINIMUM_PURITY * area:
            blob_count += 1
        else:
            shape, x, y = found
            objects.append(Placed(shape, COLORS[color], x, y))
    return tuple(objects), blob_count


def _color_histogram(ink: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Pixels of each colour in each component, (count + 1, 5); the last column is no colour.

    A blurred edge lies between its colour and the ground, so the distance is to that segment.
    """
    rays, _, _ = _constants()
    share = np.clip(ink @ rays.T / (rays * rays).sum(1), 0.0, 1.0)  # (n, 4)
    rest = ink[:, None, :] - share[:, :, None] * rays  # (n, 4, 3)
    distance = np.einsum("nkc,nkc->nk", rest, rest)
    nearest = distance.argmin(1)
    nearest[distance.min(1) > COLOR_DISTANCE**2] = len(COLORS)
    bins = len(COLORS) + 1
    flat = np.bincount(labels * bins + nearest, minlength=(count + 1) * bins)
    return flat.reshape(count + 1, bins)


def _match(
    labels: np.ndarray, label: int, box: tuple[slice, slice], area: int
) -> tuple[str, int, int] | None:
    """Shape, x and y of the template that overlaps the component best, within 1 px of its box."""
    rows, columns = box
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if max(abs(height - OBJECT_SIZE), abs(width - OBJECT_SIZE)) > SIZE_SLACK:
        return None
    top = (rows.start + rows.stop - OBJECT_SIZE) // 2 - 1
    left = (columns.start + columns.stop - OBJECT_SIZE) // 2 - 1
    # Two steps further than the rounded centre: odd boxes lie half a pixel off.
    span = OBJECT_SIZE + 3
    window = np.zeros((span, span), np.float32)
    y0, x0 = max(top, 0), max(left, 0)
    part = labels[y0 : top + span, x0 : left + span] == label
    window[y0 - top : y0 - top + part.shape[0], x0 - left : x0 - left + part.shape[1]] = part
    views = np.lib.stride_tricks.sliding_window_view(window, (OBJECT_SIZE, OBJECT_SIZE))
    _, templates, areas = _constants()
    overlap = views.reshape(-1, OBJECT_SIZE * OBJECT_SIZE) @ templates  # (16, 4)
    iou = overlap / (area + areas - overlap)
    best = int(iou.argmax())
    if iou.flat[best] < MINIMUM_IOU:
        return None
    shift, shape = divmod(best, len(SHAPES))
    return SHAPES[shape], left + shift % views.shape[1], top + shift // views.shape[1]


def _assignments(facts: Facts, free: tuple[Placed, ...], index: int) -> Iterator[Assignment]:
    """Every sensible way to give the items from `index` on their objects, by shape."""
    if index == len(facts.items):
        yield ()
        return
    item = facts.items[index]
    fitting = [n for n, placed in enumerate(free) if item.shape in (None, placed.shape)]
    most = min(item.count, len(fitting))
    rivals = facts.items[index + 1 :]
    contested = any(
        None in (rival.shape, item.shape) or rival.shape == item.shape for rival in rivals
    )
    for size in range(most, -1 if contested else most - 1, -1):
        for chosen in itertools.combinations(fitting, size):
            taken = tuple(free[n] for n in chosen)
            rest = tuple(placed for n, placed in enumerate(free) if n not in chosen)
            for others in _assignments(facts, rest, index + 1):
                yield (taken, *others)


def _score(facts: Facts, assignment: Assignment, seen_count: int) -> float:
    """Fraction of the facts that hold under one assignment."""
    held: list[bool] = []
    for item, taken in zip(facts.items, assignment, strict=True):
        held.append(bool(taken))
        if item.color is not None:
            held.append(bool(taken) and all(placed.color == item.color for placed in taken))
        if item.count > 1:
            held.append(len(taken) == item.count)
    for relation in facts.relations:
        pairs = list(itertools.product(assignment[relation.subject], assignment[relation.object]))
        held.append(bool(pairs) and all(relation_holds(a, relation.kind, b) for a, b in pairs))
    taken_count = sum(map(len, assignment))
    held.append(0 < taken_count == seen_count)
    return sum(held) / len(held)
