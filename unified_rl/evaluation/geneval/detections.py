"""What a detector finds in a picture."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Found(NamedTuple):
    """One object.

    Attributes:
        box: (4,) left, top, right, bottom in pixels.
        score: the detector's confidence, from 0 to 1.
        mask: bool (height, width) of the picture, True on the object; None if there is none.
    """

    box: np.ndarray
    score: float
    mask: np.ndarray | None = None


Detections = Mapping[str, Sequence[Found]]
"""Objects by the name of their class, in any order; classes without any may be missing."""


class Detector(Protocol):
    """Finds the objects of COCO's 80 classes."""

    def detect(self, name: str, pixels: np.ndarray) -> Detections:
        """All objects, however unsure.

        Args:
            name: of the picture within its folder, for detectors that have looked already.
            pixels: uint8 (height, width, 3).
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Name, version and settings, JSON-able; "official" says whether it is GenEval's own."""
        ...
