"""The pictures of samples as tensors: what prompts show, what targets hold, what was drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from unified_rl.core.errors import CapabilityError, ConfigError, DataError
from unified_rl.core.sample import DrawnImage, Image, Sample
from unified_rl.core.trajectory import Trajectory
from unified_rl.decoding.tape import Kind

if TYPE_CHECKING:
    from unified_rl.models.base import UnifiedPolicy


def shown_images(policy: "UnifiedPolicy", samples: Sequence[Sample]) -> Tensor:
    """`Tape.shown` of the prompts: (B, M, 3, H, W) pixels, or (B, M, N, D) codes.

    Raises:
        CapabilityError: codes for a family that sees pictures in another way than it draws them.
        ConfigError: a picture of another size, or pixels and codes in one batch.
        DataError: codes that the policy cannot have drawn.
    """
    kinds = Image | DrawnImage
    shown = [[s for s in sample.prompt if isinstance(s, kinds)] for sample in samples]
    most = max(map(len, shown))
    drawn = {isinstance(image, DrawnImage) for images in shown for image in images}
    if len(drawn) == 2:
        raise ConfigError("a batch shows some pictures as pixels and some as codes; ask apart")
    if drawn == {True}:
        return _stacked(policy, shown, most)
    size = policy.capabilities.image_size
    pixels = torch.zeros(len(samples), most, 3, size, size)
    for row, images in enumerate(shown):
        for index, image in enumerate(images):
            pixels[row, index] = as_pixels(image, size)
    return pixels.to(policy.device)


def _stacked(policy: "UnifiedPolicy", shown: list[list[DrawnImage]], most: int) -> Tensor:
    if not policy.capabilities.shared_image_tokens:
        raise CapabilityError(
            f"{type(policy).__name__} sees pictures through an encoder of its own, so it cannot be "
            "shown the codes of a drawing; show it the pixels"
        )
    positions, depth = policy.image_positions, policy.capabilities.code_depth
    codes = torch.zeros(len(shown), most, positions, depth, dtype=torch.long)
    for row, images in enumerate(shown):
        for index, image in enumerate(images):
            codes[row, index] = checked_codes(policy, image)
    return codes.to(policy.device)


def target_codes(policy: "UnifiedPolicy", samples: Sequence[Sample]) -> list[list[list[int]]]:
    """(N, D) codes of each image of the targets, in order; pixels are encoded.

    Raises:
        ConfigError, DataError: as `shown_images`.
    """
    kinds = Image | DrawnImage
    images = [s for sample in samples for s in sample.target if isinstance(s, kinds)]
    painted = [image for image in images if isinstance(image, Image)]
    encoded = iter(policy.codes_of(policy.pixels(painted)).tolist() if painted else ())
    return [
        checked_codes(policy, image).tolist() if isinstance(image, DrawnImage) else next(encoded)
        for image in images
    ]


def drawn_images(policy: "UnifiedPolicy", trajectory: Trajectory) -> tuple[DrawnImage, ...]:
    """The image of each row, which must have exactly one, as the codes it was drawn with."""
    codes = drawn_codes(policy, trajectory).cpu().numpy()
    return tuple(DrawnImage(row) for row in codes)


def drawn_codes(policy: "UnifiedPolicy", trajectory: Trajectory) -> Tensor:
    """(B, N, D) codes of the image of each row.

    Raises:
        ValueError: a row has none, or several.
    """
    is_code = trajectory.tape["kind"] == Kind.CODE
    counts = is_code.sum(1)
    if bool((counts != policy.image_positions).any()):
        found = sorted(set((counts // policy.image_positions).tolist()))
        raise ValueError(f"rows with {found} images; each must have exactly one")
    return trajectory.tape["ids"][is_code].unflatten(0, (len(counts), -1))


def checked_codes(policy: "UnifiedPolicy", image: DrawnImage) -> Tensor:
    """(N, D) int64.

    Raises:
        DataError: another number of positions or depths, or a code that does not exist.
    """
    own = policy.capabilities
    shape = own.image_positions, own.code_depth
    if image.codes.shape != shape:
        raise DataError(
            f"a drawn image of {image.codes.shape} codes meets a policy that draws {shape}; take "
            "codes that this model has drawn"
        )
    low, high = int(image.codes.min()), int(image.codes.max())
    if low < 0 or high >= own.codebook_size:
        raise DataError(
            f"a drawn image has codes from {low} to {high}, but the policy's are 0 to "
            f"{own.codebook_size - 1}; take codes that this model has drawn"
        )
    return torch.from_numpy(image.codes)


def as_pixels(image: Image, size: int) -> Tensor:
    """(3, H, W) float32 in [-1, 1].

    Raises:
        ConfigError: its sides are not `size`.
    """
    if image.pixels.shape[:2] != (size, size):
        raise ConfigError(
            f"an image of {image.pixels.shape[1]}x{image.pixels.shape[0]} px meets a policy of "
            f"{size}x{size} px; set the data's image_size to {size}"
        )
    return torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1


def to_uint8(pixels: Tensor) -> list[np.ndarray]:
    """(n, 3, H, W) in [-1, 1] -> n arrays (H, W, 3); truncated, as the published code does."""
    scaled = ((pixels.float() + 1) * 127.5).clamp(0, 255).to(torch.uint8)
    return list(scaled.permute(0, 2, 3, 1).cpu().numpy())
