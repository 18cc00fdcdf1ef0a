"""What a run keeps of itself, and when it is given up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import lightning

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.best_policy import BestPolicy
from unified_rl.runtime.divergence_watch import DivergenceWatch


@dataclass(frozen=True)
class Survival:
    """Settings that change no number, so that a run may go on with others than it began with.

    Attributes:
        keep_every: iterations between resumable checkpoints that are never removed, a multiple of
            `checkpoint_every`; 0 keeps the last two alone.
        best: a logged metric; the policy whose mean since the last resumable checkpoint was the
            best so far is kept in the folder `best`. None keeps none.
        best_mode: whether "max" or "min" of it is the best.
        divergence_limit: of the logged `kl`, in nats a token, 0 or more; above it a run is
            warned of. None watches nothing.
        divergence_patience: iterations in a row above it after which training aborts; 0 never
            aborts.
    """

    keep_every: int = 0
    best: str | None = None
    best_mode: Literal["max", "min"] = "max"
    divergence_limit: float | None = 10.0
    divergence_patience: int = 10

    def __post_init__(self) -> None:
        if self.keep_every < 0:
            raise ConfigError(f"survival.keep_every={self.keep_every} must be 0 or more")
        if self.best_mode not in ("max", "min"):
            raise ConfigError(f"survival.best_mode={self.best_mode!r} is neither max nor min")
        if self.divergence_limit is not None and not self.divergence_limit >= 0:
            raise ConfigError(
                f"survival.divergence_limit={self.divergence_limit} must be 0 or more; null "
                "watches nothing"
            )
        if self.divergence_patience < 0:
            raise ConfigError(
                f"survival.divergence_patience={self.divergence_patience} must be 0 or more; 0 "
                "never aborts"
            )

    def require(self, checkpoint_every: int) -> None:
        """Refuses what does not go with how often a run is saved.

        Raises:
            ConfigError: checkpoints are to be kept, or chosen among, that are not made.
        """
        if self.keep_every and (not checkpoint_every or self.keep_every % checkpoint_every):
            raise ConfigError(
                f"survival.keep_every={self.keep_every} is not a multiple of "
                f"checkpoint_every={checkpoint_every}, so nothing would be kept"
            )
        if self.best is not None and not checkpoint_every:
            raise ConfigError(
                f"survival.best={self.best} is looked at whenever a run is saved, which "
                "checkpoint_every=0 turns off"
            )

    def watchers(
        self, checkpoint_every: int, write_best: Callable[[dict], None]
    ) -> list[lightning.Callback]:
        """The callbacks that do what the settings say.

        Args:
            checkpoint_every: iterations between resumable checkpoints.
            write_best: keeps the policy as it is now; takes its provenance.
        """
        found: list[lightning.Callback] = []
        if self.divergence_limit is not None:
            found.append(DivergenceWatch(self.divergence_limit, self.divergence_patience))
        if self.best is not None:
            found.append(BestPolicy(self.best, self.best_mode, checkpoint_every, write_best))
        return found
