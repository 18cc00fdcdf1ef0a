"""Distances of pictures by hand; LPIPS through torchmetrics with a backbone of random weights."""

import hashlib
import pickle
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity, lpips

from tests.rewards.cases import BLUE_SQUARE, BOTH, GREEN_CIRCLE, ONE, image
from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.rewards import perceptual
from unified_rl.rewards.perceptual import LpipsDistance, WorldDistance

BLANK = np.full((24, 24, 3), 255, np.uint8)


def dotted(*places, value=(0, 0, 0)):
    pixels = BLANK.copy()
    for x, y in places:
        pixels[y, x] = value
    return pixels


def world_distance(real, drawn):
    (value,) = WorldDistance()([real], [drawn])
    return value


def test_equal_pictures_are_no_distance_apart():
    assert world_distance(BOTH.pixels, BOTH.pixels) == 0
    assert world_distance(BLANK, BLANK) == 0


@pytest.mark.parametrize(
    ("real", "drawn", "value"),
    [
        # a blank picture shares no ink with any other
        (dotted((0, 0)), BLANK, 1),
        # two dots far apart: nothing shared but in the whole picture: (1 + 1 + 0) / 3
        (dotted((0, 0)), dotted((20, 20)), 2 / 3),
        # within one box of 8 px: (1 + 0 + 0) / 3
        (dotted((0, 0)), dotted((7, 7)), 1 / 3),
        # one of two dots missing: |2 - 1| / (2 + 1) at each scale
        (dotted((0, 0), (20, 20)), dotted((0, 0)), 1 / 3),
        # ink (255, 255, 0) against (0, 255, 255): 510 of 1020 differ, at each scale
        (dotted((3, 3), value=(0, 0, 255)), dotted((3, 3), value=(255, 0, 0)), 1 / 2),
    ],
)
def test_ink_by_hand(real, drawn, value):
    assert world_distance(real, drawn) == pytest.approx(value)
    assert world_distance(drawn, real) == pytest.approx(value)


def test_pairs_keep_their_order():
    reals = [ONE.pixels, BOTH.pixels, BLANK]
    drawn = [BOTH.pixels, BOTH.pixels, ONE.pixels]
    values = WorldDistance()(reals, drawn)
    assert values == [world_distance(a, b) for a, b in zip(reals, drawn, strict=True)]
    assert 0 == values[1] < values[0] < values[2] == 1


def test_a_wrong_colour_is_nearer_than_a_missing_object():
    recoloured = image(GREEN_CIRCLE, BLUE_SQUARE).pixels
    alone = image(BLUE_SQUARE).pixels
    assert 0 < world_distance(BOTH.pixels, recoloured) < world_distance(BOTH.pixels, alone) < 1


@pytest.mark.parametrize("side", [16, 48])
def test_other_sizes_are_refused(side):
    other = np.zeros((side, side, 3), np.uint8)
    with pytest.raises(RewardError, match=rf"\(24, 24\).*\({side}, {side}\)"):
        WorldDistance()([BLANK], [other])


def test_lpips_names_the_missing_package(monkeypatch):
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'unified-rl\[lpips\]'"):
        LpipsDistance()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"net": "resnet"}, "net='resnet' is none of vgg"), ({"size": 8}, "size=8")],
)
def test_lpips_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        LpipsDistance(**settings)


def vgg16_features():
    layers, channels = [], 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


@pytest.fixture
def torchvision(monkeypatch, tmp_path):
    """The part of torchvision that LPIPS asks for; the hub folder is empty.

    The name of the weights' file has the first digits of the SHA-256 of nothing.
    """

    def vgg16(weights):
        assert weights is None, "torchvision would unpickle the file itself"
        return SimpleNamespace(features=vgg16_features())

    default = SimpleNamespace(url="https://host/vgg16-e3b0c442.pth")
    module = ModuleType("torchvision")
    module.__spec__ = ModuleSpec("torchvision", None)
    module.models = SimpleNamespace(vgg16=vgg16, VGG16_Weights=SimpleNamespace(DEFAULT=default))
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setattr(lpips, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints" / "vgg16-e3b0c442.pth"


@pytest.fixture
def weights(torchvision, monkeypatch):
    """A file of random weights whose name promises its SHA-256, and the features it holds."""
    torch.manual_seed(0)
    features = vgg16_features()
    torchvision.parent.mkdir()
    torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, torchvision)
    digest = hashlib.sha256(torchvision.read_bytes()).hexdigest()[:8]
    path = torchvision.rename(torchvision.with_name(f"vgg16-{digest}.pth"))
    default = sys.modules["torchvision"].models.VGG16_Weights.DEFAULT
    default.url = f"https://host/{path.name}"
    return path, features


def test_lpips_names_the_missing_weights(torchvision):
    with pytest.raises(
        ConfigError, match=r"needs .*vgg16-e3b0c442.pth; download https://host/vgg16"
    ):
        LpipsDistance()


def test_lpips_refuses_other_weights(torchvision):
    torchvision.parent.mkdir()
    torchvision.write_bytes(b"a pickle from elsewhere")
    with pytest.raises(ConfigError, match="vgg16-e3b0c442.pth is damaged"):
        LpipsDistance()


def test_lpips_runs_nothing_of_a_pickle(torchvision, monkeypatch):
    torchvision.parent.mkdir()
    hostile = pickle.dumps(print, protocol=2)
    digest = hashlib.sha256(hostile).hexdigest()[:8]
    (torchvision.parent / f"vgg16-{digest}.pth").write_bytes(hostile)
    default = sys.modules["torchvision"].models.VGG16_Weights.DEFAULT
    default.url = f"https://host/vgg16-{digest}.pth"
    with pytest.raises(ConfigError, match="LPIPS with net=vgg on device=cpu fails"):
        LpipsDistance()


def test_lpips(weights, monkeypatch):
    path, features = weights
    distance = LpipsDistance(size=32, batch_size=2)
    rng = np.random.default_rng(0)
    reals = [rng.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(3)]
    drawn = [reals[0], reals[2], rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)]
    values = distance(reals, drawn)
    assert values[0] == 0
    assert all(value > 1e-4 for value in values[1:])
    alone = [distance([a], [b])[0] for a, b in zip(reals, drawn, strict=True)]
    assert values == pytest.approx(alone, rel=1e-3)
    # from another folder, in another dtype: eight bits of precision
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "nowhere")
    low = LpipsDistance(folder=str(path.parent), size=32, dtype="bfloat16")
    assert low(reals, drawn) == pytest.approx(values, rel=0.05)
    # the same as the functional form on pictures of the right size
    models = sys.modules["torchvision"].models
    monkeypatch.setattr(models, "vgg16", lambda weights: SimpleNamespace(features=features))
    squares = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(2)]
    a, b = (torch.tensor(s).permute(2, 0, 1)[None] / 255 for s in squares)
    want = learned_perceptual_image_patch_similarity(a, b, "vgg", normalize=True)
    assert distance(squares[:1], squares[1:]) == pytest.approx([want.item()], rel=1e-4)


def test_lpips_of_other_backbones():
    """The names of layers inside torchmetrics' slices, against those of torchvision."""
    names = ("slice1.0.weight", "slice5.28.bias", "slices.3.9.squeeze.weight")
    want = ["features.0.weight", "features.28.bias", "features.9.squeeze.weight"]
    assert [perceptual._SLICE.sub("features.", name) for name in names] == want
