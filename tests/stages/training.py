"""Runs stages for a few batches on one CPU, and watches what they do."""

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import lightning
import numpy as np
import torch
from torch import Tensor

from tests.toys import build
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.preference import Preference
from unified_rl.core.sample import Completion, DrawnImage, Text
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.data.microworld import DrawingSource, QuestionSource, StorySource
from unified_rl.data.mixture import SampleDataModule
from unified_rl.data.reasoning import ReasonedSource
from unified_rl.data.self_questions import MicroSelfQuestionSource
from unified_rl.objectives.grpo import GrpoObjective, GrpoTerms
from unified_rl.objectives.straight_through import Relaxation
from unified_rl.objectives.weighted_likelihood import WeightedLikelihood
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.stages.base import Stage
from unified_rl.stages.optimisation import Optimisation
from unified_rl.stages.pair_dpo import PairDPO
from unified_rl.stages.pair_grpo import PairGRPO
from unified_rl.stages.self_improvement import SelfImprovement
from unified_rl.stages.unified_grpo import UnifiedGRPO
from unified_rl.stages.warmup_sft import WarmupSFT

SHORT = Behaviour(max_text_tokens=5, max_image_count=1, image_step_count=3)


class Brightness:
    """A reward with a value for each step: the mean of an image, the length of a text."""

    weight = 1.0

    def __call__(self, rollout: Rollout) -> RewardScores:
        steps = [self._steps(completion) for completion in rollout.completions]
        width = max(map(len, steps))
        padded = [row + [float("nan")] * (width - len(row)) for row in steps]
        return RewardScores(torch.tensor([sum(row) for row in steps]), torch.tensor(padded))

    def self_test(self) -> None:
        pass

    def _steps(self, completion: Completion) -> list[float]:
        return [
            float(part.pixels.mean()) / 255 if hasattr(part, "pixels") else len(part.text) / 50
            for part in completion.segments
        ]


class Constant(Brightness):
    """A reward that teaches nothing."""

    def _steps(self, completion: Completion) -> list[float]:
        return [0.5]


@dataclass(frozen=True)
class Watched(GrpoObjective):
    """The objective, keeping what went through it."""

    terms: list[GrpoTerms] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    """Greatest distance between the policy's and the behaviour's log-probs."""

    def loss(self, logprobs: Tensor, behaviour_logprobs: Tensor, *rest: Tensor) -> GrpoTerms:
        found = super().loss(logprobs, behaviour_logprobs, *rest)
        self.terms.append(found)
        self.gaps.append(float((logprobs - behaviour_logprobs).detach().abs().max()))
        return found


class Preferences:
    """Drawings of random codes, right answers against wrong ones, as `prefer` would write them.

    One in four lacks the drawings, one in four the answers.

    Args:
        family: that drew them.
        count: how many there are; None makes a fresh one at every draw.
    """

    image_size = None

    def __init__(self, family: str, count: int | None = None) -> None:
        self._depth, self._shows_codes = (3 if family == "vila_u" else 1), family != "janus"
        self._count = count

    def draw(self, rng: np.random.Generator) -> Preference:
        if self._count is not None:
            rng = np.random.default_rng(int(rng.integers(self._count)))
        drawing, answer = DrawingSource("train", gold=False).draw(rng), QuestionSource("train")
        answer, lacking = answer.draw(rng), int(rng.integers(4))
        drawings = tuple(replace(drawing, target=(self._drawn(rng),)) for _ in range(2))
        if self._shows_codes:
            answer = replace(answer, prompt=(self._drawn(rng), *answer.prompt[1:]))
        answers = answer, replace(answer, target=(Text("the red circle"),))
        drawings = (None, None) if lacking == 0 else drawings
        return Preference(*drawings, *((None, None) if lacking == 1 else answers))

    def _drawn(self, rng: np.random.Generator) -> DrawnImage:
        return DrawnImage(rng.integers(16, size=(9, self._depth)))


class Gradients(lightning.Callback):
    """Keeps the gradient of every optimiser step, by parameter name."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: object, module: Stage, optimizer: object) -> None:
        self.steps.append(
            {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        )


def sft(family: str, **settings: object) -> WarmupSFT:
    """A warm-up stage over a toy."""
    return WarmupSFT(_policy(family, settings), _optimisation(), iterations=2, seed=0, **settings)


def grpo(family: str, beta: float = 0.0, reward: object = None, **settings: object) -> UnifiedGRPO:
    """A GRPO stage over a toy; its objective is `Watched`."""
    settings = {"group_size": 2, "behaviour": SHORT, **settings}
    return UnifiedGRPO(
        _policy(family, settings),
        _optimisation(),
        iterations=2,
        seed=0,
        reward=HybridReward({"brightness": reward or Brightness()}),
        objective=Watched(beta=beta),
        **settings,
    )


def pair_grpo(
    family: str, beta: float = 0.0, reward: object = None, **settings: object
) -> PairGRPO:
    """A stage of pairs over a toy; its objective clips nothing and is `Watched`."""
    settings = {"group_size": 2, "behaviour": SHORT, **settings}
    return PairGRPO(
        _policy(family, settings),
        _optimisation(),
        iterations=2,
        seed=0,
        reward=HybridReward({"brightness": reward or Brightness()}),
        objective=Watched(clip_low=1.0, clip_high=math.inf, beta=beta),
        **settings,
    )


def self_improvement(
    family: str, answers: str = "sampled", reward: object = None, **settings: object
) -> SelfImprovement:
    """A stage of self-improvement over a toy: end to end where the family can."""
    path = "separate" if family.endswith("janus") else "end_to_end"
    settings = {"group_size": 2, "behaviour": SHORT, "path": path, **settings}
    relaxation = settings.pop("relaxation", Relaxation())
    objective = settings.pop("objective", None) or WeightedLikelihood(answers, beta=0.0)
    return SelfImprovement(
        _policy(family, settings),
        _optimisation(),
        iterations=2,
        seed=0,
        reward=HybridReward({"brightness": reward or Brightness()}),
        objective=objective,
        relaxation=relaxation,
        **settings,
    )


def pair_dpo(family: str, **settings: object) -> PairDPO:
    """A stage of preferences over a toy."""
    stage = PairDPO(_policy(family, settings), _optimisation(), iterations=2, seed=0, **settings)
    stage.family = family  # whose drawings `run` takes
    return stage


def run(
    stage: Stage, batches: int = 2, batch_size: int = 4, callbacks: Iterable[object] = ()
) -> lightning.Trainer:
    """Trains on stories, drawings and questions, or on pairs or preferences."""
    gold = isinstance(stage, WarmupSFT)
    sources = {
        "story": StorySource("train", gold=gold),
        "drawing": DrawingSource("train", gold=gold),
        "question": QuestionSource("train"),
    }
    ratios = {"story": 2, "drawing": 2, "question": 1}
    if isinstance(stage, PairGRPO):
        sources, ratios = {"pair": ReasonedSource("train")}, {"pair": 1}
    if isinstance(stage, SelfImprovement):
        sources, ratios = {"self": MicroSelfQuestionSource("train")}, {"self": 1}
    if isinstance(stage, PairDPO):
        sources, ratios = {"preference": Preferences(stage.family)}, {"preference": 1}
    return run_on(stage, SampleDataModule(sources, ratios, batch_size, seed=1), batches, callbacks)


def run_on(
    stage: Stage,
    data: SampleDataModule,
    batches: int = 1,
    callbacks: Iterable[object] = (),
) -> lightning.Trainer:
    """Trains on any data."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=batches,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    with warnings.catch_warnings():
        for message in ("does not have many workers", "in eval mode", "LeafSpec"):
            warnings.filterwarnings("ignore", message=f".*{message}.*")
        trainer.fit(stage, data)
    return trainer


def gradients(stage: Stage) -> dict[str, Tensor]:
    """Of the first optimiser step."""
    kept = Gradients()
    run(stage, batches=1, callbacks=[kept])
    return kept.steps[0]


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of the parameters."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def _policy(family: str, settings: dict[str, object]) -> Callable[[], torch.nn.Module]:
    change = settings.pop("change", lambda policy: policy)
    return lambda: change(build(family))


def _optimisation() -> Optimisation:
    return Optimisation(learning_rate=1e-3, gradient_clip=0.0)
