"""Every process holds all of the model; gradients are averaged once a step."""

from datetime import timedelta
from typing import Literal

from lightning.pytorch.strategies import DDPStrategy
from torch import distributed

from unified_rl.core.errors import ConfigError
from unified_rl.core.ranks import Ranks


class ReplicatedStrategy(DDPStrategy):
    """Data parallelism: Lightning's, without torch's wrapper around the model.

    The wrapper averages gradients in every backward pass and expects the ranks to make equally
    many, over the same parameters; ragged rollouts do neither. `Stage.descend` averages them once
    a step instead.

    Args:
        timeout_s: seconds that ranks wait for each other; see `Ranks`.
    """

    def __init__(self, timeout_s: float = 1800.0) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_s))
        self.timeout_s = timeout_s
        self.ranks = Ranks()

    def setup_distributed(self) -> None:
        """Joins all ranks."""
        super().setup_distributed()
        self.ranks = Ranks(distributed.new_group(backend="gloo"), self.timeout_s)

    def configure_ddp(self) -> None:
        """Leaves the model as it is, with the weights of rank 0."""
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            distributed.broadcast(tensor.detach(), src=0)


def single(devices: int | str | list) -> Literal["auto"]:
    """Lightning's own choice for one process.

    Args:
        devices: of the trainer.

    Raises:
        ConfigError: there are several.
    """
    count = len(devices) if isinstance(devices, list) else devices
    if str(count) != "1":
        raise ConfigError(
            f"trainer.devices={devices} needs a strategy for several processes; add strategy=ddp "
            "or strategy=deepspeed_zero2"
        )
    return "auto"
