"""The depth transformer: D codes of one position, each given the position's state and the last."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class DepthConfig:
    """Sizes of a depth transformer; the defaults are those of VILA-U-7B.

    Attributes:
        width: of its blocks.
        layer_count: number of blocks.
        head_count: attention heads a block.
    """

    width: int = 2560
    layer_count: int = 6
    head_count: int = 40

    def __post_init__(self) -> None:
        if self.width % self.head_count:
            raise ValueError(f"head_count={self.head_count} does not divide width={self.width}")


class DepthTransformer(nn.Module):
    """Depth 0 reads the language model's state; depth d the sum of code vectors 0 to d - 1.

    Source: VILA-U (arXiv 2409.04429), section 3.2; RQ-Transformer (arXiv 2203.01941), section 3.2.

    Args:
        config: sizes.
        state_width: of the language model.
        code_width: of a code vector.
        depth: D.
        codebook_size: K.
    """

    def __init__(
        self,
        config: DepthConfig,
        state_width: int,
        code_width: int,
        depth: int,
        codebook_size: int,
    ) -> None:
        super().__init__()
        self.in_mlp_1 = nn.Linear(code_width, config.width)
        self.in_mlp_2 = nn.Linear(state_width, config.width)
        self.pos_emb_d = nn.Parameter(torch.randn(1, depth, config.width) * 0.02)
        self.head_transformer = nn.ModuleDict(
            {"blocks": nn.ModuleList(DepthBlock(config) for _ in range(config.layer_count))}
        )
        self.classifier_mlp = nn.ModuleDict(
            {
                "layer_norm": nn.LayerNorm(config.width),
                "linear": nn.Linear(config.width, codebook_size),
            }
        )

    def forward(self, state: Tensor, vectors: Tensor) -> Tensor:
        """Logits of depths 0 to d in one pass.

        Args:
            state: (R, state_width).
            vectors: (R, d, code_width) of the codes of the first d depths; d may be 0.

        Returns:
            (R, d + 1, K).
        """
        inputs = self.in_mlp_2(state)[:, None]
        if vectors.shape[1]:
            inputs = torch.cat([inputs, self.in_mlp_1(vectors.cumsum(1))], dim=1)
        hidden = inputs + self.pos_emb_d[:, : inputs.shape[1]]
        for block in self.head_transformer["blocks"]:
            hidden = block(hidden)
        return self.classifier_mlp["linear"](self.classifier_mlp["layer_norm"](hidden))


class DepthBlock(nn.Module):
    """A pre-norm block with causal attention over depths and an exact GELU."""

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attn = DepthAttention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, 4 * config.width),
            nn.GELU(),
            nn.Linear(4 * config.width, config.width),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, d, width) -> (R, d, width)."""
        hidden = hidden + self.attn(self.ln1(hidden))
        return hidden + self.mlp(self.ln2(hidden))


class DepthAttention(nn.Module):
    """Multi-head causal attention with the names of the checkpoints."""

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.head_count = config.head_count
        self.key = nn.Linear(config.width, config.width)
        self.query = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(R, d, width) -> (R, d, width)."""
        heads = [
            part(hidden).unflatten(-1, (self.head_count, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        return self.proj(mixed.transpose(1, 2).flatten(2))
