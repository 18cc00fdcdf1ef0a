"""The image tokenizer of Show-o, MAGVIT-v2: a code is the signs of a latent, without a search."""

from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import (
    JanusVQVAEConvDownsample,
    JanusVQVAEConvUpsample,
    JanusVQVAEMidBlock,
    JanusVQVAEResnetBlock,
)

NORM_GROUPS = 32
"""Of every group normalisation in the blocks; channel counts are multiples of it."""

AUXILIARY_WEIGHT = 0.1
"""Of both auxiliary losses in the published code."""
COMMITMENT_WEIGHT = 0.25
"""Of the second half of the published quantizer loss, relative to the first."""


@dataclass(frozen=True)
class LfqCodecConfig:
    """Sizes of a codec; the defaults are those of Show-o's published MAGVIT-v2.

    Lists are taken for tuples, so the entries of a JSON file fit.

    Attributes:
        bits: latent channels; there are 2^bits codes.
        base_channels: what the multipliers multiply.
        encoder_channel_multiplier: of each level, from full resolution down; every level but the
            last halves height and width.
        encoder_block_counts: residual blocks of each level.
        decoder_channel_multiplier: of each level, from full resolution down too.
        decoder_block_counts: residual blocks of each level.
        image_size: height and width of the images that it is meant for, px. All methods take
            other sizes as well.

    Raises:
        ValueError: the sizes do not fit each other.
    """

    bits: int = 13
    base_channels: int = 128
    encoder_channel_multiplier: tuple[int, ...] = (1, 2, 2, 4, 4)
    encoder_block_counts: tuple[int, ...] = (4, 3, 4, 3, 4)
    decoder_channel_multiplier: tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder_block_counts: tuple[int, ...] = (4, 4, 3, 4, 3)
    image_size: int = 256

    def __post_init__(self) -> None:
        per_level = (
            "encoder_channel_multiplier",
            "encoder_block_counts",
            "decoder_channel_multiplier",
            "decoder_block_counts",
        )
        for name in per_level:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        lengths = {name: len(getattr(self, name)) for name in per_level}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            raise ValueError(f"all must have one entry per level, but have {lengths}")
        if self.bits < 1 or min(self.encoder_block_counts + self.decoder_block_counts) < 1:
            raise ValueError(f"{self}: bits and block counts must be 1 or more")
        if self.base_channels % NORM_GROUPS:
            raise ValueError(
                f"base_channels={self.base_channels} is not a multiple of {NORM_GROUPS}"
            )
        if self.image_size % self.reduction:
            raise ValueError(
                f"image_size={self.image_size} is not a multiple of {self.reduction}, the "
                f"reduction by {len(self.encoder_channel_multiplier)} levels"
            )

    @property
    def reduction(self) -> int:
        """Pixels per code along each side."""
        return 2 ** (len(self.encoder_channel_multiplier) - 1)

    @property
    def code_count(self) -> int:
        """Size of the codebook."""
        return 2**self.bits


class LfqLosses(NamedTuple):
    """The auxiliary losses of the published quantizer, () each, in its weights.

    Attributes:
        entropy: each bit's uncertainty at a position minus that over all positions, mean over
            bits, nats; below 0 when bits are sure and balanced.
        quantizer: squared distance of latents to their signs.
    """

    entropy: Tensor
    quantizer: Tensor


class LfqCodec(nn.Module):
    """Images to codes and back; its state dict is that of the published checkpoints.

    Source: MAGVIT-v2 (arXiv 2310.05737), section 3.1, as Show-o uses it (arXiv 2408.12528).
    """

    def __init__(self, config: LfqCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = LfqEncoder(config)
        self.decoder = LfqDecoder(config)
        self.quantize = SignTable(config.bits)

    def latents(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, bits, h, w), whose signs are the codes."""
        return self.encoder(pixels)

    def codes(self, latents: Tensor) -> Tensor:
        """(n, bits, h, w) -> (n, h * w) codes, row by row; the first channel is the highest bit."""
        bits = (latents > 0).long().flatten(2)  # (n, bits, h * w); a latent of 0 counts as -1
        return (bits * self.quantize.power_vals[:, None]).sum(1)

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, h * w) codes."""
        return self.codes(self.latents(pixels))

    def codes_to_vectors(self, codes: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """(n, N) codes -> (n, bits, h, w) of -1 and 1; without a shape (h, w) a square.

        Raises:
            ValueError: N codes do not fill the shape, or are no square.
        """
        return _to_grid(functional.embedding(codes, self.quantize.embedding), shape)

    def straight_through(self, latents: Tensor) -> Tensor:
        """The signs of latents, with the gradient of the latents themselves."""
        signs = torch.where(latents > 0, 1.0, -1.0).to(latents.dtype)
        return latents + (signs - latents).detach()

    def decode(self, codes: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """(n, N) codes -> (n, 3, H, W) in about [-1, 1]; without a shape (h, w) a square.

        Raises:
            ValueError: N codes do not fill the shape, or are no square.
        """
        return self.decode_vectors(self.codes_to_vectors(codes, shape))

    def decode_soft(self, weights: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """Decodes the expected vector at each position, so that pixels have a gradient.

        Args:
            weights: (n, N, K), probabilities of the codes, or one-hot rows that carry a gradient.
            shape: (h, w) of the N positions; None is a square.

        Raises:
            ValueError: N positions do not fill the shape, or are no square.
        """
        table = self.quantize.embedding
        return self.decode_vectors(_to_grid(weights.to(table.dtype) @ table, shape))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """(n, bits, h, w) -> (n, 3, H, W) in about [-1, 1]."""
        return self.decoder(vectors)

    def lfq_losses(self, latents: Tensor) -> LfqLosses:
        """What the published training adds to the reconstruction, for (n, bits, h, w) latents.

        A bit's probabilities are the softmax of minus the squared distances of the latent to -1
        and 1, which is sigmoid(4 * latent). Bits are taken for independent.

        Source: MAGVIT-v2 (arXiv 2310.05737), section 3.1.
        Departs: entropies are bit by bit, and weighted, as in Show-o's code.
        """
        latents = latents.float()
        logits = 4 * latents.transpose(0, 1).flatten(1)  # (bits, n * h * w)
        sure = binary_entropy(logits).mean()
        balanced = binary_entropy(torch.logit(logits.sigmoid().mean(1), eps=1e-6)).mean()
        distance = (latents - torch.where(latents > 0, 1.0, -1.0)).square().mean()
        return LfqLosses(
            AUXILIARY_WEIGHT * (sure - balanced),
            AUXILIARY_WEIGHT * (1 + COMMITMENT_WEIGHT) * distance,
        )


class LfqEncoder(nn.Module):
    """(n, 3, H, W) -> (n, bits, H / reduction, W / reduction), with the names of the checkpoint."""

    def __init__(self, config: LfqCodecConfig) -> None:
        super().__init__()
        counts = config.encoder_block_counts
        channels = config.base_channels
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.ModuleList()
        for index, multiplier in enumerate(config.encoder_channel_multiplier):
            level, channels = _level(channels, config.base_channels * multiplier, counts[index])
            if index < len(counts) - 1:
                level["downsample"] = JanusVQVAEConvDownsample(channels)
            self.down.append(level)
        self.mid = JanusVQVAEMidBlock(JanusVQVAEConfig(), channels)
        self.norm_out = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, config.bits, 3, padding=1)
        self.quant_conv = nn.Conv2d(config.bits, config.bits, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        hidden = self.conv_in(pixels)
        for level in self.down:
            for block in level["block"]:
                hidden = block(hidden)
            if "downsample" in level:
                hidden = level["downsample"](hidden)
        hidden = functional.silu(self.norm_out(self.mid(hidden)))
        return self.quant_conv(self.conv_out(hidden))


class LfqDecoder(nn.Module):
    """(n, bits, h, w) -> (n, 3, h * reduction, w * reduction), with the names of the checkpoint."""

    def __init__(self, config: LfqCodecConfig) -> None:
        super().__init__()
        multipliers, counts = config.decoder_channel_multiplier, config.decoder_block_counts
        channels = config.base_channels * multipliers[-1]
        self.conv_in = nn.Conv2d(config.bits, channels, 3, padding=1)
        self.mid = JanusVQVAEMidBlock(JanusVQVAEConfig(), channels)
        levels: list[nn.ModuleDict] = []
        for index in reversed(range(len(counts))):
            width = config.base_channels * multipliers[index]
            level, channels = _level(channels, width, counts[index])
            if index:
                level["upsample"] = JanusVQVAEConvUpsample(channels)
            levels.append(level)
        self.up = nn.ModuleList(reversed(levels))  # counted from full resolution, run from the last
        self.norm_out = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(config.bits, config.bits, 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """See the class."""
        hidden = self.mid(self.conv_in(self.post_quant_conv(vectors)))
        for level in reversed(self.up):
            for block in level["block"]:
                hidden = block(hidden)
            if "upsample" in level:
                hidden = level["upsample"](hidden)
        return self.conv_out(functional.silu(self.norm_out(hidden)))


class SignTable(nn.Module):
    """The fixed tables of the quantizer, which checkpoints hold beside the weights."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        powers = 2 ** torch.arange(bits - 1, -1, -1)  # (bits,), highest first
        is_set = torch.arange(2**bits)[:, None] & powers  # (K, bits)
        self.register_buffer("embedding", torch.where(is_set > 0, 1.0, -1.0))
        self.register_buffer("power_vals", powers)


def binary_entropy(logits: Tensor) -> Tensor:
    """Of the bit that is 1 with probability sigmoid(logits), nats; finite at any logit."""
    return functional.softplus(logits) - logits * logits.sigmoid()


def _level(channels: int, width: int, block_count: int) -> tuple[nn.ModuleDict, int]:
    """Residual blocks at one resolution, and the channels that they give."""
    blocks = nn.ModuleList()
    for _ in range(block_count):
        blocks.append(JanusVQVAEResnetBlock(JanusVQVAEConfig(), channels, width))
        channels = width
    return nn.ModuleDict({"block": blocks}), channels


def _to_grid(vectors: Tensor, shape: tuple[int, int] | None) -> Tensor:
    """(n, N, bits) -> (n, bits, h, w)."""
    count = vectors.shape[1]
    height, width = shape or (isqrt(count),) * 2
    if height * width != count:
        raise ValueError(
            f"{count} codes do not fill {height} x {width} positions; give their shape"
        )
    return vectors.transpose(1, 2).unflatten(2, (height, width))
