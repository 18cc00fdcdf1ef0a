"""The GRPO loss over text and image tokens alike."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

from unified_rl.objectives.aggregation import Aggregation
from unified_rl.objectives.divergences import Divergence, k3
from unified_rl.objectives.surrogate import (
    clipped_surrogate,
    log_ratio,
    per_position,
    ratio_clip_fraction,
)


class GrpoTerms(NamedTuple):
    """The loss of some rows and what to log beside it.

    `loss` and `policy_loss` of micro-batches add up to the batch's. The other three are plain means
    over the actions (positions, with ratio_unit="position") of the rows given.

    Attributes:
        loss: () to be minimised; the only one with a gradient.
        policy_loss: () the loss without its KL term. At a first update it is minus the weighted
            mean advantage, near 0 by construction, and says nothing of whether training works.
        kl: () the k3 estimate in nats, whatever divergence is trained on; 0 without a reference.
        clip_fraction: () from 0 to 1.
        ratio_mean: () exactly 1 at the first update after a rollout.
    """

    loss: Tensor
    policy_loss: Tensor
    kl: Tensor
    clip_fraction: Tensor
    ratio_mean: Tensor


@dataclass(frozen=True)
class GrpoObjective:
    """Clipped surrogate minus beta KL over one trajectory of mixed modalities, as a loss.

    Source: UnifiedGRPO eqs. 3 to 5 and fig. 1. CoRL eq. 2 with clip_low=1, clip_high=inf.
    Departs: UnifiedGRPO speaks of a KL penalty without printing its term, weight, estimator or
        clip distance; they are DeepSeekMath eq. 3's here, beta=0.04 included, with PPO's 0.2.
        CoRL prints one ratio for a whole output; here, as in its released code, each token has its.

    Attributes:
        clip_low: distance below 1 at which the ratio is clipped, 0 to 1.
        clip_high: distance above 1, 0 or more.
        beta: weight of the KL to the reference; 0 needs no reference.
        divergence: "k2", "k3" or "k3_ratio"; see `divergences` for the gradient each has.
        ratio_unit: "position" takes one ratio a position, over the product of its D codes; "code"
            one a code. The same for D = 1. With shared weights (`Aggregation.count="positions"`) a
            code of a D-code position gets 1/D of the on-policy pull that "position" gives it.
        aggregation: how actions are averaged.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    beta: float = 0.04
    divergence: str = "k3"
    ratio_unit: Literal["position", "code"] = "position"
    aggregation: Aggregation = field(default_factory=Aggregation)

    def __post_init__(self) -> None:
        if not 0 <= self.clip_low <= 1:
            raise ValueError(f"clip_low={self.clip_low} is outside [0, 1]; 1 clips nothing")
        if not self.clip_high >= 0:
            raise ValueError(f"clip_high={self.clip_high} must be 0 or more; inf clips nothing")
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"beta={self.beta} must be finite and 0 or more")
        Divergence(self.divergence)  # raises, naming the value
        if self.ratio_unit not in ("position", "code"):
            raise ValueError(f"ratio_unit={self.ratio_unit!r} is neither 'position' nor 'code'")

    def units(self, action_mask: Tensor) -> Tensor:
        """The mask of what has a ratio of its own: (B, L, 1) for positions, (B, L, D) for codes."""
        return action_mask.any(-1, keepdim=True) if self.ratio_unit == "position" else action_mask

    def total(self, action_mask: Tensor, modality: Tensor) -> Tensor | None:
        """() what the weights are divided by, where it depends on all rows; None elsewhere."""
        if self.aggregation.normalisation != "token":
            return None
        return self.aggregation.total(self.units(action_mask), modality)

    def weights(
        self, action_mask: Tensor, modality: Tensor, total: Tensor | float | None = None
    ) -> Tensor:
        """The aggregation's weights of the ratio's units, once for the whole accumulated batch.

        Args:
            action_mask: (B, L, D) bool.
            modality: (B, L).
            total: see `Aggregation.token_weights`.

        Returns:
            (B, L, 1) or (B, L, D) float32, to be sliced by rows along with everything else.
        """
        return self.aggregation.token_weights(self.units(action_mask), modality, total)

    def loss(
        self,
        logprobs: Tensor,
        behaviour_logprobs: Tensor,
        reference_logprobs: Tensor | None,
        advantages: Tensor,
        weights: Tensor,
        action_mask: Tensor,
    ) -> GrpoTerms:
        """The loss of the rows given; what lies outside `action_mask` has a gradient of exactly 0.

        Args:
            logprobs: (B, L, D) under the policy in training, with gradient.
            behaviour_logprobs: (B, L, D) as recorded while sampling. Where a rollout serves a
                single update, `logprobs.detach()` does as well.
            reference_logprobs: (B, L, D) under the frozen reference; None only if beta is 0.
            advantages: (B,) or (B, L).
            weights: rows of `self.weights`.
            action_mask: (B, L, D) bool.

        Raises:
            ValueError: the reference is missing, or shapes do not fit.
        """
        units = self.units(action_mask)
        if weights.shape != units.shape:
            raise ValueError(
                f"weights have shape {tuple(weights.shape)}, but ratio_unit={self.ratio_unit!r} "
                f"needs {tuple(units.shape)}; make them with GrpoObjective.weights"
            )
        if self.beta > 0 and reference_logprobs is None:
            raise ValueError(f"beta={self.beta} needs reference_logprobs; give them or set beta=0")
        policy = self._fold(logprobs, action_mask)
        behaviour = self._fold(behaviour_logprobs.detach(), action_mask)
        advantages = _per_unit(advantages.detach(), units)
        clips = self.clip_low, self.clip_high

        surrogate = clipped_surrogate(policy, behaviour, advantages, *clips)
        loss = policy_loss = -(weights * surrogate).sum()
        kl = policy_loss.new_zeros(())
        if reference_logprobs is not None:
            reference = self._fold(reference_logprobs.detach(), action_mask)
            kl = _mean(k3(policy.detach(), reference, behaviour), units)
            if self.beta > 0:
                divergence = Divergence(self.divergence)(policy, reference, behaviour)
                loss = policy_loss + self.beta * (weights * divergence).sum()
        return GrpoTerms(
            loss=loss,
            policy_loss=policy_loss.detach(),
            kl=kl,
            clip_fraction=ratio_clip_fraction(policy, behaviour, advantages, *clips, units),
            ratio_mean=_mean(log_ratio(policy.detach(), behaviour).exp(), units),
        )

    def _fold(self, logprobs: Tensor, action_mask: Tensor) -> Tensor:
        """(B, L, 1 or D) log-probs of the units, 0 outside.

        Filling comes first: a weight of 0 does not silence an infinity behind it, a fill does.
        """
        if self.ratio_unit == "position":
            return per_position(logprobs, action_mask).unsqueeze(-1)
        return logprobs.masked_fill(~action_mask, 0.0)


def _per_unit(advantages: Tensor, units: Tensor) -> Tensor:
    """(B, 1, 1) or (B, L, 1), to broadcast over the units."""
    if advantages.shape == units.shape[:1]:
        return advantages[:, None, None]
    if advantages.shape == units.shape[:2]:
        return advantages.unsqueeze(-1)
    raise ValueError(
        f"advantages have shape {tuple(advantages.shape)}; expected {tuple(units.shape[:1])} "
        f"or {tuple(units.shape[:2])}"
    )


def _mean(values: Tensor, units: Tensor) -> Tensor:
    return values.masked_fill(~units, 0.0).sum() / units.sum().clamp(min=1)
