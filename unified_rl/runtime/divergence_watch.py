"""Watches that a policy does not run away from its reference."""

import logging
from typing import Any

import lightning

from unified_rl.core.errors import TrainingError
from unified_rl.stages.base import Stage

_log = logging.getLogger(__name__)


class DivergenceWatch(lightning.Callback):
    """Warns of a KL divergence above a limit, and gives up where it stays there.

    Args:
        limit: of the metric `kl`, in nats a token.
        patience: iterations in a row above it after which training aborts; 0 never aborts.
    """

    def __init__(self, limit: float, patience: int) -> None:
        self.limit, self.patience = limit, patience
        self._above = 0  # iterations in a row

    def state_dict(self) -> dict[str, int]:
        """How long the divergence has been too large."""
        return {"above": self._above}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on counting."""
        self._above = state_dict["above"]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: Stage,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Counts; stages that log no `kl` are not watched.

        Raises:
            TrainingError: the divergence has been too large for too long.
        """
        if "kl" not in pl_module.reported:
            return
        kl = pl_module.reported["kl"]  # the same on every rank
        self._above = 0 if kl <= self.limit else self._above + 1  # NaN counts as too large
        if self._above == 1:
            _log.warning(
                "kl=%.4g at iteration %d is above survival.divergence_limit=%.4g",
                kl,
                pl_module.iteration,
                self.limit,
            )
        if self.patience and self._above >= self.patience:
            raise TrainingError(
                f"kl was above survival.divergence_limit={self.limit} for {self._above} iterations "
                f"in a row, {kl:.4g} at iteration {pl_module.iteration}; lower "
                "optimisation.learning_rate or raise objective.beta, or set "
                "survival.divergence_patience=0 to go on"
            )
