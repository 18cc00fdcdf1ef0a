"""VILA-U's image tokenizer: SigLIP features, quantised residual by residual, and a decoder."""

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import JanusVQVAEConfig, SiglipVisionConfig
from transformers.models.janus.modeling_janus import (
    JanusVQVAEAttnBlock,
    JanusVQVAEConvUpsample,
    JanusVQVAEResnetBlock,
)
from transformers.models.siglip.modeling_siglip import SiglipEncoder, SiglipVisionEmbeddings

NORM_GROUPS = 32
"""Of every group normalisation in the decoder."""


@dataclass(frozen=True)
class RqCodecConfig:
    """Sizes of quantiser and decoder; those of the encoder are a `SiglipVisionConfig`.

    Attributes:
        codebook_size: K, codes a depth.
        depth: D, codes a position.
        shared_codebook: one codebook serves all depths.
        latent_channels: of the decoder's input.
        base_channels: what the multipliers multiply.
        channel_multiplier: of each level of the decoder, from full resolution down.
        block_count: residual blocks a level; the decoder has one more, as published ones do.
        attention_resolutions: sides of the grids at which residual blocks are followed by
            attention, in units of `resolution`.
        resolution: side of the decoder's nominal output, px; it only places the attention.
        decoder_grid: (h, w) to which latents are resized before they are decoded; None keeps them.
    """

    codebook_size: int = 16384
    depth: int = 4
    shared_codebook: bool = True
    latent_channels: int = 256
    base_channels: int = 128
    channel_multiplier: tuple[int, ...] = (1, 1, 2, 2, 4)
    block_count: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    resolution: int = 256
    decoder_grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("channel_multiplier", "attention_resolutions", "decoder_grid"):
            value = getattr(self, name)
            object.__setattr__(self, name, value if value is None else tuple(value))
        if self.base_channels % NORM_GROUPS:
            raise ValueError(
                f"base_channels={self.base_channels} is not a multiple of {NORM_GROUPS}"
            )
        if self.depth < 1 or self.codebook_size < 2:
            raise ValueError(f"depth={self.depth} and codebook_size={self.codebook_size} are small")

    @property
    def enlargement(self) -> int:
        """Pixels per position along each side."""
        return 2 ** (len(self.channel_multiplier) - 1)


class RqCodec(nn.Module):
    """Images to D codes a position, and back.

    Source: VILA-U (arXiv 2409.04429), section 3.1; residual quantisation of RQ-VAE
        (arXiv 2203.01941), section 3.1.
    """

    def __init__(self, vision: SiglipVisionConfig, config: RqCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = vision.image_size
        self.encoder = FeatureTower(vision)
        self.quantizer = ResidualQuantizer(
            config.codebook_size, vision.hidden_size, config.depth, config.shared_codebook
        )
        self.post_quant_conv = nn.Conv2d(vision.hidden_size, config.latent_channels, 1)
        self.decoder = RqDecoder(config)

    def latents(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, positions, C), row by row.

        Images of another size than the encoder's, as the decoder may make them, are stretched.
        """
        size = (self.image_size, self.image_size)
        if pixels.shape[-2:] != size:
            exact = pixels.float()  # no bfloat16 on all devices
            stretched = functional.interpolate(exact, size=size, mode="bilinear", antialias=True)
            pixels = stretched.to(pixels.dtype)
        return self.encoder(pixels)

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, positions, D) codes."""
        return self.quantizer.codes(self.latents(pixels))

    def decode(self, codes: Tensor) -> Tensor:
        """(n, positions, D) codes of a square -> (n, 3, H, W) in about [-1, 1]."""
        return self.decode_vectors(self.quantizer.vectors(codes).sum(-2))

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """(n, positions, C) of a square -> (n, 3, H, W) in about [-1, 1]."""
        side = isqrt(vectors.shape[1])
        # Contiguous, as published: convolutions in bfloat16 round by the layout of their input.
        grid = vectors.transpose(1, 2).unflatten(2, (side, side)).contiguous()
        if self.config.decoder_grid is not None:
            grid = functional.interpolate(grid, size=self.config.decoder_grid, mode="bilinear")
        return self.decoder(self.post_quant_conv(grid))


class FeatureTower(nn.Module):
    """SigLIP without its last layer and its last norm, which published models skip."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.embeddings = SiglipVisionEmbeddings(config)
        shorter = SiglipVisionConfig(
            **{**config.to_dict(), "num_hidden_layers": config.num_hidden_layers - 1}
        )
        shorter._attn_implementation = "sdpa"
        self.encoder = SiglipEncoder(shorter)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, H, W) -> (n, positions, C)."""
        return self.encoder(inputs_embeds=self.embeddings(pixels)).last_hidden_state


class Codebook(nn.Module):
    """K code vectors, and a last row that pads and is never chosen."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size + 1, channels))

    def nearest(self, vectors: Tensor) -> Tensor:
        """(..., C) -> (...,) index of the row at the least squared distance."""
        rows = self.weight[:-1]
        flat = vectors.flatten(0, -2)
        distances = flat.square().sum(1, keepdim=True) + rows.square().sum(1) - 2 * flat @ rows.T
        return distances.argmin(-1).view(vectors.shape[:-1])


class ResidualQuantizer(nn.Module):
    """Each depth quantises what the depths before it left over."""

    def __init__(self, size: int, channels: int, depth: int, shared: bool) -> None:
        super().__init__()
        self.depth = depth
        self.codebooks = nn.ModuleList(
            Codebook(size, channels) for _ in range(1 if shared else depth)
        )

    def codebook(self, depth: int) -> Codebook:
        """The one of a depth."""
        return self.codebooks[min(depth, len(self.codebooks) - 1)]

    def codes(self, latents: Tensor) -> Tensor:
        """(..., C) -> (..., D)."""
        residual, codes = latents, []
        for depth in range(self.depth):
            codes.append(self.codebook(depth).nearest(residual))
            residual = residual - self.codebook(depth).weight[codes[-1]]
        return torch.stack(codes, dim=-1)

    def vectors(self, codes: Tensor) -> Tensor:
        """(..., d) codes of the first d depths -> (..., d, C)."""
        rows = [
            functional.embedding(codes[..., depth], self.codebook(depth).weight)
            for depth in range(codes.shape[-1])
        ]
        return torch.stack(rows, dim=-2)

    def straight_through(self, latents: Tensor) -> Tensor:
        """(..., C) -> (..., C): sums of the vectors of all depths, with the latents' gradient."""
        # The difference is exactly 0, so that what is seen has the bits of what is drawn.
        fixed = latents.detach()
        return self.vectors(self.codes(fixed)).sum(-2) + (latents - fixed)

    def distances(self, latents: Tensor, codes: Tensor) -> Tensor:
        """How far latents are from their codes, which a commitment loss is the mean of.

        Source: RQ-VAE (arXiv 2203.01941), eq. 6.

        Args:
            latents: (..., C).
            codes: (..., D).

        Returns:
            (...,): squared distance to the sum of the first d vectors, averaged over d and C.
        """
        partial = self.vectors(codes).cumsum(-2)  # (..., D, C)
        return (latents[..., None, :] - partial.detach()).square().mean((-2, -1))


class RqDecoder(nn.Module):
    """(n, latent_channels, h, w) -> (n, 3, H, W), with the names of the checkpoints."""

    def __init__(self, config: RqCodecConfig) -> None:
        super().__init__()
        multipliers = config.channel_multiplier
        channels = config.base_channels * multipliers[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, channels, 3, padding=1)
        self.mid = nn.ModuleDict(
            {
                "block_1": RqResnetBlock(channels, channels),
                "attn_1": JanusVQVAEAttnBlock(channels),
                "block_2": RqResnetBlock(channels, channels),
            }
        )
        levels: list[nn.ModuleDict] = []
        for index in reversed(range(len(multipliers))):
            width = config.base_channels * multipliers[index]
            level = nn.ModuleDict({"block": nn.ModuleList(), "attn": nn.ModuleList()})
            for _ in range(config.block_count + 1):
                level["block"].append(RqResnetBlock(channels, width))
                channels = width
                if config.resolution // 2**index in config.attention_resolutions:
                    level["attn"].append(JanusVQVAEAttnBlock(channels))
            if index:
                level["upsample"] = JanusVQVAEConvUpsample(channels)
            levels.append(level)
        self.up = nn.ModuleList(reversed(levels))  # counted from full resolution, run from the last
        self.norm_out = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        hidden = self.conv_in(latents)
        for block in self.mid.values():  # in the order above
            hidden = block(hidden)
        for level in reversed(self.up):
            for index, block in enumerate(level["block"]):
                hidden = block(hidden)
                if len(level["attn"]):
                    hidden = level["attn"][index](hidden)
            if "upsample" in level:
                hidden = level["upsample"](hidden)
        return self.conv_out(functional.silu(self.norm_out(hidden)))


class RqResnetBlock(JanusVQVAEResnetBlock):
    """The library's block with a SiLU that rounds once, as published; in bfloat16 that is seen."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(JanusVQVAEConfig(), channels, out_channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, out_channels, h, w)."""
        residual = hidden
        hidden = self.conv1(functional.silu(self.norm1(hidden)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        if self.in_channels != self.out_channels:
            residual = self.nin_shortcut(residual)
        return residual + hidden
