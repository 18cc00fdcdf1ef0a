"""Gradient checkpointing: layers keep no activations and are run again on the way back."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from unified_rl.core.errors import ConfigError


def recompute_layers(modules: Iterable[nn.Module]) -> None:
    """Makes the transformer layers in `modules` recompute their activations, in place.

    Departs: the library's own switch acts in training mode only, where it also drops the cache. RL
        stages learn in evaluation mode, without dropout, and would keep every activation; sampling
        in training mode would lose its cache. So here it hangs on gradients, not on the mode. A
        layer that is run again must change no cache; `KeptCache` keeps what it was given first.

    Raises:
        ConfigError: there is no such layer.
    """
    found = [m for module in modules for m in module.modules()]
    layers = [layer for layer in found if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            "adapter.gradient_checkpointing=true, but the language model has no layer that can be "
            "run again; use false"
        )
    for layer in layers:
        # a partial of a bound method, unlike a closure, is copied along with its layer
        layer.forward = functools.partial(_forward, layer.forward)


def _forward(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)
