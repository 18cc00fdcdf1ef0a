"""The hybrid reward: a weighted sum of rewards, watched for being broken."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from unified_rl.core.errors import ConfigError, RewardError, UserError
from unified_rl.core.protocols import Policy, Reward
from unified_rl.core.ranks import Ranks
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.objectives.advantages import STD_FLOOR
from unified_rl.rewards.attempts import Attempts, described
from unified_rl.rewards.finiteness import FiniteWatch
from unified_rl.rewards.flatness import FlatWatch


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
        steps = None if self.steps is None else self.steps[rows]
        return type(self)(self.outcome[rows], steps, components)


class HybridReward:
    """The weighted sum of rewards.

    A component of weight 0 is scored and logged but never counts: a held-out judge.

    Source: UnifiedGRPO 3.3, eq. 7, and its process-level reward.
    Departs: weights other than 1, and `normalisation="standardise"`, are offered.

    Args:
        components: rewards by name.
        normalisation: "sum" adds raw scores, as the paper does, so that the widest reward rules;
            "standardise" first centres each component on this rollout and divides it by its std
            there (over the completions it judges; the others get 0, and so do all of a constant
            component), steps likewise over all their scores.
        flat_patience: rollouts in a row with one and the same total for every completion after
            which training aborts.
        retries: further tries of a component that fails to read or to connect.
        slow_after_s: seconds for one rollout after which a component is warned of, once.

    Attributes:
        ranks: the processes of the run, whose rollouts are one where statistics are taken.

    Raises:
        ConfigError: no component counts, or a setting is out of its range.
    """

    def __init__(
        self,
        components: Mapping[str, Reward],
        normalisation: Literal["sum", "standardise"] = "sum",
        flat_patience: int = 50,
        retries: int = 2,
        slow_after_s: float = 60.0,
    ) -> None:
        if normalisation not in ("sum", "standardise"):
            raise ConfigError(f"normalisation={normalisation!r} is neither 'sum' nor 'standardise'")
        if "reward" in components:
            raise ConfigError("a reward cannot be named 'reward': the total is logged so")
        if not any(reward.weight > 0 for reward in components.values()):
            raise ConfigError(
                f"none of the rewards {sorted(components)} has a weight above 0; nothing would "
                "be learned"
            )
        self.components = dict(components)
        self.normalisation = normalisation
        self._attempts = Attempts(retries, slow_after_s)
        self._flatness, self._finiteness = FlatWatch(flat_patience), FiniteWatch()
        self.ranks = Ranks()

    def __call__(self, rollout: Rollout) -> HybridScores:
        """Scores a rollout with every component once.

        Raises:
            RewardError: naming the component that failed, or whose scores were not finite for
                rollouts on end; or the total has been flat for too long. A group with one score
                that is not finite teaches nothing; see `FiniteWatch`.
        """
        components: dict[str, RewardScores] = {}
        for name, reward in self.components.items():
            components[name] = self._attempts(name, reward, rollout)
        weights = {name: reward.weight for name, reward in self.components.items()}
        components = self._finiteness.clean(components, weights, rollout)
        everyone = self.ranks.gather((components, [s.task.value for s in rollout.samples]))
        self._watch_flatness(everyone)
        population = [own for own, _ in everyone]
        counting = [name for name, weight in weights.items() if weight > 0]
        outcomes = {
            name: self._normalised(
                _judged(components[name]), [_judged(own[name]) for own in population]
            )
            for name in counting
        }
        outcome = torch.zeros(len(rollout.samples), dtype=torch.float64)
        for name in counting:
            outcome += weights[name] * outcomes[name].nan_to_num()
        steps = None
        if any(components[name].steps is not None for name in counting):
            steps = self._total_steps(outcomes, components, population, rollout)
        return HybridScores(outcome.float(), steps, components)

    def begin(self, part: Rollout) -> None:
        """Lets rewards that wait for another machine begin with a part of the next rollout.

        Args:
            part: rows of the rollout that no other part has.
        """
        for name, reward in self.components.items():
            if getattr(reward, "waits", False):
                self._attempts.begin(name, reward, part)

    def forget(self) -> None:
        """Gives up the rollout whose parts have begun."""
        self._attempts.forget()

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
            except UserError:
                raise
            except Exception as error:
                cause = described(error)
                raise RewardError(f"reward {name!r} fails its self-test: {cause}") from error

    def metrics(self, scores: HybridScores) -> dict[str, float]:
        """What to log of a rollout.

        Completions that a component does not judge are left out of its figures, and those that
        none judges which counts out of the total's; a component that judges none of the rollout
        has no figures.

        Returns:
            `<component>` and `<component>_std`, mean and std of raw outcomes; `<component>_share`
            in [0, 1] of the weighted absolute means; `<component>_s`, seconds waited for the latest
            rollout; `reward` and `reward_std`, mean and std of the total; `nonfinite_rewards`,
            completions of the latest rollout with a score that is not finite; `<component>_<name>`
            of what a component counts itself, see `JudgedReward.counts`.
        """
        values = {
            name: own.outcome[own.judged_rows].double() for name, own in scores.components.items()
        }
        values = {name: judged for name, judged in values.items() if len(judged)}
        parts = {
            name: self.components[name].weight * abs(judged.mean().item())
            for name, judged in values.items()
        }
        whole = sum(parts.values())
        metrics = {"nonfinite_rewards": float(self._finiteness.count)}
        for name, reward in self.components.items():
            if hasattr(reward, "counts"):
                metrics |= {f"{name}_{what}": value for what, value in reward.counts().items()}
        for name, judged in values.items():
            metrics |= _moments(name, judged)
            metrics[f"{name}_share"] = parts[name] / whole if whole else 0.0
            metrics[f"{name}_s"] = self._attempts.seconds[name]
        total = scores.outcome[self._judged_rows(scores.components)].double()
        return metrics | _moments("reward", total) if len(total) else metrics

    def state_dict(self) -> dict[str, Any]:
        """How long which reward has been flat or not finite, as plain values."""
        return self._flatness.state_dict() | {"nonfinite": self._finiteness.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting where `state_dict` was taken."""
        self._flatness.load_state_dict(state)
        self._finiteness.load_state_dict(state["nonfinite"])

    def _judged_rows(self, components: Mapping[str, RewardScores]) -> Tensor:
        """(B,) bool: completions that some component judges which counts."""
        counting = [own for name, own in components.items() if self.components[name].weight > 0]
        return torch.stack([own.judged_rows for own in counting]).any(0)

    def _watch_flatness(
        self, everyone: Sequence[tuple[Mapping[str, RewardScores], Sequence[str]]]
    ) -> None:
        """Watches the rollouts of all ranks, each its scores and tasks, as one."""
        weights = {name: reward.weight for name, reward in self.components.items()}
        joined = {
            name: RewardScores(
                torch.cat([own[name].outcome for own, _ in everyone]),
                judged=torch.cat([own[name].judged_rows for own, _ in everyone]),
            )
            for name in self.components
        }
        raw = sum(weights[name] * own.outcome.double() for name, own in joined.items())
        judged = self._judged_rows(joined)
        tasks = [task for _, own in everyone for task in own]
        totals = {
            task: raw[judged & torch.tensor([other == task for other in tasks])]
            for task in dict.fromkeys(tasks)
        }
        self._flatness.watch(joined, weights, totals)

    def _normalised(self, values: Tensor, population: Sequence[Tensor]) -> Tensor:
        """Any shape, NaN stays NaN; `population` are these values of all ranks."""
        if self.normalisation == "sum":
            return values
        known = torch.cat([part[~part.isnan()] for part in population])
        if known.numel() == 0:
            return values
        centred, std = values - known.mean(), known.std(unbiased=False)
        return centred / std if std > STD_FLOOR else centred * 0

    def _total_steps(
        self,
        outcomes: Mapping[str, Tensor],
        components: Mapping[str, RewardScores],
        population: Sequence[Mapping[str, RewardScores]],
        rollout: Rollout,
    ) -> Tensor:
        """(B, K): components without steps speak on the last step of each completion."""
        counts = torch.tensor([len(completion.segments) for completion in rollout.completions])
        counting = {name: components[name] for name in outcomes}
        widths = [own.steps.shape[1] for own in counting.values() if own.steps is not None]
        total = torch.full((len(counts), max([int(counts.max()), *widths])), float("nan")).double()
        rows = counts.nonzero().flatten()
        for name, own in counting.items():
            steps = torch.full_like(total, float("nan"))
            if own.steps is not None:
                known = [o[name].steps for o in population if o[name].steps is not None]
                steps[:, : own.steps.shape[1]] = self._normalised(
                    own.steps.double(), [part.double() for part in known]
                )
            else:
                steps[rows, counts[rows] - 1] = outcomes[name][rows]
            steps *= self.components[name].weight
            total = torch.where(total.isnan(), steps, total + steps.nan_to_num())
        return total.float()


def _judged(scores: RewardScores) -> Tensor:
    """(B,) float64 outcomes, NaN where a component does not judge."""
    return scores.outcome.double().masked_fill(~scores.judged_rows, math.nan)


def _moments(name: str, values: Tensor) -> dict[str, float]:
    return {name: values.mean().item(), f"{name}_std": values.std(unbiased=False).item()}
