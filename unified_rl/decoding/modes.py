"""The mode in which a policy is measured, and the way back to the one it was in."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from unified_rl.core.protocols import Policy


@contextlib.contextmanager
def evaluation_mode(policy: Policy) -> Iterator[None]:
    """Without dropout and without gradients; afterwards each module is in the mode it was in.

    `policy.train()` would not do: it also switches modules that were in evaluation mode by
    themselves, such as a frozen encoder.
    """
    modules = policy.modules() if isinstance(policy, nn.Module) else ()
    training = [module for module in modules if module.training]
    if training:
        policy.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
