"""Which of GenEval's ten colours an object has, by CLIP."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError
from unified_rl.evaluation.geneval.detections import Found
from unified_rl.prompting.everyday import COLORS
from unified_rl.rewards.local_model import load_judge, load_part, load_tokenizer, require_judge

TEMPLATES = (
    "a photo of a {c} {name}",
    "a photo of a {c}-colored {name}",
    "a photo of a {c} object",
)
BACKGROUND = 0x99
"""Each channel of what is put for pixels that are not the object's."""
_BATCH = 16


class Colours(Protocol):
    """Tells colours of objects."""

    def __call__(self, pixels: np.ndarray, objects: Sequence[Found], name: str) -> list[str | None]:
        """The colour of each object; None where nothing of it can be seen.

        Args:
            pixels: uint8 (height, width, 3).
            objects: in it.
            name: of their class.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """Name and settings, JSON-able."""
        ...


class ColourClassifier:
    """Zero-shot by a CLIP model: the colour whose captions are nearest to the object's cut-out.

    A colour is the mean of three captions' embeddings, each of unit length, made one of unit length
    again. The object is cut out by its box, everything but its mask painted #999999.

    Source: GenEval, evaluate_images.py, `color_classification`; its CLIP is OpenAI's ViT-L/14.
    Departs: the weights are transformers' (openai/clip-vit-large-patch14), in their full precision.

    Args:
        checkpoint: folder of a CLIP model of the transformers layout, weights as safetensors.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is missing, damaged or of another model.
        ConfigError: an unknown dtype or a device that is not there.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel

        setting = "colours.checkpoint"
        folder = require_judge(checkpoint, setting, "clip")
        self._processor = load_part(CLIPImageProcessorPil, folder, setting)
        self._tokenizer = load_tokenizer(folder, setting)
        self._model = load_judge(CLIPModel, folder, setting, device, dtype)
        self._checkpoint = checkpoint
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, pixels: np.ndarray, objects: Sequence[Found], name: str) -> list[str | None]:
        """The colour of each object; None where its cut-out has no pixels.

        Raises:
            ConfigError: a mask that is not of the picture's size.
        """
        crops = [cut_out(pixels, found) for found in objects]
        seen = [crop for crop in crops if crop is not None]
        named = iter(self._classified(seen, name))
        return [None if crop is None else next(named) for crop in crops]

    def describe(self) -> dict[str, Any]:
        """Model and background."""
        return {
            "model": self._checkpoint,
            "vision_layers": self._model.config.vision_config.num_hidden_layers,
            "background": "#999999",
        }

    @torch.no_grad()
    def _classified(self, crops: Sequence[PillowImage.Image], name: str) -> list[str]:
        colours: list[str] = []
        for start in range(0, len(crops), _BATCH):
            shown = list(crops[start : start + _BATCH])
            pixels = self._processor(images=shown, return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self._model.device, self._model.dtype)
            seen = self._model.visual_projection(
                self._model.vision_model(pixel_values=pixels).pooler_output
            )
            near = _unit(seen.float()) @ self._captions(name).T  # (crops, colours)
            colours += [COLORS[index] for index in near.argmax(dim=1).tolist()]
        return colours

    def _captions(self, name: str) -> torch.Tensor:
        """(colours, width) embeddings for objects of a class."""
        if name not in self._known:
            texts = [line.format(c=c, name=name) for c in COLORS for line in TEMPLATES]
            words = self._tokenizer(texts, padding=True, return_tensors="pt")
            words = words.to(self._model.device)
            told = self._model.text_projection(self._model.text_model(**words).pooler_output)
            means = _unit(told.float()).unflatten(0, (len(COLORS), len(TEMPLATES))).mean(dim=1)
            self._known[name] = _unit(means)
        return self._known[name]


def cut_out(pixels: np.ndarray, found: Found) -> PillowImage.Image | None:
    """The object by its box, all else of it grey; None where the box holds no pixels.

    Borders of the box are rounded to whole pixels; what of it lies outside of the picture is black.

    Raises:
        ConfigError: a mask that is not of the picture's size.
    """
    left, top, right, bottom = (round(float(edge)) for edge in found.box)
    if right <= left or bottom <= top:
        return None
    if found.mask is not None:
        if found.mask.shape != pixels.shape[:2]:
            raise ConfigError(
                f"detections hold a mask of {found.mask.shape} for a picture of "
                f"{pixels.shape[:2]}; give the masks of the pictures in this very folder"
            )
        pixels = np.where(found.mask[..., None], pixels, np.uint8(BACKGROUND))
    height, width = pixels.shape[:2]
    # a box far outside would make a picture of any size
    box = (max(left, -width), max(top, -height), min(right, 2 * width), min(bottom, 2 * height))
    if box[2] <= box[0] or box[3] <= box[1]:
        return None
    return PillowImage.fromarray(pixels).crop(box)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)
