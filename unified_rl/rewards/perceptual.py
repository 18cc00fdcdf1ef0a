"""Distances of two pictures: LPIPS, and a stand-in for the micro-world."""

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.microworld.render import GROUND
from unified_rl.microworld.scene import IMAGE_SIZE, OBJECT_SIZE
from unified_rl.rewards.local_model import float_dtype

NETS = {"vgg": "VGG16_Weights", "alex": "AlexNet_Weights", "squeeze": "SqueezeNet1_1_Weights"}
"""Names of the backbones' weights in torchvision.models."""
_SLICE = re.compile(r"^slices?\.?\d+\.")
"""How torchmetrics begins the name of a layer that torchvision has under `features.`."""
SCALES = (1, OBJECT_SIZE, IMAGE_SIZE)
"""Sides of the boxes, px, over which `WorldDistance` averages: a pixel, an object, the picture."""


class LpipsDistance:
    """LPIPS by torchmetrics: 0 for equal pictures, seldom above 1.

    Both pictures are scaled to a square whatever their proportions, as in the released code, and
    antialiased.

    Source: CoRL 3.3.1; Zhang et al. 2018.
    Departs: the paper does not name the backbone; the released code has VGG16.

    Args:
        net: backbone. It needs torchvision and its ImageNet weights as a file; nothing is
            downloaded here.
        folder: where that file lies; None: where torch's hub would put it.
        size: side of the squares, px.
        batch_size: pairs in one pass.
        device: where the backbone runs, as torch names it.
        dtype: of the backbone.

    Raises:
        ConfigError: a setting out of its range; torchvision or the weights are missing.
    """

    def __init__(
        self,
        net: Literal["vgg", "alex", "squeeze"] = "vgg",
        folder: str | None = None,
        size: int = 224,
        batch_size: int = 16,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        if net not in NETS:
            raise ConfigError(f"net={net!r} is none of {', '.join(NETS)}")
        if size < 32 or batch_size < 1:
            raise ConfigError(f"size={size}, batch_size={batch_size}: at least 32 and 1 are needed")
        self._dtype = float_dtype(dtype)
        # The Metric class would keep every score, and the functional form would load the network
        # again at each call, so the network is held here.
        from torchmetrics.functional.image.lpips import _NoTrainLpips

        try:
            weights = _backbone(net, folder)
            self._net = _NoTrainLpips(net=net, pnet_rand=True)
            self._net.net.load_state_dict(
                {
                    name: weights[_SLICE.sub("features.", name)]
                    for name in self._net.net.state_dict()
                }
            )
            self._net.to(device, self._dtype)
        except (OSError, RuntimeError, ValueError, KeyError, UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"LPIPS with net={net} on device={device} fails: {reason}") from error
        self.size = size
        self.batch_size = batch_size
        self.device = device

    def __call__(self, real: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> list[float]:
        """One distance a pair."""
        distances: list[float] = []
        for start in range(0, len(real), self.batch_size):
            rows = slice(start, start + self.batch_size)
            with torch.no_grad():
                values = self._net(self._scaled(real[rows]), self._scaled(drawn[rows]))
            distances += values.float().flatten().tolist()
        return distances

    def _scaled(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """(n, 3, size, size) in [-1, 1]."""
        side = (self.size, self.size)
        scaled = [
            np.asarray(PillowImage.fromarray(p).resize(side, PillowImage.Resampling.BILINEAR))
            for p in pictures
        ]
        stacked = torch.from_numpy(np.stack(scaled)).to(self.device)  # (n, size, size, 3)
        return (stacked.permute(0, 3, 1, 2).float() / 127.5 - 1).to(self._dtype)


class WorldDistance:
    """How much of the ink of two micro-world pictures differs, in [0, 1].

    A stand-in, and not LPIPS: it knows nothing of what people see. At each of `SCALES` the pictures
    are averaged over boxes of that side; ink is how far a box is from the white ground, summed over
    RGB. The distance is the summed difference of the two pictures over the sum of their ink, meant
    over the scales: 0 for equal pictures only, 1 only if one picture is blank and the other not.
    The coarse scales go part of the way to an object that lies elsewhere, the coarsest all of it.
    """

    def __call__(self, real: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> list[float]:
        """One distance a pair.

        Raises:
            RewardError: the two differ in size, or the coarsest boxes do not tile them.
        """
        return [_ink_distance(a, b) for a, b in zip(real, drawn, strict=True)]


def _ink_distance(real: np.ndarray, drawn: np.ndarray) -> float:
    height, width, _ = drawn.shape
    if real.shape != drawn.shape or height % SCALES[-1] or width % SCALES[-1]:
        raise RewardError(
            f"WorldDistance compares pictures of one size in multiples of {SCALES[-1]} px, not a "
            f"real one of {real.shape[:2]} with a drawing of {drawn.shape[:2]}; use LpipsDistance"
        )
    ink_of_real, ink_of_drawn = (np.float64(GROUND) - picture for picture in (real, drawn))
    shares = []
    for side in SCALES:
        a, b = _box_means(ink_of_real, side), _box_means(ink_of_drawn, side)
        whole = a.sum() + b.sum()
        shares.append(float(np.abs(a - b).sum() / whole) if whole else 0.0)
    return sum(shares) / len(shares)


def _box_means(values: np.ndarray, side: int) -> np.ndarray:
    height, width, channels = values.shape
    boxes = values.reshape(height // side, side, width // side, side, channels)
    return boxes.mean((1, 3))


def _backbone(net: str, folder: str | None) -> dict[str, Tensor]:
    """Torchvision's weights of a backbone, by their names there."""
    if importlib.util.find_spec("torchvision") is None:
        raise ConfigError("LPIPS needs torchvision: pip install 'unified-rl[lpips]'")
    import torchvision

    url = getattr(torchvision.models, NETS[net]).DEFAULT.url
    place = Path(folder) if folder else Path(torch.hub.get_dir()) / "checkpoints"
    path = place / url.rsplit("/", 1)[-1]
    if not path.is_file():
        raise ConfigError(f"LPIPS with net={net} needs {path}; download {url} to there")
    # the file's name promises the first digits of its SHA-256
    promised = path.stem.rsplit("-", 1)[-1]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(promised):
        raise ConfigError(f"{path} is damaged: its SHA-256 begins {found[:8]}; download {url} anew")
    return torch.load(path, map_location="cpu", weights_only=True)
