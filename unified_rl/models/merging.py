"""One tensor out of the same tensor of several models that were trained from one base.

Every rule takes the tensors of the models and that of the base, computes in float32 or wider, and
gives a tensor of the first model's dtype. Zero changes leave the base as it is, bit for bit but
for the sign of zeros.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unified_rl.core.errors import ConfigError


def linear(
    models: Sequence[Tensor], base: Tensor | None = None, weights: Sequence[float] | None = None
) -> Tensor:
    """The weighted mean of the models.

    Source: model soups (arXiv 2203.05482), section 2: the uniform soup.
    Departs: weights may differ.

    Args:
        models: two or more of one shape.
        base: not used; the mean of the changes is the change of the mean.
        weights: one for each model, at least 0; divided by their sum. None weighs all alike.

    Raises:
        ConfigError: fewer than two models, or weights that do not fit them.
    """
    _require_several(models, "linear")
    shares = _factors(weights, len(models), "weights")
    if min(shares) < 0 or sum(shares) == 0:
        raise ConfigError(f"rule.weights={list(shares)}: none may be negative, nor all be 0")
    first = _widened(models[0])
    # around the first model, so that models that agree give themselves, whatever the weights
    change = torch.zeros_like(first)
    for model, share in zip(models[1:], shares[1:], strict=True):
        change = change + share / sum(shares) * (_widened(model) - first)
    return (first + change).to(models[0].dtype)


def task_arithmetic(
    models: Sequence[Tensor], base: Tensor | None, scales: Sequence[float] | None = None
) -> Tensor:
    """The base and the sum of what each model changed in it, scaled.

    Source: task arithmetic (arXiv 2212.04089), section 2: learning via addition; a negative scale
        is forgetting via negation.
    Departs: there one scale, tuned on held-out data, is shared by all; here each model has its own.

    Args:
        models: of one shape.
        base: what all of them were trained from.
        scales: one for each model. None takes 1, which is not what the paper found best.

    Raises:
        ConfigError: no base, or scales that do not fit the models.
    """
    origin = _widened(_required(base, "task_arithmetic"))
    total = torch.zeros_like(origin)
    for model, scale in zip(models, _factors(scales, len(models), "scales"), strict=True):
        total = total + scale * (_widened(model) - origin)
    return (origin + total).to(models[0].dtype)


def gaussian(models: Sequence[Tensor], base: Tensor | None, spread: float = 2.0) -> Tensor:
    """The base, the mean of the models' small changes, and the sum of their large ones.

    With d_i what model i changed in the tensor, mu the mean of the means of all d_i and sigma the
    smallest of their standard deviations (over N - 1), an entry of d_i is small where
    mu - spread * sigma < d_i < mu + spread * sigma. Small entries are divided by the number of
    models, large ones are not; all are added to the base.

    What follows from that, and is kept: where two models made the same large change, it counts
    twice; a tensor that one of the models left alone has sigma 0, so every change of the others is
    large, as is every change of a tensor of one entry.

    Source: the function `weight_merging_gaussian` of the released CoRL code, for two models. CoRL
        (arXiv 2505.17534), sections 3.2 and 4.2, names the method and cites arXiv 2501.10661.
    Departs: more than two models are merged in the same way.
    Not established: whether arXiv 2501.10661 has this formula, this spread, statistics of single
        tensors, or a factor above 1 on large changes; whether CoRL merged all weights or those of
        the language model; and which base it took, the published model or that of its first stage.

    Args:
        models: two or more of one shape.
        base: what all of them were trained from.
        spread: standard deviations from the mean within which a change is small, at least 0. 0
            makes every change large, and the result that of `task_arithmetic`.

    Raises:
        ConfigError: fewer than two models, no base, or a spread that is negative or not finite.
    """
    _require_several(models, "gaussian")
    origin = _widened(_required(base, "gaussian"))
    if not (math.isfinite(spread) and spread >= 0):
        raise ConfigError(f"rule.spread={spread} must be a finite number of at least 0")
    changes = [_widened(model) - origin for model in models]
    middle = torch.stack([change.mean() for change in changes]).mean()
    # of one entry there is no spread
    spreads = [change.std() if change.numel() > 1 else torch.zeros(()) for change in changes]
    reach = spread * min(spreads)
    total = torch.zeros_like(origin)
    for change in changes:
        is_small = (middle - reach < change) & (change < middle + reach)
        total = total + torch.where(is_small, change / len(models), change)
    return (origin + total).to(models[0].dtype)


def _widened(tensor: Tensor) -> Tensor:
    """In float32, or float64 if it is that."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _required(base: Tensor | None, rule: str) -> Tensor:
    if base is None:
        raise ConfigError(
            f"rule={rule} needs base=...: the folder of the weights that all were trained from"
        )
    return base


def _require_several(models: Sequence[Tensor], rule: str) -> None:
    if len(models) < 2:
        raise ConfigError(f"rule={rule} merges two models or more; checkpoints has {len(models)}")


def _factors(values: Sequence[float] | None, count: int, setting: str) -> Sequence[float]:
    """One finite number for each model; 1 where none are given."""
    if values is None:
        return [1.0] * count
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if not is_list or len(values) != count or not all(map(_is_finite, values)):
        raise ConfigError(
            f"rule.{setting}={values} must be a list of {count} finite numbers, one for each of "
            "checkpoints"
        )
    return values


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
