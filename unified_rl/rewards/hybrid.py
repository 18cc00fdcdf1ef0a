"""The hybrid reward: a weighted sum of rewards, watched for being broken."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.protocols import Policy, Reward
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.objectives.advantages import STD_FLOOR

_log = logging.getLogger(__name__)


class HybridScores(NamedTuple):
    """What a hybrid reward says of B completions; tensors are on the CPU.

    Attributes:
        outcome: (B,) float32, the total.
        steps: (B, K) float32, the total of each modality step, NaN where no component says
            anything; None if no component that counts has a per-step form.
        components: each component's own scores, before weighting and normalising.
    """

    outcome: Tensor
    steps: Tensor | None
    components: dict[str, RewardScores]

    def select(self, rows: Tensor) -> Self:
        """The scores of the given rows."""
        components = {name: scores.select(rows) for name, scores in self.components.items()}
        return type(self)(*RewardScores(self.outcome, self.steps).select(rows), components)


class HybridReward:
    """The weighted sum of rewards.

    A component of weight 0 is scored and logged but never counts: a held-out judge.

    Source: UnifiedGRPO 3.3, eq. 7, and its process-level reward.
    Departs: weights other than 1, and `normalisation="standardise"`, are offered.

    Args:
        components: rewards by name.
        normalisation: "sum" adds raw scores, as the paper does, so that the widest reward rules;
            "standardise" first centres each component on this rollout and divides it by its std
            there (over B; constant components give 0), steps likewise over all their scores.
        flat_patience: rollouts in a row with one and the same total for every completion after
            which training aborts.

    Raises:
        ConfigError: no component counts, or a setting is out of its range.
    """

    def __init__(
        self,
        components: Mapping[str, Reward],
        normalisation: Literal["sum", "standardise"] = "sum",
        flat_patience: int = 50,
    ) -> None:
        if normalisation not in ("sum", "standardise"):
            raise ConfigError(f"normalisation={normalisation!r} is neither 'sum' nor 'standardise'")
        if "reward" in components:
            raise ConfigError("a reward cannot be named 'reward': the total is logged so")
        if flat_patience < 1:
            raise ConfigError(f"flat_patience={flat_patience} must be at least 1")
        if not any(reward.weight > 0 for reward in components.values()):
            raise ConfigError(
                f"none of the rewards {sorted(components)} has a weight above 0; nothing would "
                "be learned"
            )
        self.components = dict(components)
        self.normalisation = normalisation
        self.flat_patience = flat_patience
        self._flat: dict[str, tuple[float, int]] = {}  # value, rollouts in a row
        self._flat_total: tuple[float, int] | None = None
        self._warned: set[str] = set()

    def __call__(self, rollout: Rollout) -> HybridScores:
        """Scores a rollout with every component once.

        Raises:
            RewardError: a score is not finite, or the total has been flat for too long.
        """
        components: dict[str, RewardScores] = {}
        for name, reward in self.components.items():
            scores = reward(rollout)
            steps = None if scores.steps is None else scores.steps.cpu()
            components[name] = RewardScores(scores.outcome.cpu(), steps)
            _check_finite(name, components[name], rollout)
        self._watch(components)
        counting = [name for name, reward in self.components.items() if reward.weight > 0]
        outcome = torch.zeros(len(rollout.samples), dtype=torch.float64)
        for name in counting:
            own = self._normalised(components[name].outcome.double())
            outcome += self.components[name].weight * own
        steps = None
        if any(components[name].steps is not None for name in counting):
            steps = self._total_steps({name: components[name] for name in counting}, rollout)
        return HybridScores(outcome.float(), steps, components)

    def bind(self, policy: Policy, start: Callable[[], Policy]) -> None:
        """Gives the policy to the components that ask it; see `OwnPolicy`."""
        for reward in self.components.values():
            if hasattr(reward, "bind"):
                reward.bind(policy, start)

    def self_test(self) -> None:
        """Lets every component test itself.

        Raises:
            RewardError: naming the component that failed.
        """
        for name, reward in self.components.items():
            try:
                reward.self_test()
            except RewardError as error:
                raise RewardError(f"reward {name!r} fails its self-test: {error}") from error

    def metrics(self, scores: HybridScores) -> dict[str, float]:
        """What to log of a rollout.

        Returns:
            `<component>` and `<component>_std`, mean and std (over B) of raw outcomes;
            `<component>_share` in [0, 1] of the weighted absolute means; `reward` and
            `reward_std`, mean and std of the total.
        """
        parts = {
            name: self.components[name].weight * abs(own.outcome.double().mean().item())
            for name, own in scores.components.items()
        }
        whole = sum(parts.values())
        metrics: dict[str, float] = {}
        for name, own in (*scores.components.items(), ("reward", scores)):
            values = own.outcome.double()
            metrics[name] = values.mean().item()
            metrics[f"{name}_std"] = values.std(unbiased=False).item()
            if name in parts:
                metrics[f"{name}_share"] = parts[name] / whole if whole else 0.0
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """How long which reward has been flat, as plain values."""
        return {
            "flat": {name: list(entry) for name, entry in self._flat.items()},
            "flat_total": list(self._flat_total) if self._flat_total else None,
            "warned": sorted(self._warned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting where `state_dict` was taken."""
        self._flat = {name: (entry[0], entry[1]) for name, entry in state["flat"].items()}
        total = state["flat_total"]
        self._flat_total = (total[0], total[1]) if total else None
        self._warned = set(state["warned"])

    def _normalised(self, values: Tensor) -> Tensor:
        """Any shape, NaN stays NaN."""
        if self.normalisation == "sum":
            return values
        known = values[~values.isnan()]
        if known.numel() == 0:
            return values
        centred, std = values - known.mean(), known.std(unbiased=False)
        return centred / std if std > STD_FLOOR else centred * 0

    def _total_steps(self, components: Mapping[str, RewardScores], rollout: Rollout) -> Tensor:
        """(B, K): components without steps speak on the last step of each completion."""
        counts = torch.tensor([len(completion.segments) for completion in rollout.completions])
        widths = [own.steps.shape[1] for own in components.values() if own.steps is not None]
        total = torch.full((len(counts), max([int(counts.max()), *widths])), float("nan")).double()
        rows = counts.nonzero().flatten()
        for name, own in components.items():
            steps = torch.full_like(total, float("nan"))
            if own.steps is not None:
                steps[:, : own.steps.shape[1]] = self._normalised(own.steps.double())
            else:
                outcome = self._normalised(own.outcome.double())
                steps[rows, counts[rows] - 1] = outcome[rows]
            steps *= self.components[name].weight
            total = torch.where(total.isnan(), steps, total + steps.nan_to_num())
        return total.float()

    def _watch(self, components: Mapping[str, RewardScores]) -> None:
        """Counts flat rollouts on raw scores; warns of one reward, aborts on the total."""
        total = torch.zeros(())
        for name, scores in components.items():
            weight = self.components[name].weight
            total = total + weight * scores.outcome.double()
            flat = _counted(self._flat.pop(name, None), scores.outcome)
            if flat is None:
                continue
            self._flat[name] = flat
            if weight > 0 and flat[1] >= self.flat_patience and name not in self._warned:
                self._warned.add(name)
                _log.warning(
                    "reward %r was %.4g for every completion of %d rollouts; it teaches nothing",
                    name,
                    *flat,
                )
        self._flat_total = _counted(self._flat_total, total)
        if self._flat_total is not None and self._flat_total[1] >= self.flat_patience:
            value, count = self._flat_total
            parts = ", ".join(f"{name!r} {value:.4g}" for name, (value, _) in self._flat.items())
            raise RewardError(
                f"the total reward was {value:.4g} for every completion of {count} rollouts "
                f"({parts}); there is nothing to learn from it. Start from a policy that "
                "sometimes succeeds, sample at a higher temperature, or raise "
                "stage.reward.flat_patience"
            )


def _counted(before: tuple[float, int] | None, values: Tensor) -> tuple[float, int] | None:
    """The value and the length of a flat spell that these values go on, begin, or (None) end."""
    low, high = values.min().item(), values.max().item()
    if high - low > STD_FLOOR:
        return None
    if before is None or abs(before[0] - low) > STD_FLOOR:
        return low, 1
    return before[0], before[1] + 1


def _check_finite(name: str, scores: RewardScores, rollout: Rollout) -> None:
    if scores.outcome.shape != (len(rollout.samples),):
        raise RewardError(
            f"reward {name!r} gave outcomes of shape {tuple(scores.outcome.shape)} for "
            f"{len(rollout.samples)} completions"
        )
    wrong = ~torch.isfinite(scores.outcome)
    if scores.steps is not None:
        wrong = wrong | scores.steps.isinf().any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise RewardError(
            f"reward {name!r} is {scores.outcome[row].item()} for a completion of "
            f"{rollout.samples[row].id!r}; rewards must be finite (steps may be NaN)"
        )
