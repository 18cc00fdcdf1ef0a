"""Keeps the best policy of a run beside its last one."""

import math
from collections.abc import Callable
from typing import Any, Literal

import lightning

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.stages.base import Stage


class BestPolicy(lightning.Callback):
    """Writes the policy whenever a metric's mean over some iterations is the best so far.

    The mean is over the iterations since it was last looked at, as the metric of a single rollout
    is noise.

    Args:
        metric: as it is logged.
        mode: whether "max" or "min" of it is the best.
        every: iterations between looks.
        write: keeps the policy as it is now; takes its provenance.
    """

    def __init__(
        self, metric: str, mode: Literal["max", "min"], every: int, write: Callable[[dict], None]
    ) -> None:
        self.metric, self.mode, self.every = metric, mode, every
        self._write = write
        self._best: float | None = None
        self._values: list[float] = []  # since the last look

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and those since the last look."""
        return {"best": self._best, "values": list(self._values)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on comparing."""
        self._best, self._values = state_dict["best"], list(state_dict["values"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Stage) -> None:
        """Refuses a stage whose policy is whole only at the end.

        Raises:
            ConfigError: the stage trains an image tokenizer, which the policy then adopts.
        """
        if pl_module.trains_codec:
            raise ConfigError(
                f"survival.best={self.metric} does not go with stage=image_codec, whose policy is "
                "whole only at the end; leave it out"
            )

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Stage,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Looks where it is time.

        Raises:
            ConfigError: nothing of that name is logged.
        """
        logged = pl_module.reported
        if self.metric in logged:
            self._values.append(logged[self.metric])
        elif not self._values and self._best is None and not pl_module.iteration:
            raise ConfigError(
                f"survival.best={self.metric} is not logged; {nearest(self.metric, logged)}"
            )
        finished = pl_module.iteration + 1
        if (finished % self.every and finished < pl_module.iterations) or not self._values:
            return
        mean, self._values = sum(self._values) / len(self._values), []
        sign = 1 if self.mode == "max" else -1
        if math.isfinite(mean) and (self._best is None or sign * mean > sign * self._best):
            self._best = mean
            self._write({"metric": self.metric, "mean": mean, "iterations": finished})
