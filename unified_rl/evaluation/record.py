"""What an evaluation found, and its files."""

import base64
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unified_rl.evaluation.estimates import Estimate


@dataclass(frozen=True, eq=False)
class GalleryEntry:
    """One answer to look at.

    Attributes:
        prompt: what was asked.
        texts: what was said.
        images: uint8 (height, width, 3) pictures.
        correct: whether picture k is strictly right, one a required step; missing is False. Of a
            question: whether its answer is right.
        well_formed: whether the answer keeps to the grammar.
        shown: uint8 (height, width, 3) pictures that the prompt asks about.
    """

    prompt: str
    texts: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    correct: tuple[bool, ...]
    well_formed: bool
    shown: tuple[np.ndarray, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; pictures as base64 PNG."""
        return {
            "prompt": self.prompt,
            "texts": list(self.texts),
            "images_png": [_png(pixels) for pixels in self.images],
            "correct": list(self.correct),
            "well_formed": self.well_formed,
            "shown_png": [_png(pixels) for pixels in self.shown],
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of one suite on one policy.

    Attributes:
        suite: name of the suite.
        settings: of the suite, JSON-able.
        metrics: estimates by name; "a/b" is part b of metric a.
        labels: what readers must know of some metrics, by name.
        gallery: answers to prompts that are the same in every run with these settings.
    """

    suite: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, Estimate]
    labels: Mapping[str, str] = field(default_factory=dict)
    gallery: tuple[GalleryEntry, ...] = ()

    def values(self) -> dict[str, float]:
        """The metrics without their intervals, for loggers."""
        return {name: metric.value for name, metric in self.metrics.items()}

    def to_json(self) -> dict[str, Any]:
        """Everything but the gallery, as plain values."""
        return {
            "suite": self.suite,
            "settings": dict(self.settings),
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "labels": dict(self.labels),
        }

    def write(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        """Writes `gallery.json`, then `evaluation.json`; each appears whole or not at all.

        Args:
            folder: made if it is missing.
            provenance: what the caller knows: configuration, commit, seed, hardware, kind of run.

        Raises:
            TypeError: settings or provenance that JSON cannot hold; no file is written then.
            ValueError: a number that is not finite; no file is written then.
        """
        contents = {
            "gallery.json": [entry.to_json() for entry in self.gallery],
            "evaluation.json": {**self.to_json(), "provenance": dict(provenance)},
        }
        texts = {
            name: json.dumps(content, indent=2, allow_nan=False) + "\n"
            for name, content in contents.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            beside = folder / f".{name}.{os.getpid()}.tmp"
            beside.write_text(text, encoding="utf-8")
            beside.replace(folder / name)


def _png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
