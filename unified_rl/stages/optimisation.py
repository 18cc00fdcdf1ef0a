"""How weights move: optimiser, schedule, clipping."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Optimisation:
    """AdamW with a linear warm-up.

    Attributes:
        learning_rate: its peak.
        betas: of AdamW.
        weight_decay: on matrices; vectors (norms, biases) have none.
        warmup: iterations until the peak.
        schedule: "cosine" falls to `final_ratio` of the peak at the last iteration.
        final_ratio: 0 to 1, read by "cosine".
        gradient_clip: greatest norm of the gradient; 0 clips nothing.
    """

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    final_ratio: float = 0.0
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0")
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(f"schedule={self.schedule!r} is neither 'constant' nor 'cosine'")
        if self.gradient_clip < 0:
            raise ValueError(f"gradient_clip={self.gradient_clip} is negative; 0 clips nothing")

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW over the trainable ones of `parameters`."""
        trainable = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.learning_rate,
            betas=tuple(self.betas),
        )

    def factor(self, iteration: int, total: int) -> float:
        """Share of the peak learning rate at an iteration (from 0) of `total`."""
        if iteration < self.warmup:
            return (iteration + 1) / (self.warmup + 1)
        if self.schedule == "constant":
            return 1.0
        progress = (iteration - self.warmup) / max(1, total - self.warmup)
        cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.final_ratio + (1 - self.final_ratio) * cosine
