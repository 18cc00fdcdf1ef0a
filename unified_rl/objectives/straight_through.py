"""Straight-through Gumbel-softmax: hard codes forward, soft ones backward."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def gumbel_noise_given(logits: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
    """(..., K) Gumbel noise g under which argmax(logits + g) is `codes`.

    Drawing codes from softmax(logits) and then this noise has the law of drawing the noise and
    taking the argmax (Source: UniRL A.2, eqs. 7 and 8; Maddison et al., arXiv 1411.0030, for the
    conditional draw). So codes may come from anywhere, a guided rollout included.

    Args:
        logits: (..., K), of which no gradient is taken.
        codes: (...) int64, each of a finite logit.
        generator: on the device of `logits`.
    """
    logits = logits.detach().float()
    logits = logits - logits.logsumexp(-1, keepdim=True)
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
    # log of exponential noise; the bounds keep both ends of (0, 1] finite
    log_exponential = (-uniform.clamp(1e-20, 1 - 1e-7).log()).log()
    top = -log_exponential.gather(-1, codes[..., None])  # the greatest of all, as they sum to 1
    perturbed = -torch.logaddexp(log_exponential - logits, -top)
    perturbed = perturbed.scatter(-1, codes[..., None], top)
    return perturbed - logits


def straight_through(
    logits: Tensor, noise: Tensor, codes: Tensor, table: Tensor, temperature: float
) -> Tensor:
    """(..., E) rows of a table at given codes, with the gradient of a soft mixture of rows.

    The value is the hard row, to the last bit. The gradient reaches `logits` as if the row were
    softmax((logits + noise) / temperature) @ table, and `table` as of the hard row.

    Source: UniRL A.2.

    Args:
        logits: (..., K).
        noise: (..., K), see `gumbel_noise_given`.
        codes: (...) int64.
        table: (K, E).
        temperature: above 0; small ones are nearly hard and noisy.
    """
    hard = functional.embedding(codes, table)
    soft = ((logits.float() + noise) / temperature).softmax(-1).to(table.dtype) @ table.detach()
    return hard + (soft - soft.detach())  # the bracket is exactly 0


@dataclass(frozen=True)
class Relaxation:
    """How drawn images become differentiable.

    Source: UniRL 3.3 and A.2.
    Departs: the paper draws image tokens anew from the logits that a pass over the generated ones
        gives. For families that draw in reading order each position is then drawn beside
        neighbours that it has never seen, so `redraw=false` keeps the image as it was generated
        and draws only the noise anew, given that these codes won.

    Attributes:
        start: Gumbel temperature at the first iteration, above 0.
        end: at the last.
        schedule: "constant" stays at `start`; "linear" and "exponential" lead from `start` to
            `end`.
        redraw: whether codes are drawn anew, as the paper says.
        mask_draws: masks that a mask-predicting family is given for each image, each of which
            makes another candidate; others have no masks and need 1.
    """

    start: float = 1.0
    end: float = 1.0
    schedule: Literal["constant", "linear", "exponential"] = "constant"
    redraw: bool = False
    mask_draws: int = 1

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "linear", "exponential"):
            raise ValueError(f"schedule={self.schedule!r} is none of constant, linear, exponential")
        for name in ("start", "end"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} must be a temperature above 0")
        if self.mask_draws < 1:
            raise ValueError(f"mask_draws={self.mask_draws} must be at least 1")

    def temperature(self, progress: float) -> float:
        """The Gumbel temperature at a share of the run, in [0, 1]."""
        if self.schedule == "constant":
            return self.start
        if self.schedule == "linear":
            return self.start + (self.end - self.start) * progress
        return self.start * (self.end / self.start) ** progress
