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
        return self.classify(hidden)

    def classify(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., K)."""
        return self.classifier_mlp["linear"](self.classifier_mlp["layer_norm"](hidden))


class DepthReader:
    """Reads the depths of a position one by one, each once; the same logits as in one pass.

    Args:
        transformer: whose.
        state: (R, state_width).
    """

    def __init__(self, transformer: DepthTransformer, state: Tensor) -> None:
        self._transformer, self._depth = transformer, 0
        self._input, self._sum = transformer.in_mlp_2(state), 0.0
        self._memories: list[Memory] = [[] for _ in transformer.head_transformer["blocks"]]

    def logits(self) -> Tensor:
        """(R, K) of the next depth."""
        transformer = self._transformer
        hidden = (self._input + transformer.pos_emb_d[0, self._depth])[:, None]
        blocks = transformer.head_transformer["blocks"]
        for block, memory in zip(blocks, self._memories, strict=True):
            hidden = block(hidden, memory)
        return transformer.classify(hidden[:, 0])

    def push(self, vectors: Tensor) -> None:
        """Takes the vectors (R, code_width) of the codes that were chosen at this depth."""
        self._sum, self._depth = self._sum + vectors, self._depth + 1
        self._input = self._transformer.in_mlp_1(self._sum)


Memory = list[Tensor]
"""Keys and values of the depths before, each (R, heads, d, head width); empty at the first."""


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

    def forward(self, hidden: Tensor, memory: Memory | None = None) -> Tensor:
        """(R, d, width) -> (R, d, width); with a memory one depth behind those it holds."""
        hidden = hidden + self.attn(self.ln1(hidden), memory)
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

    def forward(self, hidden: Tensor, memory: Memory | None = None) -> Tensor:
        """(R, d, width) -> (R, d, width); with a memory one depth behind those it holds."""
        query, *others = [
            part(hidden).unflatten(-1, (self.head_count, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        ]
        if memory is not None:
            if memory:
                others = [torch.cat(pair, 2) for pair in zip(memory, others, strict=True)]
            memory[:] = others
        mixed = functional.scaled_dot_product_attention(query, *others, is_causal=memory is None)
        return self.proj(mixed.transpose(1, 2).flatten(2))
