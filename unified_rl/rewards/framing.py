"""Pictures as judges want them: square, of one size, normalised."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of each channel of pixels in [0, 1], as OpenAI's CLIP has them and most judges after it."""


def cropped(picture: np.ndarray, size: int) -> np.ndarray:
    """The middle square, its side scaled to `size` px by bicubic interpolation.

    Rounds as torchvision's `Resize` and `CenterCrop` do.
    """
    height, width = picture.shape[:2]
    short = min(height, width)
    wide, high = (int(size * side / short) for side in (width, height))
    scaled = PillowImage.fromarray(picture).resize((wide, high), PillowImage.Resampling.BICUBIC)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return np.asarray(scaled.crop((left, top, left + size, top + size)))


def squeezed(picture: np.ndarray, size: int) -> np.ndarray:
    """All of the picture in a square of `size` px, by bilinear interpolation."""
    scaled = PillowImage.fromarray(picture).resize((size, size), PillowImage.Resampling.BILINEAR)
    return np.asarray(scaled)


def normalised(
    squares: Sequence[np.ndarray], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Squares of one size as (n, 3, size, size), each channel less its mean and over its std."""
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2) / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
