"""GRPO over whole multimodal trajectories: sample, score, compare within the group, improve."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Sample
from unified_rl.core.trajectory import Modality, Rollout, Trajectory, repeat_for_groups
from unified_rl.objectives.advantages import (
    group_advantages,
    process_advantages,
    zero_variance_fraction,
)
from unified_rl.objectives.grpo import GrpoObjective, GrpoTerms
from unified_rl.objectives.selection import most_spread
from unified_rl.rewards.hybrid import HybridReward, HybridScores
from unified_rl.stages.base import Stage
from unified_rl.stages.optimisation import Optimisation
from unified_rl.stages.rollouts import roll_out

Level = Literal["outcome", "process", "both"]


class UnifiedGRPO(Stage):
    """One rollout, one reward, one objective over text and image tokens of a single trajectory.

    Source: UnifiedGRPO 3.3, eqs. 3 to 7.
    Departs: the paper does not say whether process-level advantages replace eq. 5 or join it; both
        are offered (`level`). It normalises all step rewards of a group together
        (`step_normalisation="group"`); where text and image steps have rewards of different scale
        that pushes every image down, so "step" normalises each step with its likes.

    Args:
        policy, optimisation, iterations, seed: see `Stage`.
        reward: the hybrid reward.
        objective: the loss.
        behaviour: how completions are drawn, and therefore scored.
        group_size: G, completions a prompt.
        trained_per_group: completions of each group that are learnt from, those whose rewards vary
            most; their advantages are taken among themselves. 0 takes all. For policies that draw
            faster than they learn, as those that predict masks do. Source: PODS, arXiv 2504.13818.
        level: "outcome" compares whole completions (eq. 5), "process" their modality steps,
            "both" adds the two.
        advantage_scale: "std" divides by the group's standard deviation, "none" only centres.
        step_normalisation: "group" normalises all step rewards of a group together, as the paper
            says; "step" each step with its likes.
        updates_per_rollout: passes over a rollout.
        minibatch_count: optimiser steps a pass.
        micro_batch_size: rows differentiated at once, like with like in length; 0 takes a whole
            minibatch. Changes no number.
        rollout_batch_size: completions drawn at once; 0 draws all. Bounds the memory of a rollout,
            whose cache grows with it.
        reference_device: where the frozen reference lives; null keeps it beside the policy.
    """

    progress_metrics = ("reward", "kl", "format")
    groups_of_prompt = 1
    """Groups of completions that one item of the data makes."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        optimisation: Optimisation,
        iterations: int,
        seed: int,
        reward: HybridReward,
        objective: GrpoObjective,
        behaviour: Behaviour,
        group_size: int = 4,
        trained_per_group: int = 0,
        level: Level = "outcome",
        advantage_scale: Literal["std", "none"] = "std",
        step_normalisation: Literal["group", "step"] = "group",
        updates_per_rollout: int = 1,
        minibatch_count: int = 1,
        micro_batch_size: int = 0,
        rollout_batch_size: int = 0,
        reference_device: str | None = None,
    ) -> None:
        super().__init__(policy, optimisation, iterations, seed)
        if group_size < 2:
            raise ConfigError(f"stage.group_size={group_size} leaves nothing to compare; use 2+")
        if trained_per_group and not 2 <= trained_per_group <= group_size:
            raise ConfigError(
                f"stage.trained_per_group={trained_per_group} must be from 2 to "
                f"stage.group_size={group_size}, or 0 for all"
            )
        if level not in ("outcome", "process", "both"):
            raise ConfigError(f"stage.level={level!r} is none of outcome, process, both")
        if advantage_scale not in ("std", "none"):
            raise ConfigError(f"stage.advantage_scale={advantage_scale!r} is neither std nor none")
        if step_normalisation not in ("group", "step"):
            raise ConfigError(f"stage.step_normalisation={step_normalisation!r}: group or step")
        for name, value, least in (
            ("updates_per_rollout", updates_per_rollout, 1),
            ("minibatch_count", minibatch_count, 1),
            ("micro_batch_size", micro_batch_size, 0),
            ("rollout_batch_size", rollout_batch_size, 0),
        ):
            if value < least:
                raise ConfigError(f"stage.{name}={value} must be at least {least}")
        if behaviour.text.temperature == 0 or behaviour.image.temperature == 0:
            raise ConfigError("behaviour: temperature=0 makes all completions of a group alike")
        self.reward, self.objective, self.behaviour = reward, objective, behaviour
        self.group_size, self.level = group_size, level
        self.trained_per_group = trained_per_group or group_size
        self.advantage_scale = advantage_scale
        self.step_normalisation = step_normalisation
        self.updates_per_rollout, self.minibatch_count = updates_per_rollout, minibatch_count
        self.micro_batch_size, self.rollout_batch_size = micro_batch_size, rollout_batch_size
        self.reference_device = reference_device
        self.latest: tuple[Rollout, HybridScores] | None = None

    def configure_model(self) -> None:
        """Builds the policy, and freezes a copy of its start before a resumed run loads weights."""
        super().configure_model()
        if self.objective.beta > 0:
            self.start()
        self.reward.bind(self.policy, self.start)

    def on_fit_start(self) -> None:
        """Tests the rewards and refuses sizes that do not fit, before the first step."""
        super().on_fit_start()
        prompts = getattr(self.trainer.datamodule, "batch_size", self.minibatch_count)
        prompts = max(1, prompts // self.ranks.count)
        rows = prompts * self.groups_of_prompt * self.trained_per_group
        if rows < self.minibatch_count:
            raise ConfigError(
                f"stage.minibatch_count={self.minibatch_count} is more than the "
                f"{rows} completions that an iteration of a rank learns from; "
                "lower it, or raise data.batch_size, stage.group_size or stage.trained_per_group"
            )
        self.reward.ranks = self.ranks
        with self.whole_weights():
            self.reward.self_test()

    def training_step(self, prompts: list[Sample], batch_idx: int) -> None:
        """Sample, score, compare, improve."""
        self.policy.eval()  # no dropout between rollout, replay and reference
        clock = [time.perf_counter()]
        rollout = self.sample(prompts)
        clock.append(time.perf_counter())
        scores = self.reward(rollout)
        clock.append(time.perf_counter())
        learnt, judged = self.choose(rollout, scores)
        advantages = self.compare(learnt, judged)
        metrics = self.improve(learnt.trajectory, advantages)
        clock.append(time.perf_counter())
        self.latest = rollout, scores
        durations = [after - before for before, after in itertools.pairwise(clock)]
        metrics |= dict(zip(("rollout_s", "reward_s", "update_s"), durations, strict=True))
        self.report(metrics | self.describe(rollout, scores))

    def sample(self, prompts: list[Sample], purpose: int = 0) -> Rollout:
        """G completions of each prompt; see `Stage.generator` for `purpose`."""
        samples = repeat_for_groups(prompts, self.group_size)
        generator_of = functools.partial(self.generator_of_part, purpose)
        size, begin = self.rollout_batch_size, self.reward.begin
        try:
            trajectory, completions = roll_out(
                self.policy, samples, self.behaviour, generator_of, size, on_part=begin
            )
        except BaseException:
            self.reward.forget()  # else an interrupted run would wait for all that has begun
            raise
        return Rollout(samples, completions, trajectory, self.group_size)

    def choose(self, rollout: Rollout, scores: HybridScores) -> tuple[Rollout, HybridScores]:
        """The completions to learn from."""
        if self.trained_per_group == rollout.group_size:
            return rollout, scores
        rows = most_spread(scores.outcome, rollout.group_size, self.trained_per_group)
        return rollout.select(rows, self.trained_per_group), scores.select(rows)

    def compare(self, rollout: Rollout, scores: HybridScores) -> Tensor:
        """(B, L) advantages; 0 in the prompt."""
        segment = rollout.trajectory.segment
        advantages = torch.zeros(segment.shape, device=segment.device)
        if self.level in ("outcome", "both"):
            outcome = group_advantages(scores.outcome, rollout.group_size, self.advantage_scale)
            advantages = advantages + outcome.to(segment.device)[:, None] * (segment >= 0)
        if self.level in ("process", "both"):
            if scores.steps is None:
                raise ConfigError(f"stage.level={self.level} needs a reward that scores steps")
            advantages = advantages + process_advantages(
                scores.steps.to(segment.device),
                segment,
                rollout.group_size,
                self.step_normalisation,
                self.advantage_scale,
            )
        return advantages

    def improve(self, trajectory: Trajectory, advantages: Tensor) -> dict[str, float]:
        """Follows the objective: `updates_per_rollout` passes in `minibatch_count` steps each."""
        shuffled = torch.randperm(
            trajectory.row_count, generator=self.generator(purpose=1), device=self.device
        )
        minibatches = [
            _Minibatch(self, trajectory.select(rows), advantages[rows])
            for rows in shuffled.tensor_split(self.minibatch_count)
        ]
        terms: list[GrpoTerms] = []
        norms = [
            self.descend(minibatch.losses(terms))
            for _ in range(self.updates_per_rollout)
            for minibatch in minibatches
        ]
        names = ("kl", "clip_fraction", "ratio_mean")
        means = {name: sum(float(getattr(t, name)) for t in terms) / len(terms) for name in names}
        updates = self.updates_per_rollout * len(minibatches)
        return means | {
            "loss": sum(float(t.loss.detach()) for t in terms) / updates,
            "policy_loss": sum(float(t.policy_loss) for t in terms) / updates,
            "gradient_norm": sum(norms) / len(norms),
            "replay_error": minibatches[0].replay_error or 0.0,
            "learning_rate": self.optimizers().param_groups[0]["lr"],
        }

    def reference_logprobs(self, trajectory: Trajectory) -> Tensor | None:
        """(B, L, D) under the frozen start of this stage; None where no KL is asked for."""
        return self.start_logprobs(trajectory) if self.objective.beta else None

    def describe(self, rollout: Rollout, scores: HybridScores) -> dict[str, float]:
        """What to log of a rollout."""
        trajectory = rollout.trajectory
        actions = {m: trajectory.mask_of(m) for m in Modality}
        surprise = {m: -trajectory.logprobs[actions[m]].mean().nan_to_num() for m in Modality}
        metrics = self.reward.metrics(scores)
        return metrics | {
            "text_entropy": float(surprise[Modality.TEXT]),
            "image_entropy": float(surprise[Modality.IMAGE]),
            "text_tokens": float(actions[Modality.TEXT].sum() / trajectory.row_count),
            "images": sum(len(c.images) for c in rollout.completions) / trajectory.row_count,
            "finished": sum(c.finished for c in rollout.completions) / trajectory.row_count,
            "frac_reward_zero_std": float(self.flat_fraction(scores.outcome)),
        }

    def flat_fraction(self, outcome: Tensor) -> Tensor:
        """() the fraction of groups that teach nothing, as their rewards are all alike."""
        return zero_variance_fraction(outcome, self.group_size)

    def weights_of(self, action_mask: Tensor, modality: Tensor) -> Tensor:
        """The weight of each unit of a minibatch in its loss; see `GrpoObjective.weights`."""
        total = self.objective.total(action_mask, modality)
        if total is not None:
            total = self.ranks.mean(total)
        return self.objective.weights(action_mask, modality, total)


class _Minibatch:
    """Rows of a rollout with everything that one optimiser step needs, kept over the passes."""

    def __init__(self, stage: UnifiedGRPO, rows: Trajectory, advantages: Tensor) -> None:
        self.stage = stage
        weights = stage.weights_of(rows.action_mask, rows.modality)
        order = torch.arange(rows.row_count, device=self.stage.device)
        if stage.micro_batch_size:
            order = rows.lengths.argsort(stable=True)
        self.parts = [
            _part(rows.select(places), advantages[places], weights[places])
            for places in order.split(stage.micro_batch_size or rows.row_count)
        ]
        self.references = [stage.reference_logprobs(part) for part, _, _ in self.parts]
        self.behaviours: list[Tensor] = []
        if stage.updates_per_rollout * stage.minibatch_count > 1:
            # Replayed in the very shapes of the update, so that its first ratio is exactly 1.
            with torch.no_grad():
                self.behaviours = [stage.policy.logprobs(part) for part, _, _ in self.parts]
        self.replay_error: float | None = None

    def losses(self, terms: list[GrpoTerms]) -> Iterator[Tensor]:
        """The minibatch's loss in parts that add up; what to log is appended to `terms`."""
        first = self.replay_error is None
        for index, (part, advantages, weights) in enumerate(self.parts):
            logprobs = self.stage.policy.logprobs(part)
            if first:
                gap = (logprobs.detach() - part.logprobs).abs().max()
                self.replay_error = max(self.replay_error or 0.0, float(gap))
            behaviour = self.behaviours[index] if self.behaviours else logprobs.detach()
            found = self.stage.objective.loss(
                logprobs, behaviour, self.references[index], advantages, weights, part.action_mask
            )
            terms.append(found._replace(loss=found.loss.detach()))
            yield found.loss


def _part(rows: Trajectory, *by_column: Tensor) -> tuple[Trajectory, Tensor, Tensor]:
    """Rows without the columns that none of them reaches, and what belongs to each column."""
    kept = rows.trimmed()
    advantages, weights = (values[:, : kept.segment.shape[1]] for values in by_column)
    return kept, advantages, weights
