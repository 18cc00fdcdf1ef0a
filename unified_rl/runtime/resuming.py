"""How a killed run goes on: as if nothing had happened."""

import random
import time
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint

from unified_rl.core.durable import disk_is_full
from unified_rl.core.errors import StorageError
from unified_rl.runtime.checkpoint_file import CheckpointFile
from unified_rl.runtime.disk_space import DiskSpace
from unified_rl.runtime.preemption import StopRequest
from unified_rl.runtime.snapshots import Snapshots
from unified_rl.stages.base import Stage

_GLOBAL_RANDOMNESS = 2
"""Purpose of a stage's generator; the stages themselves use 0 and 1."""


class Resumable(Checkpoint):
    """Saves, every so many iterations, what it takes to go on with the very same numbers.

    Lightning's `ModelCheckpoint` counts optimiser steps, of which an iteration may take several.

    Args:
        snapshots: where to.
        every: iterations between saves; 0 saves nothing.
        stop: what asks for a save out of turn, and for the end of the run after it.
    """

    def __init__(self, snapshots: Snapshots, every: int, stop: StopRequest) -> None:
        self.snapshots, self.every = snapshots, every
        self._stop, self._space = stop, DiskSpace(snapshots.folder)
        self._earlier_s, self._started = 0.0, time.perf_counter()

    @property
    def wall_s(self) -> float:
        """Seconds since the run began, without those that a kill has lost."""
        return self._earlier_s + time.perf_counter() - self._started

    def state_dict(self) -> dict[str, float]:
        """Seconds so far."""
        return {"wall_s": self.wall_s}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Goes on counting seconds."""
        self._earlier_s = state_dict["wall_s"]

    def setup(self, trainer: lightning.Trainer, pl_module: Stage, stage: str) -> None:
        """Writes files where they belong; strategies with folders of their own never ask."""
        trainer.strategy.checkpoint_io = CheckpointFile()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Stage) -> None:
        """Removes what a kill left half done, and looks whether checkpoints will fit."""
        if trainer.is_global_zero and self.every:
            self.snapshots.tidy()
            self._space.check(self.snapshots.size() or _estimate(pl_module))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Stage, batch: Any, batch_idx: int
    ) -> None:
        """Ties what draws from global generators, such as dropout, to the iteration."""
        seed = pl_module.generator(_GLOBAL_RANDOMNESS).initial_seed()
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Stage, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves where it is time; the end of the run has a checkpoint of its own.

        Raises:
            StorageError: writing failed, by a full disk for one; what was saved before is intact.
            Stopped: the run was asked to.
        """
        finished = pl_module.iteration + 1
        if finished >= pl_module.iterations:
            return
        is_last = self._stop.is_raised(trainer)
        if self.every and (is_last or finished % self.every == 0):
            pl_module.iteration = finished  # Lightning calls the stage's own hook later
            try:
                self._save(trainer, finished)
            finally:
                pl_module.iteration = finished - 1
        if is_last:
            place = f"after {finished} of {pl_module.iterations} iterations"
            self._stop.stop(place, saved=self.every > 0)

    def _save(self, trainer: lightning.Trainer, finished: int) -> None:
        """Makes the last checkpoint; the loggers have this iteration's metrics already."""
        try:
            if trainer.is_global_zero:
                self.snapshots.begin(finished)
            trainer.strategy.barrier()
            trainer.save_checkpoint(self.snapshots.beside(finished))
            if trainer.is_global_zero:
                for logger in trainer.loggers:
                    logger.save()
                self.snapshots.seal(finished)
                self.snapshots.publish(finished)
                self._space.check(self.snapshots.size() or 0)
        except OSError as error:
            self.snapshots.abandon(finished)
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        iterations = self.snapshots.iterations()
        kept = (
            f"that of iteration {iterations[-1]} is intact" if iterations else "none was kept yet"
        )
        mend = "; free some space" if disk_is_full(error) else ""
        return StorageError(
            f"saving a checkpoint in {self.snapshots.folder} failed ({error.strerror or error}); "
            f"{kept}{mend}, then the same command goes on"
        )


def _estimate(stage: Stage) -> int:
    """Bytes of a checkpoint: weights, and AdamW's two moments of those that train."""
    return sum(p.nbytes * (3 if p.requires_grad else 1) for p in stage.parameters())
