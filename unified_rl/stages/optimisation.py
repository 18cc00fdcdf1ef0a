"""How weights move: optimisers, schedule, clipping."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from unified_rl.core.errors import ConfigError

PEAK = "peak"
"""Where a parameter group keeps its own peak learning rate."""


@dataclass(frozen=True)
class Optimisation:
    """AdamW with a linear warm-up, and Muon on the matrices of the transformer if asked for.

    Source: Muon (K. Jordan et al., kellerjordan.github.io/posts/muon), as torch.optim has it.

    Attributes:
        learning_rate: its peak.
        muon_learning_rate: peak of Muon on the matrices in the layers of the language model, which
            AdamW then leaves alone; 0 is no Muon. About ten times AdamW's suits it.
        betas: of AdamW.
        weight_decay: on matrices; vectors (norms, biases) have none.
        warmup: iterations until the peak.
        schedule: "cosine" falls to `final_ratio` of the peak at the last iteration.
        final_ratio: 0 to 1, read by "cosine".
        gradient_clip: greatest norm of the gradient; 0 clips nothing.
    """

    learning_rate: float = 1e-4
    muon_learning_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    final_ratio: float = 0.0
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0")
        if self.muon_learning_rate < 0:
            raise ValueError(f"muon_learning_rate={self.muon_learning_rate} is negative; 0 is none")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule={self.schedule!r} is neither 'constant' nor 'cosine'")
        if self.gradient_clip < 0:
            raise ValueError(f"gradient_clip={self.gradient_clip} is negative; 0 clips nothing")

    def optimizers(
        self, parameters: Iterable[nn.Parameter], layers: Iterable[nn.Module] = ()
    ) -> list[torch.optim.Optimizer]:
        """AdamW over the trainable ones of `parameters`, Muon over matrices in `layers` if asked.

        Raises:
            ConfigError: Muon is asked for, but there is no trainable matrix in `layers`.
        """
        trainable = [p for p in parameters if p.requires_grad]
        hidden = {id(p) for layer in layers for p in layer.parameters() if p.ndim == 2}
        matrices = [p for p in trainable if self.muon_learning_rate and id(p) in hidden]
        if self.muon_learning_rate and not matrices:
            raise ConfigError(
                f"optimisation.muon_learning_rate={self.muon_learning_rate}: no matrix of a "
                "transformer layer trains here; use 0"
            )
        taken = {id(p) for p in matrices}
        rest = [p for p in trainable if id(p) not in taken]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        adamw = torch.optim.AdamW(
            [{**group, PEAK: self.learning_rate} for group in groups if group["params"]],
            lr=self.learning_rate,
            betas=tuple(self.betas),
        )
        if not matrices:
            return [adamw]
        muon = torch.optim.Muon(
            [{"params": matrices, PEAK: self.muon_learning_rate}],
            lr=self.muon_learning_rate,
            weight_decay=self.weight_decay,
        )
        return [adamw, muon]

    def factor(self, iteration: int, total: int) -> float:
        """Share of the peak learning rates at an iteration (from 0) of `total`."""
        if iteration < self.warmup:
            return (iteration + 1) / (self.warmup + 1)
        if self.schedule == "constant":
            return 1.0
        progress = (iteration - self.warmup) / max(1, total - self.warmup)
        cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.final_ratio + (1 - self.final_ratio) * cosine
