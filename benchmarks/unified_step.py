"""The whole step of unified RL, rollout, two rewards and update: ours against a plain one.

Run: python -m benchmarks.unified_step [--size micro|25m|1b] [--group 8] [--prompts 1] [--repeats 3]

Both learn from drawings of the same prompts, by turns in one process, with one policy of random
weights, the same rewards and one AdamW. As in `conf/experiment/corl/unified.yaml` the language
model alone trains, at 1b with gradient checkpointing. First steps warm up and do not count.

Ours is `UnifiedGRPO` in a Lightning trainer: its parts are timed by the stage, its whole is an
iteration of the trainer. Plain is `PlainStep`, which says what released trainers are taken to do;
they do not all compute old log-probs, so that its whole is also compared without these.

The rewards are R_TIM, which asks the policy, and a CLIP score. CLIP's network is tiny here, so that
reward seconds are those of the policy's reading and of preparing pictures. Log-probs are guided in
both; `--logprob conditional` leaves the twins out of both updates, as CoRL's released code does.
"""

import argparse
import itertools
import logging
import shlex
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from benchmarks.cost import now
from benchmarks.plain_step import Lesson, PlainStep
from benchmarks.record import record
from benchmarks.rollout import SIZES, build, of_one_length, ratio
from benchmarks.step import PARTS
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.sample import Sample
from unified_rl.data.microworld import drawing_sample
from unified_rl.data.mixture import SampleDataModule
from unified_rl.microworld.prompts import prompts
from unified_rl.models.adapter import Adapter, adapt
from unified_rl.models.janus.policy import JanusPolicy
from unified_rl.objectives.grpo import GrpoObjective
from unified_rl.rewards.clip_score import ClipScoreReward
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.rewards.matching import MatchingReward
from unified_rl.rewards.specimens import clip_folder
from unified_rl.stages.optimisation import Optimisation
from unified_rl.stages.unified_grpo import UnifiedGRPO

OPTIMISATION = Optimisation(learning_rate=4e-6)
OBJECTIVE = GrpoObjective(clip_low=1.0, clip_high=float("inf"), beta=0.0)
"""CoRL's, as in `conf/objective/corl.yaml`."""
MICRO_BATCH = 8
"""Rows that ours differentiates at once, as in `conf/experiment/corl/unified.yaml`."""
WAYS = ("ours", "plain")
Figures = dict[str, float]
"""Of one step: seconds of its parts and of the whole; on a CUDA device its peak in bytes."""
Follower = Callable[[torch.optim.Optimizer], Mapping[str, float]]


class RandomJudges(HybridReward):
    """Rewards by models of random weights."""

    def self_test(self) -> None:
        """Nothing: they cannot tell a right picture from a wrong one."""


class InTurn:
    """The same samples over and over, as a source of data."""

    image_size = None

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._rest = itertools.cycle(samples)

    def draw(self, rng: np.random.Generator) -> Sample:
        """The next one."""
        return next(self._rest)


class Turns(lightning.Callback):
    """Notes what each iteration of a stage took, and lets another step follow it.

    Args:
        follower: is given the optimiser; None leaves the stage alone.
    """

    def __init__(self, follower: Follower | None) -> None:
        self._follower, self._began = follower, 0.0
        self.found: dict[str, list[Figures]] = {way: [] for way in WAYS}

    def on_train_batch_start(self, *_: Any) -> None:
        """Ours begins."""
        self._began = begin()

    def on_train_batch_end(self, trainer: lightning.Trainer, stage: UnifiedGRPO, *_: Any) -> None:
        """Ours is done."""
        own = {part: stage.reported[part] for part in PARTS}
        self.found["ours"].append(own | ended(self._began))
        if self._follower is not None:
            self.found["plain"].append(followed(self._follower, trainer.optimizers[0]))


def followed(follower: Follower, optimizer: torch.optim.Optimizer) -> Figures:
    """What a step of another way took."""
    began = begin()
    return {**follower(optimizer), **ended(began)}


def begin() -> float:
    """The time; from here on memory counts."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return now()


def ended(began: float) -> Figures:
    """What has been since `begin`."""
    whole = {"whole_s": now() - began}
    if torch.cuda.is_available():
        whole["peak_bytes"] = torch.cuda.max_memory_allocated()
    return whole


def policy_of(size: str, device: str) -> JanusPolicy:
    """Random weights, of which the language model trains."""
    policy = build(size, device, "bfloat16" if device == "cuda" else "float32")
    return adapt(
        policy, Adapter(trainable=("language_model",), gradient_checkpointing=size == "1b")
    )


def judges(policy: JanusPolicy) -> HybridReward:
    """R_TIM and a CLIP score, bound to a policy."""
    with tempfile.TemporaryDirectory() as folder:
        clip = ClipScoreReward(str(clip_folder(Path(folder))), device=str(policy.device))
    reward = RandomJudges({"matching": MatchingReward(), "clip_score": clip})
    reward.bind(policy, lambda: policy)
    return reward


def drawings(policy: JanusPolicy, count: int) -> list[Sample]:
    """So many prompts of one length.

    Raises:
        SystemExit: there are fewer.
    """
    every = [drawing_sample(text) for text in prompts("attribution", "test")]
    samples, _ = of_one_length(policy, every)
    if count > len(samples):
        raise SystemExit(f"error: --prompts={count} is more than the {len(samples)} of one length")
    return samples[:count]


def by_turns(lesson: Lesson, steps: int, follower: Follower | None) -> dict[str, list[Figures]]:
    """Figures of ours, and of another step after each of ours if there is one."""
    stage = UnifiedGRPO(
        lambda: lesson.policy,
        lesson.optimisation,
        iterations=steps,
        seed=0,
        reward=lesson.reward,
        objective=OBJECTIVE,
        behaviour=lesson.behaviour,
        group_size=lesson.group_size,
        micro_batch_size=MICRO_BATCH,
    )
    turns, count = Turns(follower), len(lesson.samples)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=1,
        max_epochs=1,
        limit_train_batches=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[turns],
    )
    data = SampleDataModule({"one": InTurn(lesson.samples)}, {"one": 1.0}, count, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(stage, data)
    return turns.found


def summary(found: Mapping[str, Sequence[Figures]]) -> dict[str, Any]:
    """Medians without the first steps, ratios of pairs, and the most memory."""
    ways = [way for way in WAYS if found.get(way)]
    columns = {
        way: {name: [step[name] for step in found[way]] for name in found[way][0]} for way in ways
    }
    peaks = {way: max(columns[way].pop("peak_bytes", [0])) for way in ways}
    counted = {way: {name: seconds[1:] for name, seconds in columns[way].items()} for way in ways}
    result: dict[str, Any] = {
        "seconds": {
            way: {name: statistics.median(seconds) for name, seconds in counted[way].items()}
            for way in ways
        }
    }
    if any(peaks.values()):
        result["peak_bytes"] = peaks
    if len(ways) == len(WAYS):
        result["times_as_fast"] = _times(**counted)
    return result


def _times(ours: Mapping[str, list[float]], plain: Mapping[str, list[float]]) -> dict[str, Any]:
    """Ratios of parts and of the whole, and of the whole without old log-probs."""
    times = {name.removesuffix("_s"): ratio(plain[name], ours[name]) for name in ours}
    pairs = zip(plain["whole_s"], plain["old_logprobs_s"], strict=True)
    shorter = [whole - old for whole, old in pairs]
    return times | {"whole_without_old_logprobs": ratio(shorter, ours["whole_s"])}


def measure(lesson: Lesson, only: str, steps: int) -> dict[str, list[Figures]]:
    """Figures of every step by way: "ours", "plain" or "both"."""
    if only == "ours":
        return by_turns(lesson, steps, None)
    plain = PlainStep(lesson)
    if only == "both":
        return by_turns(lesson, steps, plain)
    optimizer = lesson.optimisation.optimizer(lesson.policy.parameters())
    return {"plain": [followed(plain, optimizer) for _ in range(steps)]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints medians and their ratios, and writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="micro")
    parser.add_argument("--group", type=int, default=8, help="drawings of a prompt, 2 or more")
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--guidance", type=float, default=5.0, help="above 1")
    parser.add_argument("--logprob", choices=("guided", "conditional"), default="guided")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    parser.add_argument("--only", choices=(*WAYS, "both"), default="both")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = policy_of(options.size, device)
    behaviour = Behaviour(guidance_scale=options.guidance, logprob=options.logprob)
    samples, reward = drawings(policy, options.prompts), judges(policy)
    lesson = Lesson(policy, samples, options.group, behaviour, reward, OPTIMISATION)
    weights, rows = list(policy.parameters()), options.prompts * options.group
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.unified_step", *given]),
        "size": options.size,
        "dtype": str(policy.janus.dtype).removeprefix("torch."),
        "parameters": sum(weight.numel() for weight in weights),
        "trained": sum(weight.numel() for weight in weights if weight.requires_grad),
        "rows": rows,
        "group": options.group,
        "positions": policy.image_positions,
        "guidance": options.guidance,
        "logprob": options.logprob,
        "rewards": list(reward.components),
        "repeats": options.repeats,
    }
    result |= summary(measure(lesson, options.only, 1 + options.repeats))
    alone = "" if options.only == "both" else f"_{options.only}_of_{rows}"
    record(f"unified_step_{options.size}{alone}", result, device, options.threads)


if __name__ == "__main__":
    main()
