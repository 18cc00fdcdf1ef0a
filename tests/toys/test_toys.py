"""What the toys promise of their own parts."""

import pytest
import torch

from tests.toys.codec import CODE_COUNT, POSITIONS, ColourCodec
from unified_rl.models.base import to_uint8


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_codes_survive_an_image_file(depth):
    codec = ColourCodec(depth)
    shape = 16, POSITIONS, depth
    codes = torch.randint(CODE_COUNT, shape, generator=torch.Generator().manual_seed(0))
    stored = torch.stack([torch.from_numpy(image) for image in to_uint8(codec.decode(codes))])
    pixels = stored.permute(0, 3, 1, 2).float() / 127.5 - 1
    assert torch.equal(codec.encode(pixels), codes)


def test_a_colour_by_hand():
    # red 0.3 = 1/2 - 1/4 (+ 0.05), green -0.9 = -1/2 - 1/4 (- 0.15), blue 0.6 = 1/2 + 1/4 (- 0.15)
    pixels = torch.tensor([0.3, -0.9, 0.6])[None, :, None, None].expand(1, 3, 24, 24)
    # bits red 1, green 2, blue 4: 1 + 4 = 5 at depth 0, 4 at depth 1
    assert ColourCodec(2).encode(pixels)[0, 0].tolist() == [5, 4]
