"""From logits to the distribution a token is drawn from: guidance, temperature, truncation."""

import torch
from torch import Tensor

from unified_rl.core.behaviour import Sampling
from unified_rl.core.errors import TrainingError


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, `unconditional + scale * (conditional - unconditional)`.

    The convention of Janus and VILA-U: scale 1 leaves the conditional logits. Show-o writes
    `(1 + w) * conditional - w * unconditional`, which is scale = w + 1.
    Half-precision logits are taken to float32, as a large scale would magnify their rounding.
    """
    dtype = torch.promote_types(conditional.dtype, torch.float32)
    conditional, unconditional = conditional.to(dtype), unconditional.to(dtype)
    return unconditional + scale * (conditional - unconditional)


def log_distribution(
    logits: Tensor,
    sampling: Sampling,
    allowed: Tensor | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """Log-probabilities (..., V) in float32 of the distribution that `sampling` makes of `logits`.

    Args:
        logits: (..., V), after guidance.
        sampling: temperature and truncation.
        allowed: (V,) bool, False for tokens that may never be drawn.
        support: (..., V) bool, the tokens that truncation kept when the action was drawn. Replay
            passes it, so that a policy that has moved since is renormalised over the same set.
    """
    logits = logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    if sampling.temperature > 0:
        logits = logits / sampling.temperature
    if support is None and sampling.truncates:
        support = _truncation(logits, sampling)
    if support is not None:
        logits = logits.masked_fill(~support, -torch.inf)
    return logits.log_softmax(-1)


def _truncation(logits: Tensor, sampling: Sampling) -> Tensor:
    """(..., V) bool: what greedy choice, top-k and top-p (in this order) keep."""
    if sampling.temperature == 0:
        return torch.zeros_like(logits, dtype=torch.bool).scatter_(
            -1, logits.argmax(-1, keepdim=True), True
        )
    keep = ~torch.isneginf(logits)  # what is no number stays, to be told
    if 0 < sampling.top_k < logits.shape[-1]:
        kept = logits.topk(sampling.top_k, dim=-1).indices
        keep &= torch.zeros_like(keep).scatter_(-1, kept, True)
    if sampling.top_p < 1:
        ordered, order = logits.masked_fill(~keep, -torch.inf).softmax(-1).sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # mass of the strictly more likely tokens
        keep &= torch.zeros_like(keep).scatter_(-1, order, before < sampling.top_p)
    return keep


def draw(log_probs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token a row and its log-probability.

    Tokens are those of `torch.multinomial`, whose race is run here without its checks: they wait
    for the device at every token. What is not a number goes on as a log-prob that is none.

    Args:
        log_probs: (R, V).
        generator: on the device of `log_probs`.

    Returns:
        ids (R,) int64 and their log-probs (R,).
    """
    times = torch.empty_like(log_probs).exponential_(generator=generator)
    ids = (log_probs.exp() / times).argmax(-1, keepdim=True)
    return ids.squeeze(-1), log_probs.gather(-1, ids).squeeze(-1)


def require_numbers(values: Tensor) -> None:
    """Looks at log-probs, or at the states behind them, once for a whole batch of tokens.

    Raises:
        TrainingError: some are NaN, so that tokens were drawn from what is no distribution.
    """
    if bool(values.isnan().any()):
        raise TrainingError(
            "the policy gives tokens probabilities that are not numbers: its weights, or what it "
            "was shown, hold NaN or infinity; in training, go back to an earlier checkpoint, and "
            "lower the learning rate if it comes again"
        )
