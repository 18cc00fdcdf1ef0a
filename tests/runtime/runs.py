"""Real stages over a random Janus of two layers, trained as the entry points train them."""

import functools
import logging

import lightning
import torch

from tests.stages.training import SHORT, Brightness
from tests.toys import build
from unified_rl.data.microworld import DrawingSource, StorySource
from unified_rl.data.mixture import SampleDataModule
from unified_rl.objectives.grpo import GrpoObjective
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.runtime import training
from unified_rl.runtime.survival import Survival
from unified_rl.runtime.tracking import loggers
from unified_rl.stages.optimisation import Optimisation
from unified_rl.stages.unified_grpo import UnifiedGRPO
from unified_rl.stages.warmup_sft import WarmupSFT

ITERATIONS, SAVED = 6, 3
NOTHING = Survival(divergence_limit=None)
OPTIMISATION = Optimisation(learning_rate=1e-2, warmup=2, schedule="cosine", weight_decay=0.1)


def random_janus():
    return build("janus")


def sft(iterations=ITERATIONS, policy=random_janus):
    return WarmupSFT(policy, OPTIMISATION, iterations, seed=0, condition_dropout=0.5)


def grpo(iterations=ITERATIONS, updates=1):
    return UnifiedGRPO(
        random_janus,
        OPTIMISATION,
        iterations,
        seed=0,
        reward=HybridReward({"brightness": Brightness()}),
        objective=GrpoObjective(beta=0.5),  # so strong that a wrong reference would show
        behaviour=SHORT,
        group_size=2,
        updates_per_rollout=updates,
    )


STAGES = {"sft": sft, "grpo": grpo}


class Counter(lightning.Callback):
    """Which iterations a run takes."""

    def __init__(self):
        self.taken = []

    def on_train_batch_start(self, trainer, stage, batch, batch_idx):
        self.taken.append(stage.iteration)


def go(
    output,
    stage,
    *watchers,
    every=SAVED,
    mode="disabled",
    group=None,
    survival=NOTHING,
    sources=None,
    **config,
):
    """Trains on one thread, on stories and drawings unless told; the iterations that it took."""
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    counter = Counter()
    gold = isinstance(stage, WarmupSFT)
    sources = sources or {
        "story": StorySource("train", gold=gold),
        "drawing": DrawingSource("train", gold=gold),
    }

    def trainer(callbacks, **settings):
        return lightning.Trainer(
            accelerator="cpu",
            max_epochs=1,
            limit_train_batches=stage.iterations,
            log_every_n_steps=1,
            enable_model_summary=False,
            deterministic=True,
            callbacks=[*callbacks, counter, *watchers],
            **settings,
        )

    training.train(
        stage=stage,
        data=SampleDataModule(sources, dict.fromkeys(sources, 1), batch_size=2, seed=1),
        make_trainer=trainer,
        output=output,
        config={"seed": 0, **config},
        make_loggers=functools.partial(loggers, mode=mode, project="tests", group=group),
        sample_every=1,
        checkpoint_every=every,
        label="test",
        survival=survival,
    )
    return counter.taken
