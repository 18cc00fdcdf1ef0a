"""The clipped surrogate of PPO, and the unit that its probability ratio is taken over."""

import torch
from torch import Tensor


def log_ratio(logprobs: Tensor, other_logprobs: Tensor) -> Tensor:
    """`logprobs - other_logprobs` in float32 at least; exactly 0 where they are equal."""
    dtype = torch.promote_types(logprobs.dtype, torch.float32)
    return logprobs.to(dtype) - other_logprobs.to(dtype)


def clipped_surrogate(
    logprobs: Tensor,
    behaviour_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """The objective of each action, to be *maximised*: min(r A, clip(r, 1 - low, 1 + high) A).

    The minimum is taken action by action, before any mean. When the policy is the one that drew the
    actions, r is exactly 1, the value is A and the gradient is A times that of the log-prob.

    Source: UnifiedGRPO eqs. 3 and 4 (the paper calls the ratio a KL divergence).
    Departs: the ratio conditions on y_<t where eq. 4 prints y_<=t; two clip distances instead of
        one epsilon (equal distances give the paper's; clip_low=1, clip_high=inf clip nothing).

    Args:
        logprobs: (...) under the policy in training.
        behaviour_logprobs: (...) as recorded while sampling; no gradient flows into them.
        advantages: broadcastable to (...).
        clip_low: distance below 1, from 0 to 1.
        clip_high: distance above 1, 0 or more.
    """
    ratio = log_ratio(logprobs, behaviour_logprobs.detach()).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def ratio_clip_fraction(
    logprobs: Tensor,
    behaviour_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
    mask: Tensor,
) -> Tensor:
    """The fraction, 0 to 1, of actions whose gradient the clip cuts off.

    A ratio outside the interval is not enough: where the minimum picks the unclipped branch, as it
    does for a bad action that has become more likely, the gradient still flows.

    Args:
        logprobs: (...) under the policy in training.
        behaviour_logprobs: (...) as recorded while sampling.
        advantages: broadcastable to (...).
        clip_low: distance below 1.
        clip_high: distance above 1.
        mask: (...) bool, True for actions.

    Returns:
        () float, detached; 0 where there is no action.
    """
    ratio = log_ratio(logprobs.detach(), behaviour_logprobs.detach()).exp()
    too_low = (ratio < 1 - clip_low) & (advantages < 0)
    too_high = (ratio > 1 + clip_high) & (advantages > 0)
    return ((too_low | too_high) & mask).sum() / mask.sum().clamp(min=1)


def per_position(logprobs: Tensor, action_mask: Tensor) -> Tensor:
    """The log-probability of whole positions: the sum over the codes the policy chose there.

    A residual-depth position is D codes drawn one after another, so the chain rule makes the sum
    the log-probability of y_t in UnifiedGRPO eq. 4, which does not say how depth enters. Keeping
    the codes apart instead clips each on its own, and is the looser of the two trust regions.

    Args:
        logprobs: (B, L, D).
        action_mask: (B, L, D) bool; what lies outside is ignored, whatever its value.

    Returns:
        (B, L) float32 or wider, 0 where the position holds no action.
    """
    dtype = torch.promote_types(logprobs.dtype, torch.float32)
    return logprobs.to(dtype).masked_fill(~action_mask, 0.0).sum(-1)
