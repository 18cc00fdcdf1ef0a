"""CLIP models, which tell how alike texts and pictures are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.rewards.framing import normalised, squeezed
from unified_rl.rewards.local_model import (
    WEIGHTS,
    load_judge,
    load_part,
    load_tokenizer,
    require_judge,
)
from unified_rl.rewards.open_clip_names import load_open_clip

OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Read in a folder that has no weights of transformers' layout."""
FILE_SUFFIXES = (".safetensors", ".bin", ".pt")
Framing = Literal["crop", "squeeze"]
FRAMINGS = ("crop", "squeeze")


class Clip:
    """A frozen CLIP model with what prepares its texts and pictures.

    Texts longer than the model reads are cut.

    Args:
        checkpoint: folder of transformers' layout with safetensors, or a file with the weights of
            open_clip's layout, or a folder with such a file under its usual name.
        setting: what it was given for, for messages.
        processor: folder of the tokenizer and the image processor, and for weights of open_clip's
            layout also of transformers' `config.json`. None: the folder of the checkpoint.
        framing: "crop" leaves pictures to the folder's processor, which takes the middle square;
            "squeeze" scales all of the picture to a square by bilinear interpolation.
        batch_size: pairs in one pass.
        device: as torch names it.
        dtype: of the weights.

    Attributes:
        model: transformers' CLIPModel.
        logit_scale: the factor of cosines that the model was trained with.

    Raises:
        CheckpointError: a file is missing, damaged or of another model.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        checkpoint: str,
        setting: str,
        processor: str | None = None,
        framing: Framing = "crop",
        batch_size: int = 32,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel

        if framing not in FRAMINGS:
            raise ConfigError(f"framing={framing!r} is none of {', '.join(FRAMINGS)}")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1")
        path = _open_clip_file(Path(checkpoint), setting)
        own = path.parent if path else require_judge(checkpoint, setting, "clip")
        folder = Path(processor) if processor else own
        self.processor: Any = load_part(CLIPImageProcessorPil, folder, setting)
        self.tokenizer = load_tokenizer(folder, setting)
        if path:
            self.model: Any = load_open_clip(path, folder, setting, device, dtype)
        else:
            self.model = load_judge(CLIPModel, own, setting, device, dtype)
        self.logit_scale = float(self.model.logit_scale.float().exp())
        self.framing = framing
        self.batch_size = batch_size

    @torch.no_grad()
    def cosines(self, texts: Sequence[str], pictures: Sequence[np.ndarray]) -> list[float]:
        """One cosine a pair, in [-1, 1].

        Args:
            texts: any.
            pictures: one a text, uint8 (height, width, 3) of any size.
        """
        found: list[float] = []
        for start in range(0, len(texts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            words = self.tokenizer(
                list(texts[rows]),
                padding=True,
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.model.device)
            seen = self.model(
                input_ids=words["input_ids"],
                attention_mask=words["attention_mask"],
                pixel_values=self._pixels(pictures[rows]),
            )
            # both are of unit length
            found += (seen.image_embeds.float() * seen.text_embeds.float()).sum(-1).tolist()
        return found

    def _pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        if self.framing == "squeeze":
            size = self.model.config.vision_config.image_size
            squares = [squeezed(picture, size) for picture in pictures]
            pixels = normalised(squares, self.processor.image_mean, self.processor.image_std)
        else:
            shown = [PillowImage.fromarray(picture) for picture in pictures]
            pixels = self.processor(images=shown, return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)


def _open_clip_file(path: Path, setting: str) -> Path | None:
    """The file of open_clip's layout that a checkpoint is, or None where it is a model's folder."""
    if path.is_file():
        return path
    if path.suffix in FILE_SUFFIXES and not path.is_dir():
        raise CheckpointError(f"{setting}={path} is not a file; download it and give its path")
    if any((path / name).is_file() for name in WEIGHTS):
        return None
    return next((path / name for name in OPEN_CLIP_FILES if (path / name).is_file()), None)
