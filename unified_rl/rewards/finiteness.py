"""Rewards that are not numbers: kept away from every advantage, counted, and in the end refused."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unified_rl.core.errors import RewardError
from unified_rl.core.trajectory import RewardScores, Rollout

PATIENCE = 5
"""So many rollouts in a row with a score of one reward that is not finite end the run."""
_log = logging.getLogger(__name__)


class FiniteWatch:
    """Makes groups in which a score is NaN or infinite teach nothing.

    A group is compared within itself, so that one unknown score leaves the others without a
    meaning: no reward of weight judges any of its completions. A held-out judge, of weight 0, loses
    its own scores alone.

    Attributes:
        count: completions of the latest rollout with a score that is not finite.
    """

    def __init__(self) -> None:
        self.count = 0
        self._spells: dict[str, int] = {}  # rollouts in a row

    def clean(
        self,
        components: Mapping[str, RewardScores],
        weights: Mapping[str, float],
        rollout: Rollout,
    ) -> dict[str, RewardScores]:
        """The scores without those that say nothing.

        Args:
            components: scores by name.
            weights: by name.
            rollout: what was scored.

        Raises:
            RewardError: a reward was not finite for too many rollouts in a row.
        """
        wrong = {name: _not_finite(scores) for name, scores in components.items()}
        self.count = int(torch.stack(list(wrong.values())).any(0).sum())
        for name, rows in wrong.items():
            self._spells[name] = self._spells.get(name, 0) + 1 if bool(rows.any()) else 0
            if self._spells[name]:
                self._complain(name, components[name], int(rows.nonzero()[0]), rollout)
        if not self.count:
            return dict(components)
        counting = [rows for name, rows in wrong.items() if weights[name] > 0]
        groups = torch.stack(counting).any(0).view(-1, rollout.group_size).any(1)
        void = groups.repeat_interleave(rollout.group_size)
        return {
            name: _without(scores, void if weights[name] > 0 else wrong[name])
            for name, scores in components.items()
        }

    def state_dict(self) -> dict[str, int]:
        """For how many rollouts in a row which reward was not finite."""
        return dict(self._spells)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting where `state_dict` was taken."""
        self._spells = dict(state)

    def _complain(self, name: str, scores: RewardScores, row: int, rollout: Rollout) -> None:
        value, spell = scores.outcome[row].item(), self._spells[name]
        what = f"reward {name!r} is {value} for a completion of {rollout.samples[row].id!r}"
        if scores.steps is not None and scores.steps[row].isinf().any():
            what = f"reward {name!r} has an infinite step for {rollout.samples[row].id!r}"
        if spell >= PATIENCE:
            raise RewardError(
                f"{what}, and was not finite in {spell} rollouts in a row; rewards must be finite "
                "(steps may be NaN)"
            )
        if spell == 1:
            _log.warning("%s; its group teaches nothing", what)


def _not_finite(scores: RewardScores) -> Tensor:
    """(B,) bool; steps may be NaN where there is nothing to say."""
    wrong = ~torch.isfinite(scores.outcome)
    return wrong if scores.steps is None else wrong | scores.steps.isinf().any(1)


def _without(scores: RewardScores, rows: Tensor) -> RewardScores:
    """The scores as if those rows had not been judged."""
    steps = scores.steps
    return RewardScores(
        scores.outcome.masked_fill(rows, 0),
        None if steps is None else steps.masked_fill(rows[:, None], float("nan")),
        scores.judged_rows & ~rows,
    )
