"""Rewards that say the same of everything, rollout after rollout, and so teach nothing."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.trajectory import RewardScores
from unified_rl.objectives.advantages import STD_FLOOR

_log = logging.getLogger(__name__)


class FlatWatch:
    """Counts rollouts in a row with one and the same score for every completion that is judged.

    A rollout of which a reward judges nothing neither ends nor prolongs its spell. The total is
    watched task by task, as drawings and answers may have different constants; it is flat when
    that of each task is.

    Args:
        patience: rollouts after which a reward is warned of, and training aborts over the total.

    Raises:
        ConfigError: the patience is below 1.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ConfigError(f"flat_patience={patience} must be at least 1")
        self.patience = patience
        self._spells: dict[str, tuple[float, int]] = {}  # value, rollouts in a row
        self._totals: dict[str, tuple[float, int] | None] = {}  # by task
        self._warned: set[str] = set()

    def watch(
        self,
        components: Mapping[str, RewardScores],
        weights: Mapping[str, float],
        totals: Mapping[str, Tensor],
    ) -> None:
        """Counts a rollout on raw scores.

        Args:
            components: scores by name.
            weights: by name; of a reward of weight 0 nothing is said.
            totals: by task, (n,) weighted sums for the completions that some reward of weight
                judges.

        Raises:
            RewardError: the total has been flat for too long.
        """
        for name, scores in components.items():
            judged = scores.outcome[scores.judged_rows]
            if not len(judged):
                continue
            flat = _counted(self._spells.pop(name, None), judged)
            if flat is None:
                continue
            self._spells[name] = flat
            if weights[name] > 0 and flat[1] >= self.patience and name not in self._warned:
                self._warned.add(name)
                _log.warning(
                    "reward %r was %.4g for every completion of %d rollouts; it teaches nothing",
                    name,
                    *flat,
                )
        for task, total in totals.items():
            if len(total):
                self._totals[task] = _counted(self._totals.get(task), total)
        spells = self._totals.values()
        if spells and all(spell and spell[1] >= self.patience for spell in spells):
            values = ", ".join(f"{spell[0]:.4g} ({task})" for task, spell in self._totals.items())
            parts = ", ".join(f"{name!r} {value:.4g}" for name, (value, _) in self._spells.items())
            raise RewardError(
                f"the total reward was {values} for every completion of "
                f"{min(spell[1] for spell in spells)} rollouts ({parts}); there is nothing to "
                "learn from it. Start from a policy that sometimes succeeds, sample at a higher "
                "temperature, or raise stage.reward.flat_patience"
            )

    def state_dict(self) -> dict[str, Any]:
        """How long which reward has been flat, as plain values."""
        return {
            "flat": {name: list(spell) for name, spell in self._spells.items()},
            "flat_totals": {t: list(spell) if spell else None for t, spell in self._totals.items()},
            "warned": sorted(self._warned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting where `state_dict` was taken."""
        self._spells = {name: (spell[0], spell[1]) for name, spell in state["flat"].items()}
        totals = state["flat_totals"]
        self._totals = {t: (spell[0], spell[1]) if spell else None for t, spell in totals.items()}
        self._warned = set(state["warned"])


def _counted(before: tuple[float, int] | None, values: Tensor) -> tuple[float, int] | None:
    """The value and the length of a flat spell that these values go on, begin, or (None) end."""
    low, high = values.min().item(), values.max().item()
    if high - low > STD_FLOOR:
        return None
    if before is None or abs(before[0] - low) > STD_FLOOR:
        return low, 1
    return before[0], before[1] + 1
