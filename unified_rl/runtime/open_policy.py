"""A policy by the name of its config, for programs that are not run by Hydra."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.cli import conf_folder, register_resolvers
from unified_rl.runtime.config_groups import VERSION_BASE

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from unified_rl.core.behaviour import Behaviour
    from unified_rl.models.base import UnifiedPolicy


def open_policy(
    model: str,
    checkpoint: str | None,
    behaviour: str,
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> tuple["UnifiedPolicy", "Behaviour"]:
    """A policy in evaluation mode, and how it draws.

    Args:
        model: an option of `conf/model`.
        checkpoint: folder of a model or of an adapter; None is what the option names.
        behaviour: an option of `conf/behaviour`.
        device: as torch names it; "auto" is cuda where there is one.
        overrides: further settings, as on the command line of `unified_rl.generate`.

    Raises:
        ConfigError: unknown options or settings, or a device that is not to be had.
        CheckpointError: weights that do not fit the model.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    asked = [f"model={model}", f"behaviour={behaviour}", *overrides]
    try:
        with initialize_config_dir(str(conf_folder()), version_base=VERSION_BASE):
            config = compose("generate", asked)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{' '.join(asked)} cannot be composed: {reason}") from error
    if checkpoint is not None:
        config.model.checkpoint = checkpoint
    device = settled_device(device)  # before the weights are read
    policy = instantiate(config.policy, _convert_="all")()
    return policy.eval().to(device), _behaviour(config)


def settled_device(device: str) -> str:
    """The device that a setting means.

    Raises:
        ConfigError: it is not to be had here.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={device} is not to be had here: {reason}") from error
    return device


def _behaviour(config: "DictConfig") -> "Behaviour":
    from hydra.utils import instantiate

    return instantiate(config.behaviour, _convert_="all")
