"""GenEval's objects as transformers' Mask2Former sees them."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as PillowImage
from torch.nn.functional import interpolate

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.evaluation.geneval.detections import Found
from unified_rl.evaluation.geneval.metadata import CLASSES
from unified_rl.rewards.local_model import load_judge, load_part, require_judge

DETECTIONS = 100
"""Objects of a picture, over all classes; mmdet's `max_per_image`."""
_SETTING = "detector.checkpoint"


class Mask2FormerDetector:
    """Instance segmentation by a Mask2Former of the transformers layout, read as mmdet reads it.

    The 100 surest pairs of query and class; a mask is where its logits, scaled to the picture
    bilinearly, are above 0; a score is the probability of the class times the mean of the mask's
    sigmoids inside; a box is the mask's. Classes are told by index, COCO's 80 in their order, as
    spellings differ.

    Source: GenEval's detector is mmdet's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.
    Departs: facebook/mask2former-swin-small-coco-instance has the same architecture and other
    weights, so scores and above all the cut at 0.9 for counting differ; nobody has measured by how
    much. Results say so.

    Args:
        checkpoint: folder of such a model with its image processor, weights as safetensors.
        device: as torch names it.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is missing, damaged, of another model or of other classes.
        ConfigError: an unknown dtype or a device that is not there.
    """

    def __init__(
        self,
        checkpoint: str,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil

        folder = require_judge(checkpoint, _SETTING, "mask2former")
        self._processor = load_part(Mask2FormerImageProcessorPil, folder, _SETTING)
        family = Mask2FormerForUniversalSegmentation
        self._model = load_judge(family, folder, _SETTING, device, dtype)
        if self._model.config.num_labels != len(CLASSES):
            raise CheckpointError(
                f"{_SETTING}={checkpoint} tells {self._model.config.num_labels} classes, not "
                "COCO's 80; take a model of instance segmentation trained on COCO"
            )
        self._checkpoint = checkpoint

    @torch.no_grad()
    def detect(self, name: str, pixels: np.ndarray) -> Mapping[str, list[Found]]:
        """All objects of a picture, however unsure.

        Args:
            name: not used.
            pixels: uint8 (height, width, 3).

        Raises:
            ConfigError: the model gives numbers that are not finite.
        """
        image = PillowImage.fromarray(pixels)
        inputs = self._processor(images=[image], return_tensors="pt")
        shown = inputs["pixel_values"].to(self._model.device, self._model.dtype)
        output = self._model(pixel_values=shown)
        classes = output.class_queries_logits[0].float()  # (queries, classes + 1)
        masks = interpolate(output.masks_queries_logits.float(), shown.shape[-2:], mode="bilinear")
        if not (classes.isfinite().all() and masks.isfinite().all()):
            raise ConfigError(f"{_SETTING}={self._checkpoint} gives no finite numbers; use float32")
        filled = inputs["pixel_mask"][0].bool()  # the rest fills the sides up
        height, width = int(filled.any(dim=1).sum()), int(filled.any(dim=0).sum())
        masks = interpolate(masks[..., :height, :width], pixels.shape[:2], mode="bilinear")[0]
        return read_queries(classes, masks)

    def describe(self) -> dict[str, Any]:
        """Model and what it is not."""
        return {
            "detector": "transformers Mask2Former",
            "model": self._checkpoint,
            "official": False,
            "note": "not GenEval's detector: its weights and with them its scores differ",
        }


def read_queries(
    classes: torch.Tensor, masks: torch.Tensor, most: int = DETECTIONS
) -> dict[str, list[Found]]:
    """Objects of a picture from what the queries of a mask classifier say.

    Args:
        classes: (Q, 81) logits of each query, the last for none.
        masks: (Q, height, width) logits at the size of the picture.
        most: objects, over all classes.
    """
    probabilities = classes.softmax(dim=-1)[:, :-1].flatten()
    chances, places = probabilities.topk(min(most, len(probabilities)))
    inside = masks > 0
    sizes = inside.flatten(1).sum(dim=1)
    sureness = (masks.sigmoid() * inside).flatten(1).sum(dim=1) / (sizes + 1e-6)
    result: dict[str, list[Found]] = {}
    for chance, place in zip(chances.tolist(), places.tolist(), strict=True):
        query, index = divmod(place, len(CLASSES))
        if sizes[query]:  # an empty mask scores 0, which no threshold lets through
            mask = inside[query].cpu().numpy()
            found = Found(box_of(mask), chance * float(sureness[query]), mask)
            result.setdefault(CLASSES[index], []).append(found)
    return result


def box_of(mask: np.ndarray) -> np.ndarray:
    """(4,) left, top, right, bottom of a mask with any True; right and bottom are beyond it."""
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
