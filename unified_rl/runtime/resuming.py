"""How a killed run goes on: as if nothing had happened."""

import logging
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint

from unified_rl.core.errors import CheckpointError
from unified_rl.stages.base import Stage

_log = logging.getLogger(__name__)
_GLOBAL_RANDOMNESS = 2
"""Purpose of a stage's generator; the stages themselves use 0 and 1."""


class Resumable(Checkpoint):
    """Saves, every so many iterations, what it takes to go on with the very same numbers.

    Lightning's `ModelCheckpoint` counts optimiser steps, of which an iteration may take several.

    Args:
        path: of the file; replaced as a whole.
        every: iterations between saves; 0 saves nothing.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self._beside, self._written = path.with_suffix(".tmp"), False
        self._earlier_s, self._started = 0.0, time.perf_counter()

    @property
    def wall_s(self) -> float:
        """Seconds since the run began, without those that a kill has lost."""
        return self._earlier_s + time.perf_counter() - self._started

    def saved_iteration(self) -> int | None:
        """Where the saved run goes on; None where there is none, or none that can be read."""
        if not self.path.is_file():
            return None
        try:
            return int(torch.load(self.path, mmap=True, weights_only=True)["iteration"])
        except Exception as error:  # whatever a broken file makes torch raise
            reason = str(error).partition(". ")[0] or type(error).__name__
            _log.warning("%s is broken (%s); starting from the beginning", self.path, reason)
            return None

    def state_dict(self) -> dict[str, float]:
        """Seconds so far."""
        return {"wall_s": self.wall_s}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Goes on counting seconds."""
        self._earlier_s = state_dict["wall_s"]

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Stage, batch: Any, batch_idx: int
    ) -> None:
        """Ties what draws from torch's global generator, such as dropout, to the iteration.

        By now the loggers have the last iteration's metrics, so its file may take its place.
        """
        if self._written and trainer.is_global_zero:
            self._beside.replace(self.path)
        self._written = False
        torch.manual_seed(pl_module.generator(_GLOBAL_RANDOMNESS).initial_seed())

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Stage, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves where it is time; the end of the run has a checkpoint of its own.

        Raises:
            CheckpointError: writing failed, by a full disk for one; the previous file is intact.
        """
        finished = pl_module.iteration + 1
        if not self.every or finished % self.every or finished >= pl_module.iterations:
            return
        pl_module.iteration = finished  # Lightning calls the stage's own hook, which counts, later
        try:
            trainer.save_checkpoint(self._beside)
        except OSError as error:
            self._beside.unlink(missing_ok=True)
            kept = "the previous one is intact" if self.path.exists() else "nothing was written"
            raise CheckpointError(f"saving {self.path} failed ({error}); {kept}") from error
        finally:
            pl_module.iteration = finished - 1
        self._written = True
