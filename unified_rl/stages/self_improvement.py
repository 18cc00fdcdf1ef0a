"""Self-improvement: the model draws, answers a question about its own drawing, and learns."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import CapabilityError, ConfigError
from unified_rl.core.protocols import Policy, Reward
from unified_rl.core.sample import Completion, DrawnImage, Sample, Task
from unified_rl.core.trajectory import Rollout, Trajectory, repeat_for_groups
from unified_rl.data.self_questions import ask_about
from unified_rl.objectives.advantages import zero_variance_fraction
from unified_rl.objectives.straight_through import Relaxation
from unified_rl.objectives.weighted_likelihood import LikelihoodTerms, WeightedLikelihood
from unified_rl.rewards.hybrid import HybridReward, HybridScores
from unified_rl.stages.base import Stage
from unified_rl.stages.optimisation import Optimisation
from unified_rl.stages.rollouts import roll_out

_DRAWING, _ANSWERING, _RELAXING = range(3)
_Terms = list[tuple[LikelihoodTerms, LikelihoodTerms | None]]
"""Of each part of a batch: the answers', and where they have their own the drawings'."""


class Answers(NamedTuple):
    """What a policy said of its drawings, and how good that was."""

    said: tuple[Completion, ...]
    scores: HybridScores


class SelfImprovement(Stage):
    """Prompt, own image, question, answer; no picture from outside.

    `path="end_to_end"` learns from answers alone, whose gradient runs through the image tokens;
    `path="separate"` gives the drawing and the answer a likelihood each, both weighted by how good
    the answer was.

    Source: UniRL 3.3 to 3.5, A.2 and A.3; the loss is the objective's.
    Departs: end to end the reference reads the hard picture, so that the KL's gradient through the
        drawing is that of the policy's own half alone.

    Args:
        policy, optimisation, iterations, seed: see `Stage`.
        reward: of the answers.
        objective: the loss, and whether gold answers are learnt or the policy's own.
        behaviour: how drawings and answers are drawn.
        relaxation: how drawings become differentiable; read end to end.
        group_size: G, drawings a prompt; each gets one answer.
        path: "end_to_end" or "separate".
        force: lets a policy go end to end that does not see what it draws, to look at the
            instability which UniRL reports (observation 3).
        image_weight: of the drawing's likelihood; read where the path is separate.
        answer_weight: of the answer's; likewise.
        judges: held-out rewards of the drawings, by name, which training never sees.
        micro_batch_size: candidates differentiated at once; 0 takes all. Changes no number.
        rollout_batch_size: completions drawn at once; 0 draws all.
        reference_device: where the frozen reference lives; null keeps it beside the policy.
    """

    progress_metrics = ("reward", "answer_nll", "kl")
    tasks = (Task.TEXT_TO_IMAGE, Task.UNDERSTANDING)

    def __init__(
        self,
        policy: Callable[[], Policy],
        optimisation: Optimisation,
        iterations: int,
        seed: int,
        reward: HybridReward,
        objective: WeightedLikelihood,
        behaviour: Behaviour,
        relaxation: Relaxation,
        group_size: int = 3,
        path: Literal["end_to_end", "separate"] = "end_to_end",
        force: bool = False,
        image_weight: float = 1.0,
        answer_weight: float = 1.0,
        judges: Mapping[str, Reward] | None = None,
        micro_batch_size: int = 0,
        rollout_batch_size: int = 0,
        reference_device: str | None = None,
    ) -> None:
        super().__init__(policy, optimisation, iterations, seed)
        if path not in ("end_to_end", "separate"):
            raise ConfigError(f"stage.path={path!r} is neither end_to_end nor separate")
        least = 2 if objective.answers == "sampled" else 1
        if group_size < least:
            raise ConfigError(
                f"stage.group_size={group_size} leaves nothing to compare; use {least} or more"
            )
        if min(image_weight, answer_weight) < 0 or image_weight == answer_weight == 0:
            raise ConfigError(
                f"stage.image_weight={image_weight} and stage.answer_weight={answer_weight} must "
                "be 0 or more, and not both 0"
            )
        for name, value in (
            ("micro_batch_size", micro_batch_size),
            ("rollout_batch_size", rollout_batch_size),
        ):
            if value < 0:
                raise ConfigError(f"stage.{name}={value} must be at least 0")
        self.reward, self.objective, self.behaviour = reward, objective, behaviour
        self.relaxation, self.group_size, self.path = relaxation, group_size, path
        self.force, self.judges = force, dict(judges or {})
        self.image_weight, self.answer_weight = image_weight, answer_weight
        self.micro_batch_size, self.rollout_batch_size = micro_batch_size, rollout_batch_size
        self.reference_device = reference_device
        self.latest: tuple[Rollout, HybridScores] | None = None

    def configure_model(self) -> None:
        """Builds the policy, and refuses one that cannot go this way."""
        super().configure_model()
        own = self.policy.capabilities
        if self.path == "end_to_end" and not (own.shared_image_tokens or self.force):
            raise CapabilityError(
                f"stage.path=end_to_end: {type(self.policy).__name__} sees pictures through an "
                "encoder of its own, so that gradients of answers guide no drawing; set "
                "stage.path=separate, or stage.force=true to see what comes of it"
            )
        if self.path == "end_to_end" and self.relaxation.redraw and not own.shared_image_tokens:
            raise ConfigError(
                "stage.relaxation.redraw=true makes other codes, which this family cannot be "
                "shown; set it to false"
            )
        if self.relaxation.mask_draws > 1 and own.likelihood != "mask_predict":
            raise ConfigError(
                f"stage.relaxation.mask_draws={self.relaxation.mask_draws}: this family draws no "
                "masks; set it to 1"
            )
        if self.objective.beta > 0:
            self.start()
        self.reward.bind(self.policy, self.start)

    def on_fit_start(self) -> None:
        """Tests the rewards before the first step."""
        super().on_fit_start()
        self.reward.ranks = self.ranks
        with self.whole_weights():
            self.reward.self_test()
            for judge in self.judges.values():
                judge.self_test()

    def training_step(self, prompts: list[Sample], batch_idx: int) -> None:
        """Draw, ask, answer, compare, improve."""
        self.policy.eval()  # no dropout between rollout, replay and reference
        clock = [time.perf_counter()]
        drawings = self.draw(prompts)
        seeds = self.seeds(drawings.trajectory.row_count)
        drawings, codes = self.redraw(drawings, seeds)
        questions = self.ask(drawings, codes)
        answers, said = self.answer(questions, drawings.group_size)
        clock.append(time.perf_counter())
        weights = self.compare(said, drawings)
        metrics = self.improve(drawings.trajectory, answers, weights, seeds, codes)
        clock.append(time.perf_counter())
        durations = [after - before for before, after in itertools.pairwise(clock)]
        metrics |= dict(zip(("rollout_s", "update_s"), durations, strict=True))
        self.report(metrics | self.describe(drawings, said))

    def draw(self, prompts: list[Sample]) -> Rollout:
        """The candidates: G drawings of each prompt, each once a mask that it is given."""
        samples = repeat_for_groups(prompts, self.group_size)
        trajectory, completions = roll_out(
            self.policy,
            samples,
            self.behaviour,
            functools.partial(self.generator_of_part, _DRAWING),
            self.rollout_batch_size,
        )
        rollout = Rollout(samples, completions, trajectory, self.group_size)
        masks = self.relaxation.mask_draws if self.path == "end_to_end" else 1
        if masks == 1:
            return rollout
        rows = torch.arange(len(samples)).repeat_interleave(masks)
        return rollout.select(rows, self.group_size * masks)

    def seeds(self, count: int) -> Tensor:
        """(count,) int64 on the CPU: what each candidate's relaxation depends on."""
        generator = self.generator(_RELAXING)
        return torch.randint(2**60, (count,), generator=generator, device=self.device).cpu()

    def redraw(self, drawings: Rollout, seeds: Tensor) -> tuple[Rollout, Tensor | None]:
        """The candidates as they are asked about; (B, N, D) codes where they are drawn anew."""
        if self.path == "separate" or not self.relaxation.redraw:
            return drawings, None
        codes, completions = self.policy.redraw(drawings.trajectory, seeds)
        return dataclasses.replace(drawings, completions=completions), codes

    def ask(self, drawings: Rollout, codes: Tensor | None) -> list[Sample]:
        """The question about each candidate, which shows what the answer is learnt from."""
        if codes is None:
            pictures = self.policy.own_pictures(drawings.trajectory, drawings.completions)
        else:
            pictures = [DrawnImage(row) for row in codes.cpu().numpy()]
        return [ask_about(*pair) for pair in zip(drawings.samples, pictures, strict=True)]

    def answer(self, questions: list[Sample], group_size: int) -> tuple[Trajectory, Answers | None]:
        """The gold answers; or the policy's own as it is now, with their scores."""
        if self.objective.answers == "gold":
            return self.policy.encode(questions, self.generator(_ANSWERING)), None
        generator_of = functools.partial(self.generator_of_part, _ANSWERING)
        trajectory, said = roll_out(
            self.policy, questions, self.behaviour, generator_of, self.rollout_batch_size
        )
        rollout = Rollout(tuple(questions), said, trajectory, group_size)
        return trajectory, Answers(said, self.reward(rollout))

    def compare(self, answers: Answers | None, drawings: Rollout) -> Tensor:
        """(B,) weights of the candidates, a mean over prompts; see `WeightedLikelihood.weights`."""
        count = drawings.trajectory.row_count
        rewards = torch.zeros(count) if answers is None else answers.scores.outcome
        weights = self.objective.weights(rewards, drawings.group_size)
        return weights.to(self.device) * drawings.group_size / count

    def improve(
        self,
        drawn: Trajectory,
        answers: Trajectory,
        weights: Tensor,
        seeds: Tensor,
        codes: Tensor | None,
    ) -> dict[str, float]:
        """One step down the loss, `micro_batch_size` candidates at a time."""
        terms: _Terms = []
        if self.path == "end_to_end":
            losses = self._end_to_end(drawn, answers, weights, seeds, codes, terms)
        else:
            losses = self._separate(drawn, answers, weights, terms)
        norm = self.descend(losses)
        metrics = {
            "loss": sum(float(self._total(*pair)) for pair in terms),
            "answer_nll": sum(float(answer.nll) for answer, _ in terms),
            "kl": sum(float(answer.kl) for answer, _ in terms),
            "gradient_norm": norm,
            "learning_rate": self.optimizers().param_groups[0]["lr"],
        }
        drawings = [drawing for _, drawing in terms if drawing is not None]
        if not drawings:
            return metrics | {"gumbel_temperature": self._temperature}
        return metrics | {
            "image_nll": sum(float(drawing.nll) for drawing in drawings),
            "image_kl": sum(float(drawing.kl) for drawing in drawings),
        }

    def describe(self, drawings: Rollout, answers: Answers | None) -> dict[str, float]:
        """What to log of a step: rewards, by category too, how weights differ, and the judges."""
        metrics = {
            f"drawing_{name}": float(judge(drawings).outcome.mean())
            for name, judge in self.judges.items()
        }
        if answers is None:
            return metrics
        pairs = zip(drawings.completions, answers.said, strict=True)
        shown = tuple(Completion(d.segments + a.segments, a.finished) for d, a in pairs)
        self.latest = dataclasses.replace(drawings, completions=shown), answers.scores
        size = drawings.group_size
        outcome = answers.scores.outcome
        metrics |= self.reward.metrics(answers.scores)
        kinds = [sample.facts.get("category") for sample in drawings.samples]
        for kind in dict.fromkeys(filter(None, kinds)):
            metrics[f"reward_{kind}"] = float(outcome[[k == kind for k in kinds]].mean())
        groups = self.objective.weights(outcome, size).view(-1, size)
        return metrics | {
            "weight_of_best": float(groups.amax(1).mean()),
            "frac_reward_zero_std": float(zero_variance_fraction(outcome, size)),
        }

    @property
    def _temperature(self) -> float:
        return self.relaxation.temperature(self.iteration / max(1, self.iterations - 1))

    def _parts(self, count: int) -> tuple[Tensor, ...]:
        return torch.arange(count, device=self.device).split(self.micro_batch_size or count)

    def _end_to_end(
        self,
        drawn: Trajectory,
        answers: Trajectory,
        weights: Tensor,
        seeds: Tensor,
        codes: Tensor | None,
        terms: _Terms,
    ) -> Iterator[Tensor]:
        """Answers to what was drawn, with a gradient through it (eqs. 4 and 5)."""
        for rows in self._parts(drawn.row_count):
            part = answers.select(rows)
            soft = self.policy.soft_images(
                drawn.select(rows),
                self._temperature,
                seeds[rows.cpu()],
                None if codes is None else codes[rows],
            )
            seen = part._replace(tape={**part.tape, "shown": soft[:, None]})
            found = self._likelihood(seen, part, weights[rows], drawn.row_count)
            terms.append((_detached(found), None))
            yield found.loss

    def _separate(
        self, drawn: Trajectory, answers: Trajectory, weights: Tensor, terms: _Terms
    ) -> Iterator[Tensor]:
        """A likelihood of its own for the drawing and for the answer (A.3)."""
        for rows in self._parts(drawn.row_count):
            pair = [
                self._likelihood(part, part, weights[rows], drawn.row_count)
                for part in (answers.select(rows), drawn.select(rows))
            ]
            terms.append(tuple(map(_detached, pair)))
            yield self._total(*pair)

    def _likelihood(
        self, seen: Trajectory, plain: Trajectory, weights: Tensor, row_count: int
    ) -> LikelihoodTerms:
        """The terms of some rows; the reference reads them without any softness."""
        reference = self.start_logprobs(plain) if self.objective.beta else None
        return self.objective.loss(
            self.policy.logprobs(seen), reference, weights, seen.action_mask, row_count
        )

    def _total(self, answer: LikelihoodTerms, drawing: LikelihoodTerms | None) -> Tensor:
        if drawing is None:
            return answer.loss
        return self.answer_weight * answer.loss + self.image_weight * drawing.loss


def _detached(terms: LikelihoodTerms) -> LikelihoodTerms:
    return terms._replace(loss=terms.loss.detach())
