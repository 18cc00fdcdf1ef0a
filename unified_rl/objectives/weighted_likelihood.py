"""Likelihood of answers, weighted within groups by their rewards, with a KL to a reference."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unified_rl.objectives.divergences import Divergence, k3


class LikelihoodTerms(NamedTuple):
    """The loss of some rows; with weights of the whole batch, every field adds up over parts.

    Attributes:
        loss: () to be minimised; the only one with a gradient.
        nll: () the weighted negative log-likelihood in it.
        kl: () the k3 estimate of the KL to the reference, each row's sum or mean as the loss takes
            it, averaged over rows; 0 without a reference.
    """

    loss: Tensor
    nll: Tensor
    kl: Tensor


@dataclass(frozen=True)
class WeightedLikelihood:
    """What self-improvement minimises: answers are imitated, better ones more.

    With `answers="gold"` the gold answer to each question is learnt, all weights alike: UniRL
    eq. 4. With "sampled" the policy's own answers are, weighted within a group by
    softmax((r - mean) / sharpness): UniRL eq. 5, which it calls GRPO.

    Source: UniRL 3.4, eqs. 4 and 5.
    Departs: this is no clipped ratio, as the name GRPO would have it; it is what the paper says.
        Neither the temperature of the weights nor the coefficient of the KL survives in the
        paper's text; both are ours, and so is the estimator. `centred` is ours too.

    Attributes:
        answers: "gold" or "sampled".
        sharpness: temperature of the weights, above 0; small ones learn from the best alone. The
            default is for rewards in [0, 1].
        centred: takes 1/G off the weights, so that those of a group add up to 0. What is taken off
            is the mean log-likelihood of answers of the policy's own, whose gradient is 0 in
            expectation, through the image too: only noise goes, most of it where rewards are
            alike. (Drawings whose surest codes were kept, as Show-o's, are scored otherwise than
            they came about: learnt apart, they lose a pull to the surest codes, too.) Needs sampled
            answers; false is eq. 5 to the letter.
        beta: weight of the KL to the reference, 0 or more; 0 needs no reference.
        divergence: see `divergences`; "k3_ratio" is the reverse KL in value and gradient.
        normalisation: "sum" adds the log-probabilities of a row, as the equations do; "mean"
            takes their mean, so that long answers pull no harder than short ones.
    """

    answers: Literal["gold", "sampled"] = "sampled"
    sharpness: float = 0.25
    centred: bool = False
    beta: float = 0.04
    divergence: str = "k3_ratio"
    normalisation: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        if self.answers not in ("gold", "sampled"):
            raise ValueError(f"answers={self.answers!r} is neither 'gold' nor 'sampled'")
        if not 0 < self.sharpness < float("inf"):
            raise ValueError(f"sharpness={self.sharpness} must be a temperature above 0")
        if self.centred and self.answers == "gold":
            raise ValueError(
                "centred=true leaves nothing of gold answers, which weigh alike; set centred=false"
            )
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"beta={self.beta} must be finite and 0 or more")
        if self.beta and self.answers == "gold":
            raise ValueError(
                f"beta={self.beta}: an estimate of the KL needs answers of the policy's own, and "
                "answers='gold' learns others; set beta=0"
            )
        Divergence(self.divergence)  # raises, naming the value
        if self.normalisation not in ("sum", "mean"):
            raise ValueError(f"normalisation={self.normalisation!r} is neither 'sum' nor 'mean'")

    def weights(self, rewards: Tensor, group_size: int) -> Tensor:
        """(B,) weights that add up to 1 within each group, or to 0 where they are centred.

        Args:
            rewards: (B,), the G members of a group in a row; not read with gold answers.
            group_size: G.
        """
        groups = rewards.float().view(-1, group_size)
        if self.answers == "gold":
            return torch.full_like(groups, 1 / group_size).flatten()
        centred = groups - groups.mean(1, keepdim=True)
        weights = (centred / self.sharpness).softmax(1)
        return (weights - 1 / group_size if self.centred else weights).flatten()

    def loss(
        self,
        logprobs: Tensor,
        reference_logprobs: Tensor | None,
        weights: Tensor,
        action_mask: Tensor,
        row_count: int,
    ) -> LikelihoodTerms:
        """The loss of the rows given.

        Args:
            logprobs: (b, L, D) under the policy, with gradient.
            reference_logprobs: (b, L, D) under the frozen reference; None only if beta is 0.
            weights: (b,) of the rows in the whole batch, where they add up to 1, or to 0.
            action_mask: (b, L, D) bool; what lies outside gets no gradient.
            row_count: rows of the whole batch, over which the KL is averaged.

        Raises:
            ValueError: the reference is missing.
        """
        if self.beta and reference_logprobs is None:
            raise ValueError(f"beta={self.beta} needs reference_logprobs; give them or set beta=0")
        own = logprobs.masked_fill(~action_mask, 0.0)
        nll = -(weights.to(own) * self._of_rows(own, action_mask)).sum()
        if reference_logprobs is None:
            return LikelihoodTerms(nll, nll.detach(), torch.zeros_like(nll.detach()))
        reference = reference_logprobs.masked_fill(~action_mask, 0.0)
        fixed = own.detach()
        divergence = Divergence(self.divergence)(own, reference, fixed)
        pull = self._of_rows(divergence.masked_fill(~action_mask, 0.0), action_mask)
        seen = k3(fixed, reference, fixed).masked_fill(~action_mask, 0.0)
        return LikelihoodTerms(
            nll + self.beta * pull.sum() / row_count,
            nll.detach(),
            self._of_rows(seen, action_mask).sum() / row_count,
        )

    def _of_rows(self, values: Tensor, action_mask: Tensor) -> Tensor:
        """(b, L, D) -> (b,)."""
        total = values.sum((1, 2))
        if self.normalisation == "sum":
            return total
        return total / action_mask.sum((1, 2)).clamp(min=1)
