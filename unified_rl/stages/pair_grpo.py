"""CoRL's unified reinforcement learning: a picture and a reasoned answer are one candidate."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Pair, Task
from unified_rl.core.trajectory import Rollout, join
from unified_rl.objectives.grpo import GrpoObjective
from unified_rl.objectives.joint import HALVES, joint_advantages, joint_outcome, pair_rows
from unified_rl.objectives.selection import most_spread
from unified_rl.rewards.hybrid import HybridReward, HybridScores
from unified_rl.stages.optimisation import Optimisation
from unified_rl.stages.unified_grpo import UnifiedGRPO


class PairGRPO(UnifiedGRPO):
    """Learns to draw and to answer from one advantage.

    A rollout has two groups a pair, one behind the other: G pictures, then G answers; picture i and
    answer i are candidate i. Rewards score each half for itself.

    Source: CoRL 3.3.2, eqs. 1, 5 and 6.
    Departs: eq. 6 has one ratio for the pair; here, as in the released code, each token has its
        own, a picture's mean and an answer's mean over tokens are added, and pairs are averaged.

    Args:
        policy, optimisation, iterations, seed: see `Stage`.
        reward, objective, behaviour, group_size, trained_per_group, advantage_scale,
            updates_per_rollout, minibatch_count, micro_batch_size, rollout_batch_size,
            reference_device: see `UnifiedGRPO`; of the candidates, `trained_per_group` keeps
            those whose joint rewards vary most.
        joint: "reward" compares candidates by the sum of their rewards (eq. 5); "advantage" adds
            the halves' own advantages; "none" gives each half its own.
        answer_weight: lambda of eq. 5, 0 or more: a factor on the answers' rewards with "reward",
            on their advantages with "advantage"; "none" has nothing to weigh.
    """

    progress_metrics = ("reward", "reasoning_format", "accuracy")
    groups_of_prompt = HALVES
    takes = Pair
    tasks = (Task.TEXT_TO_IMAGE, Task.UNDERSTANDING)

    def __init__(
        self,
        policy: Callable[[], Policy],
        optimisation: Optimisation,
        iterations: int,
        seed: int,
        reward: HybridReward,
        objective: GrpoObjective,
        behaviour: Behaviour,
        group_size: int = 8,
        trained_per_group: int = 0,
        joint: Literal["reward", "advantage", "none"] = "reward",
        answer_weight: float = 0.8,
        advantage_scale: Literal["std", "none"] = "std",
        updates_per_rollout: int = 1,
        minibatch_count: int = 1,
        micro_batch_size: int = 0,
        rollout_batch_size: int = 0,
        reference_device: str | None = None,
    ) -> None:
        super().__init__(
            policy,
            optimisation,
            iterations,
            seed,
            reward,
            objective,
            behaviour,
            group_size=group_size,
            trained_per_group=trained_per_group,
            advantage_scale=advantage_scale,
            updates_per_rollout=updates_per_rollout,
            minibatch_count=minibatch_count,
            micro_batch_size=micro_batch_size,
            rollout_batch_size=rollout_batch_size,
            reference_device=reference_device,
        )
        if joint not in ("reward", "advantage", "none"):
            raise ConfigError(f"stage.joint={joint!r} is none of reward, advantage, none")
        if answer_weight < 0:
            raise ConfigError(f"stage.answer_weight={answer_weight} must be 0 or more")
        self.joint, self.answer_weight = joint, answer_weight

    def sample(self, prompts: list[Pair]) -> Rollout:
        """G pictures and G answers of each pair."""
        # Each half by itself: drawn together, rows wait for those of the other half.
        drawings = super().sample([pair.drawing for pair in prompts])
        answers = super().sample([pair.question for pair in prompts], purpose=2)
        joined = join([drawings.trajectory, answers.trajectory])
        count, size = len(drawings.samples), self.group_size
        places = torch.arange(HALVES * count).view(HALVES, -1, size).transpose(0, 1).flatten()
        whole = Rollout(
            drawings.samples + answers.samples,
            drawings.completions + answers.completions,
            joined,
            size,
        )
        return whole.select(places, size)

    def choose(self, rollout: Rollout, scores: HybridScores) -> tuple[Rollout, HybridScores]:
        """The candidates to learn from, both halves of each."""
        if self.trained_per_group == rollout.group_size:
            return rollout, scores
        outcome = joint_outcome(scores.outcome, rollout.group_size, self.answer_weight)
        candidates = most_spread(outcome, rollout.group_size, self.trained_per_group)
        rows = pair_rows(candidates, rollout.group_size, self.trained_per_group)
        return rollout.select(rows, self.trained_per_group), scores.select(rows)

    def compare(self, rollout: Rollout, scores: HybridScores) -> Tensor:
        """(B, L) advantages; 0 in the prompt."""
        segment = rollout.trajectory.segment
        advantages = joint_advantages(
            scores.outcome,
            rollout.group_size,
            self.joint,
            self.advantage_scale,
            answer_weight=self.answer_weight,
        )
        return advantages.to(segment.device)[:, None] * (segment >= 0)

    def flat_fraction(self, outcome: Tensor) -> Tensor:
        """The fraction of groups that teach nothing: of candidates where rewards are joined."""
        if self.joint == "reward":
            outcome = joint_outcome(outcome, self.group_size, self.answer_weight)
        return super().flat_fraction(outcome)

    def weights_of(self, action_mask: Tensor, modality: Tensor) -> Tensor:
        """Of a mean over rows, that over pairs: the two halves' means are added."""
        weights = super().weights_of(action_mask, modality)
        is_mean_of_rows = self.objective.aggregation.normalisation == "sequence"
        return HALVES * weights if is_mean_of_rows else weights

    def describe(self, rollout: Rollout, scores: HybridScores) -> dict[str, float]:
        """The rewards are those of candidates, lambda included (eq. 5)."""
        rewards = joint_outcome(scores.outcome, rollout.group_size, self.answer_weight)
        figures = {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(unbiased=False)),
        }
        return super().describe(rollout, scores) | figures
