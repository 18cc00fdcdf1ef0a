"""How GenEval compares boxes: overlap, and where one object stands to another."""

import numpy as np

DEAD_ZONE = 0.1
"""Share of both objects' sizes by which their centres may differ without standing anywhere."""
STRAIGHTNESS = 0.5
"""Least component of the direction along an axis."""
_NOWHERE = 1e-3


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes, whose last pixel counts as theirs; 0 if both are empty.

    Source: GenEval, evaluate_images.py, `compute_iou`.
    """
    shared = _area(
        np.concatenate([np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])])
    )
    union = _area(first) + _area(second) - shared
    return float(shared / union) if union else 0.0


def relations(
    first: np.ndarray, second: np.ndarray, dead_zone: float = DEAD_ZONE
) -> frozenset[str]:
    """Where the first of two boxes stands to the second: "left of", "right of", "above", "below".

    The offset of their centres, shortened along each axis by `dead_zone` of both objects' size
    there, is divided by the length of the whole offset; a component beyond 0.5 is a relation. At
    45 degrees two hold; where the boxes' sizes swallow the offset, none.

    Source: GenEval, evaluate_images.py, `relative_position`.
    """
    corners = np.asarray([first, second], np.float64)[:, :4].reshape(2, 2, 2)
    centres = corners.mean(axis=1)
    sizes = np.abs(corners[:, 1] - corners[:, 0])
    offset = centres[0] - centres[1]
    shortened = np.maximum(np.abs(offset) - dead_zone * sizes.sum(axis=0), 0) * np.sign(offset)
    if (np.abs(shortened) < _NOWHERE).all():
        return frozenset()
    across, down = shortened / np.linalg.norm(offset)
    holding = {
        "left of": across < -STRAIGHTNESS,
        "right of": across > STRAIGHTNESS,
        "above": down < -STRAIGHTNESS,
        "below": down > STRAIGHTNESS,
    }
    return frozenset(name for name, holds in holding.items() if holds)


def _area(box: np.ndarray) -> float:
    return float(max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0))
