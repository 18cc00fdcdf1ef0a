"""Ten steps of GRPO over a random Janus, by as many processes as asked; run as a command.

    python -m tests.runtime.sharing OUTPUT NAME RANKS [ITERATIONS] [DIES_AT]

NAME is of `strategies`; Lightning starts the other processes by this very command. What each step
logged goes to OUTPUT/metrics/metrics.csv, the last weights to OUTPUT/checkpoint, those of halfway
to OUTPUT/middle.
"""

import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning
import torch

from tests.stages.training import SHORT, Brightness
from tests.toys import build
from unified_rl.data.microworld import DrawingSource, StorySource
from unified_rl.data.mixture import SampleDataModule
from unified_rl.models.base import UnifiedPolicy
from unified_rl.objectives.aggregation import Aggregation
from unified_rl.objectives.grpo import GrpoObjective
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.runtime import training
from unified_rl.runtime.quiet import quieten
from unified_rl.runtime.strategies.fsdp import ShardedStrategy
from unified_rl.runtime.strategies.replicated import ReplicatedStrategy, single
from unified_rl.runtime.strategies.zero import ZeroStrategy
from unified_rl.runtime.survival import Survival
from unified_rl.runtime.tracking import loggers
from unified_rl.stages.optimisation import Optimisation
from unified_rl.stages.unified_grpo import UnifiedGRPO

STEPS, PROMPTS, GROUP = 10, 4, 3
TIMEOUT_S = 60.0

STRATEGIES: dict[str, Callable[[], object]] = {
    "single": lambda: single(1),
    "ddp": lambda: ReplicatedStrategy(TIMEOUT_S),
    "fsdp2": lambda: ShardedStrategy(timeout_s=TIMEOUT_S),
    "zero1": lambda: ZeroStrategy(1, timeout_s=TIMEOUT_S),
    "zero2": lambda: ZeroStrategy(2, timeout_s=TIMEOUT_S),
    "zero3": lambda: ZeroStrategy(3, timeout_s=TIMEOUT_S),
}


class Dies(lightning.Callback):
    """SIGKILL of the last rank at the start of an iteration (from 0)."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, stage, batch, batch_idx) -> None:
        if stage.iteration == self.at and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Writes(lightning.Callback):
    """Writes the policy behind an iteration (from 0), as keeping the best one would."""

    def __init__(self, at: int, folder: Path) -> None:
        self.at, self.folder = at, folder

    def on_train_batch_end(self, trainer, stage, outputs, batch, batch_idx) -> None:
        if stage.iteration == self.at:
            with stage.plain_weights():
                if trainer.is_global_zero:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    stage.policy.save(self.folder)


def policy() -> UnifiedPolicy:
    """What no prompt here needs is frozen: ZeRO moves weights without gradients by momentum."""
    built = build("janus")
    built.janus.model.vision_model.requires_grad_(False)
    built.janus.model.aligner.requires_grad_(False)
    return built


def stage(iterations: int) -> UnifiedGRPO:
    """Groups are drawn one by one, so that a prompt's completions do not depend on who draws it.

    The loss is normalised over the tokens of the whole batch, of which ranks have different
    numbers, and the reward over all completions; micro-batches are of ragged lengths.
    """
    return UnifiedGRPO(
        policy,
        Optimisation(learning_rate=1e-3, warmup=2, schedule="cosine", weight_decay=0.1),
        iterations,
        seed=0,
        reward=HybridReward({"brightness": Brightness()}, normalisation="standardise"),
        objective=GrpoObjective(beta=0.5, aggregation=Aggregation("token", image_weight=0.3)),
        behaviour=SHORT,
        group_size=GROUP,
        level="both",
        micro_batch_size=2,
        rollout_batch_size=GROUP,
    )


def main(output: Path, name: str, ranks: int, iterations: int, dies_at: int | None) -> None:
    """Trains; see the module."""
    torch.set_num_threads(1)
    quieten()
    warnings.filterwarnings("ignore")
    sources = {
        "story": StorySource("train"),
        "drawing": DrawingSource("train", gold=False),
    }

    def trainer(callbacks: list, **settings: object) -> lightning.Trainer:
        return lightning.Trainer(
            accelerator="cpu",
            devices=ranks,
            strategy=STRATEGIES[name](),
            max_epochs=1,
            limit_train_batches=iterations,
            log_every_n_steps=1,
            enable_model_summary=False,
            deterministic=True,
            callbacks=[
                *callbacks,
                Writes(STEPS // 2, output / "middle"),
                *([] if dies_at is None else [Dies(dies_at)]),
            ],
            **settings,
        )

    training.train(
        stage=stage(iterations),
        data=SampleDataModule(sources, {"story": 3, "drawing": 1}, batch_size=PROMPTS, seed=1),
        make_trainer=trainer,
        output=output,
        config={"seed": 0},
        make_loggers=functools.partial(loggers, mode="disabled", project="tests"),
        sample_every=0,
        checkpoint_every=3,
        label="test",
        survival=Survival(best="loss", best_mode="min"),
    )


if __name__ == "__main__":
    folder, chosen, count, *rest = sys.argv[1:]
    main(
        Path(folder),
        chosen,
        int(count),
        int(rest[0]) if rest else STEPS,
        int(rest[1]) if len(rest) > 1 else None,
    )
