"""Detections that another program made of the pictures, such as GenEval's own detector.

One file a picture, `<prompt>/<number>.npz` for `<prompt>/samples/<number>.png`, of N objects:

    boxes    (N, 4) left, top, right, bottom in pixels
    scores   (N,) from 0 to 1
    classes  (N,) COCO's index, 0 to 79
    masks    (N, ceil(height * width / 8)) uint8, rows of numpy.packbits; may be left out

docs/benchmarks.md has the script that writes them beside mmdet.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.evaluation.geneval.detections import Found
from unified_rl.evaluation.geneval.metadata import CLASSES
from unified_rl.evaluation.geneval.scorer import place_of

FILE_BYTES = 64 * 2**20
"""Content of a larger file is not read."""
_REQUIRED = ("boxes", "scores", "classes")


class DetectionFiles:
    """Reads the detections of a folder; the format is this module's docstring.

    Args:
        folder: of the files.
        detector: what made them, for the results.
        official: whether that is GenEval's own detector with its own weights.

    Raises:
        ConfigError: no such folder.
    """

    def __init__(self, folder: str, detector: str, official: bool) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise ConfigError(
                f"detector.folder={folder} is not a folder; draw the pictures with "
                "suite=geneval_pictures, then write it with the script of docs/benchmarks.md"
            )
        self._detector, self._official = detector, official

    def detect(self, name: str, pixels: np.ndarray) -> Mapping[str, list[Found]]:
        """The detections of a picture.

        Raises:
            DataError: there is no file for it, or a broken one.
        """
        place = place_of(name)
        if place is None:
            raise DataError(f"{name!r} is no picture of GenEval's layout, so it has no detections")
        path = self._path(name)
        arrays = _read(path)
        try:
            return _objects(arrays, pixels.shape[:2])
        except ValueError as error:
            raise DataError(f"{path} {error}; write it again") from error

    def describe(self) -> dict[str, Any]:
        """Detector and folder."""
        return {"detector": self._detector, "model": str(self._folder), "official": self._official}

    def _path(self, name: str) -> Path:
        prompt, _, picture = name.rsplit("/", 2)
        return self._folder / prompt.rsplit("/", 1)[-1] / f"{picture.removesuffix('.png')}.npz"


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > FILE_BYTES:
            raise DataError(
                f"{path} unpacks to {size} bytes, over {FILE_BYTES}; keep fewer objects"
            )
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in (*_REQUIRED, "masks") if name in content}
    except FileNotFoundError as error:
        raise DataError(
            f"there is no {path}; run the script of docs/benchmarks.md over the pictures"
        ) from error
    except DataError:
        raise
    except Exception as error:  # damaged archives fail in many ways
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}); write it again") from error


def _objects(arrays: Mapping[str, np.ndarray], size: tuple[int, int]) -> dict[str, list[Found]]:
    for name in _REQUIRED:
        if name not in arrays:
            raise ValueError(f"has no array {name!r}")
    boxes, scores, classes = (arrays[name] for name in _REQUIRED)
    count = len(scores) if scores.ndim == 1 else -1
    if boxes.shape != (count, 4) or classes.shape != (count,):
        raise ValueError(f"has boxes {boxes.shape}, scores {scores.shape}, classes {classes.shape}")
    if boxes.dtype.kind not in "fiu" or scores.dtype.kind != "f" or classes.dtype.kind not in "iu":
        raise ValueError("has arrays of other kinds than numbers, scores and indices")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("has numbers that are not finite")
    if count and not (classes.min() >= 0 and classes.max() < len(CLASSES)):
        raise ValueError(f"has class indices outside of 0 to {len(CLASSES) - 1}")
    masks = _masks(arrays["masks"], count, size) if "masks" in arrays else [None] * count
    result: dict[str, list[Found]] = {}
    for box, score, index, mask in zip(boxes, scores, classes, masks, strict=True):
        found = Found(box.astype(np.float64), float(score), mask)
        result.setdefault(CLASSES[int(index)], []).append(found)
    return result


def _masks(packed: np.ndarray, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    height, width = size
    if packed.shape != (count, -(-height * width // 8)) or packed.dtype != np.uint8:
        raise ValueError(
            f"has masks {packed.dtype} {packed.shape}, not of {count} objects in a picture of "
            f"{width} x {height}"
        )
    return [np.unpackbits(row, count=height * width).reshape(size).astype(bool) for row in packed]
