"""An image codec without training: the mean colour of a patch, one binary digit a code."""

import torch
from torch import Tensor, nn

IMAGE_SIZE = 24
PATCH_SIZE = 8
CODE_COUNT = 8
"""A code is a corner of the colour cube."""
POSITIONS = (IMAGE_SIZE // PATCH_SIZE) ** 2


class ColourCodec(nn.Module):
    """Writes each colour channel, in [-1, 1], as `depth` signed binary digits: +-1/2, +-1/4, ...

    Codes survive decode, uint8 and encode: decoded values lie 2 ** -depth from any decision
    border, and uint8 moves them by 1/127.5 at most.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        digits = torch.tensor([[index >> bit & 1 for bit in range(3)] for index in range(8)])
        scale = 0.5 ** torch.arange(1, depth + 1)
        corners = (2.0 * digits - 1) * scale[:, None, None]
        self.corners = nn.Parameter(corners, requires_grad=False)  # (D, 8, 3)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """(n, 3, 24, 24) -> (n, 9, D)."""
        residual = nn.functional.avg_pool2d(pixels, PATCH_SIZE).flatten(2).transpose(1, 2)
        codes = []
        for corners in self.corners:
            digits = (residual > 0).long()  # (n, 9, 3)
            codes.append((digits << torch.arange(3)).sum(-1))
            residual = residual - corners[codes[-1]]
        return torch.stack(codes, dim=-1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """(n, 9, D) -> (n, 3, 24, 24), flat colours."""
        colours = sum(corners[codes[..., depth]] for depth, corners in enumerate(self.corners))
        side = IMAGE_SIZE // PATCH_SIZE
        grid = colours.transpose(1, 2).reshape(len(codes), 3, side, side)
        return nn.functional.interpolate(grid, scale_factor=PATCH_SIZE)
