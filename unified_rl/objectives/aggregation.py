"""How the losses of single actions become one number: weights that are made once a batch."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unified_rl.core.trajectory import Modality


@dataclass(frozen=True)
class Aggregation:
    """Weights that turn per-action losses into a scalar, `(weights * losses).sum()`.

    Make the weights once, over the whole accumulated batch. Rows may then be sliced into
    micro-batches of any size: the sums of the parts add up to the same loss and gradient, and must
    not be divided again by the number of parts.

    A modality's weight multiplies its actions in the numerator and in the denominator: "sequence"
    and "token" are weighted means, to which only the proportion of the two weights matters.

    Source: UnifiedGRPO eq. 3 ("sequence"); DAPO ("token"); Dr. GRPO ("constant").
    Departs: modality weights, which the papers do not have; 1 and 1 is as printed.

    Attributes:
        normalisation: "sequence" takes the mean over each row's actions, then the mean over rows,
            so each token of a short row weighs more than one of a long row; "token" the mean over
            all actions of the batch, where 576 image tokens drown 60 text tokens unless weighted;
            "constant" divides the sum by B x `constant_length`, the same for every batch.
        text_weight: weight of a text action, 0 or more.
        image_weight: weight of an image action, 0 or more.
        constant_length: in actions; needed by "constant" and refused elsewhere.
        count: "positions" lets each position count once, its codes sharing its weight equally;
            "codes" lets each code count once, D times the weight for an image position of a
            residual-depth family. The same for D = 1.
    """

    normalisation: Literal["sequence", "token", "constant"] = "sequence"
    text_weight: float = 1.0
    image_weight: float = 1.0
    constant_length: int | None = None
    count: Literal["positions", "codes"] = "positions"

    def __post_init__(self) -> None:
        if self.normalisation not in ("sequence", "token", "constant"):
            raise ValueError(
                f"normalisation={self.normalisation!r} is none of 'sequence', 'token', 'constant'"
            )
        if self.count not in ("positions", "codes"):
            raise ValueError(f"count={self.count!r} is neither 'positions' nor 'codes'")
        for name in ("text_weight", "image_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative; 0 leaves it out")
        if self.text_weight == 0 and self.image_weight == 0:
            raise ValueError("text_weight=0 and image_weight=0 leave nothing to train on")
        needs_length = self.normalisation == "constant"
        if needs_length and (self.constant_length is None or self.constant_length < 1):
            raise ValueError(
                f"constant_length={self.constant_length} must be at least 1 for 'constant'"
            )
        if not needs_length and self.constant_length is not None:
            raise ValueError(
                f"constant_length={self.constant_length} is read by normalisation='constant' only, "
                f"not by {self.normalisation!r}; leave it out"
            )

    def token_weights(
        self, action_mask: Tensor, modality: Tensor, total: Tensor | float | None = None
    ) -> Tensor:
        """The weight of each action in the loss of the whole batch.

        A row without any action has weight 0 everywhere but still counts in B: the mean over rows
        is not rescaled by an empty completion.

        Args:
            action_mask: (B, L, D) bool, of the whole accumulated batch.
            modality: (B, L) a `Modality`.
            total: for "token" only, divides in place of this batch's own `total`. With data
                parallelism that averages gradients over ranks, pass the mean of the ranks' totals.

        Returns:
            (B, L, D) float32, 0 where `action_mask` is False.
        """
        if total is not None and self.normalisation != "token":
            raise ValueError(f"total={total} is read by 'token' only, not {self.normalisation!r}")
        shares = self._shares(action_mask, modality)
        row_count = action_mask.shape[0]
        if self.normalisation == "constant":
            return shares / (row_count * self.constant_length)
        if self.normalisation == "sequence":
            divisor = shares.sum((1, 2), keepdim=True) * row_count  # (B, 1, 1)
        else:
            divisor = torch.as_tensor(shares.sum() if total is None else total).to(shares)
        return torch.where(divisor > 0, shares / divisor, 0.0)

    def total(self, action_mask: Tensor, modality: Tensor) -> Tensor:
        """() float32: the weighted number of actions that "token" divides by."""
        return self._shares(action_mask, modality).sum()

    def _shares(self, action_mask: Tensor, modality: Tensor) -> Tensor:
        """(B, L, D) weights before division."""
        if action_mask.ndim != 3 or action_mask.shape[:2] != modality.shape:
            raise ValueError(
                f"action_mask {tuple(action_mask.shape)} and modality {tuple(modality.shape)} "
                "are not (B, L, D) and (B, L)"
            )
        of_image = (modality == Modality.IMAGE).unsqueeze(-1)  # (B, L, 1)
        shares = action_mask.float() * torch.where(of_image, self.image_weight, self.text_weight)
        if self.count == "codes":
            return shares
        return shares / action_mask.sum(-1, keepdim=True).clamp(min=1)
