"""Estimators of KL(policy || reference) from the drawn actions alone.

Each takes log-probs of shape (...) under the policy, the reference and the behaviour policy, and
returns (...). Their *values* agree in expectation (k2's nearly); their *gradients* do not, and it
is the gradient that trains. With actions drawn from the policy itself, and no gradient through the
drawing, the expected gradient is that of

    k1         nothing: it is 0. Only of use inside a reward, where it is detached.
    k2         the reverse KL(policy || reference), the divergence that the papers print.
    k3         the forward KL(reference || policy). What trl and the released CoRL code use.
    k3_ratio   the reverse KL, and for actions drawn from any behaviour policy, not just this one.

Source: Schulman, "Approximating KL Divergence" (k1, k2, k3); k3 is DeepSeekMath eq. 4.
"""

from enum import StrEnum

import torch
from torch import Tensor

from unified_rl.objectives.surrogate import log_ratio


class Divergence(StrEnum):
    """A KL estimator fit for a loss, by its name in the config; call it to estimate."""

    K2 = "k2"
    K3 = "k3"
    K3_RATIO = "k3_ratio"

    def __call__(
        self, logprobs: Tensor, reference_logprobs: Tensor, behaviour_logprobs: Tensor
    ) -> Tensor:
        """(...) estimates from (...) log-probs; see the function of the same name."""
        estimator = {Divergence.K2: k2, Divergence.K3: k3, Divergence.K3_RATIO: k3_ratio}[self]
        return estimator(logprobs, reference_logprobs, behaviour_logprobs)

    @classmethod
    def _missing_(cls, value: object) -> "Divergence":
        known = ", ".join(cls)
        why = (
            ": k1 pulls nowhere in expectation, subtract it from a reward" if value == "k1" else ""
        )
        raise ValueError(f"divergence={value!r} is none of {known}{why}")


def k1(logprobs: Tensor, reference_logprobs: Tensor, behaviour_logprobs: Tensor) -> Tensor:
    """log(pi / ref): unbiased, of either sign; its gradient is 0 in expectation.

    For use in a reward (detach it). As a loss term it adds noise and no pull.
    """
    return log_ratio(logprobs, reference_logprobs.detach())


def k2(logprobs: Tensor, reference_logprobs: Tensor, behaviour_logprobs: Tensor) -> Tensor:
    """log(pi / ref)^2 / 2: biased in value; its gradient is exactly the reverse KL's, on-policy."""
    return log_ratio(logprobs, reference_logprobs.detach()).square() / 2


def k3(logprobs: Tensor, reference_logprobs: Tensor, behaviour_logprobs: Tensor) -> Tensor:
    """Ref / pi - log(ref / pi) - 1: unbiased, never negative; its gradient is the forward KL's.

    It grows with exp(log ref - log pi): an action the reference likes far better than the policy
    dominates the mean.
    """
    difference = log_ratio(reference_logprobs.detach(), logprobs)
    return torch.expm1(difference) - difference  # expm1 keeps the digits that exp(d) - 1 loses


def k3_ratio(logprobs: Tensor, reference_logprobs: Tensor, behaviour_logprobs: Tensor) -> Tensor:
    """Pi / behaviour * k3, the ratio live: value and gradient are the reverse KL's, off-policy too.

    trl has it as `use_bias_correction_kl`. On-policy the ratio is 1 in value, not in gradient.
    """
    ratio = log_ratio(logprobs, behaviour_logprobs.detach()).exp()
    return ratio * k3(logprobs, reference_logprobs, behaviour_logprobs)
