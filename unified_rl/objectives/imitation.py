"""Likelihood of gold targets, one term a modality."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unified_rl.core.trajectory import Modality


class ActionCounts(NamedTuple):
    """How many actions of each modality a batch holds; both (), and they add over micro-batches."""

    text: Tensor
    image: Tensor


class ImitationTerms(NamedTuple):
    """The loss of some rows; given the counts of the whole batch, every field adds up over parts.

    Attributes:
        loss: () to be minimised; the only one with a gradient.
        text_nll: () nats an action, 0 without text.
        image_nll: () nats an action, 0 without images.
    """

    loss: Tensor
    text_nll: Tensor
    image_nll: Tensor


def action_counts(action_mask: Tensor, modality: Tensor) -> ActionCounts:
    """Counts the actions in (B, L, D) `action_mask` by the modality, (B, L), of their position."""
    of_image = (modality == Modality.IMAGE).unsqueeze(-1)
    return ActionCounts((action_mask & ~of_image).sum(), (action_mask & of_image).sum())


def modality_nll(
    logprobs: Tensor,
    action_mask: Tensor,
    modality: Tensor,
    text_weight: float = 1.0,
    image_weight: float = 1.0,
    normalisation: Literal["modality", "token"] = "modality",
    counts: ActionCounts | None = None,
) -> ImitationTerms:
    """Negative log-likelihood of the actions, text and image apart.

    Source: UnifiedGRPO eq. 2.
    Departs: eq. 2 prints sums over tokens, whose size follows the batch and in which hundreds of
        image tokens drown tens of text tokens. By default each modality is a mean of its own;
        normalisation="token" is eq. 2 divided by the number of terms in it.

    Args:
        logprobs: (B, L, D) under the policy; what lies outside the mask gets no gradient.
        action_mask: (B, L, D) bool. Each code of a residual-depth position is an action.
        modality: (B, L) a `Modality`.
        text_weight: 0 or more.
        image_weight: 0 or more.
        normalisation: "modality" is text_weight * text mean + image_weight * image mean; "token"
            the mean over all actions pooled, weights in numerator and denominator.
        counts: the actions of the whole accumulated batch, where these rows are a part of it; the
            parts' losses then add up, and must not be divided by their number. With gradients
            averaged over ranks, the mean of the ranks' counts.

    Raises:
        ValueError: a weight is negative, or the normalisation unknown.
    """
    for name, weight in (("text_weight", text_weight), ("image_weight", image_weight)):
        if weight < 0:
            raise ValueError(f"{name}={weight} is negative; 0 leaves it out")
    if normalisation not in ("modality", "token"):
        raise ValueError(f"normalisation={normalisation!r} is neither 'modality' nor 'token'")
    counts = action_counts(action_mask, modality) if counts is None else counts
    dtype = torch.promote_types(logprobs.dtype, torch.float32)
    losses = -logprobs.to(dtype).masked_fill(~action_mask, 0.0)  # (B, L, D)
    of_image = (modality == Modality.IMAGE).unsqueeze(-1)
    text = losses.masked_fill(of_image, 0.0).sum()
    image = losses.masked_fill(~of_image, 0.0).sum()
    text_nll, image_nll = _ratio(text, counts.text), _ratio(image, counts.image)
    if normalisation == "modality":
        loss = text_weight * text_nll + image_weight * image_nll
    else:
        weighted_count = text_weight * counts.text + image_weight * counts.image
        loss = _ratio(text_weight * text + image_weight * image, weighted_count)
    return ImitationTerms(loss, text_nll.detach(), image_nll.detach())


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """Total / count, and 0 for nothing over nothing, with a gradient of 0 rather than NaN."""
    return total / torch.where(count > 0, count, torch.ones_like(count))
