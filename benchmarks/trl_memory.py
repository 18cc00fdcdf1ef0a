"""Peak memory of a GRPO step over text: this stage against trl's `GRPOTrainer`.

Run: python -m benchmarks.trl_memory [--group 8] [--tokens 512] [--vocabulary 32768]

Both train the same Llama of random weights (trl the language model alone, this stage within a small
Janus) with AdamW and no reference, on one prompt with completions of the same length. Each peak is
of a fresh process over two steps, above what was there once model and libraries were loaded. Linux
only. Needs the `dev` extra.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch

from benchmarks.memory import forget_peak, peak_bytes
from benchmarks.record import record
from benchmarks.rollout import _SMALL, SIZES
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.microworld.words import vocabulary
from unified_rl.models.janus.load import janus
from unified_rl.models.janus.policy import JanusPolicy

PROMPT = "draw a red circle"
STEPS = 2
WAYS = ("ours", "trl")


class Variety:
    """How many different words a completion has, over 1,000: cheap, and never the same for all."""

    weight = 1.0

    def __call__(self, rollout: Rollout) -> RewardScores:
        """(B,) outcomes."""
        counts = [variety(answer.texts[0]) for answer in rollout.completions]
        return RewardScores(torch.tensor(counts))

    def self_test(self) -> None:
        """Two words are more than one."""


class OneQuestion:
    """The same text task for ever."""

    image_size = None

    def draw(self, rng: np.random.Generator) -> Sample:
        """A sample."""
        return Sample("question", Task.TEXT, (Text(PROMPT),))


def variety(text: str) -> float:
    """Different words over 1,000."""
    return len(set(text.split())) / 1000


def policy_of(options: argparse.Namespace) -> JanusPolicy:
    """A Janus whose language model has a vocabulary as large as asked for."""
    torch.manual_seed(0)
    words = list(vocabulary())
    words += [f"word{index}" for index in range(options.vocabulary - len(words))]
    text = {
        "hidden_size": options.width,
        "intermediate_size": 2 * options.width,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 4096,
    }
    small = {name: SIZES["micro"][name] | _SMALL[name] for name in ("vision", "codec")}
    return janus(None, {"text": text, **small}, words=words)


def ours(options: argparse.Namespace) -> None:
    """Two iterations of this package's stage."""
    import lightning

    from unified_rl.data.mixture import SampleDataModule
    from unified_rl.objectives.grpo import GrpoObjective
    from unified_rl.rewards.hybrid import HybridReward
    from unified_rl.stages.optimisation import Optimisation
    from unified_rl.stages.unified_grpo import UnifiedGRPO

    policy = policy_of(options)
    stage = UnifiedGRPO(
        lambda: policy,
        Optimisation(learning_rate=1e-6, warmup=0),
        iterations=STEPS,
        seed=0,
        reward=HybridReward({"variety": Variety()}),
        objective=GrpoObjective(beta=0.0),
        behaviour=Behaviour(max_text_tokens=options.tokens),
        group_size=options.group,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    begin()
    trainer.fit(stage, SampleDataModule({"one": OneQuestion()}, {"one": 1.0}, 1, seed=0))


def trl(options: argparse.Namespace) -> None:
    """Two steps of trl's trainer."""
    from datasets import Dataset
    from transformers import LlamaForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    policy = policy_of(options)
    model = LlamaForCausalLM(policy.janus.config.text_config)
    tokenizer = policy.tokenizer
    tokenizer.pad_token_id, tokenizer.eos_token_id = policy.pad_id, policy.end_of_text_id
    del policy

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [variety(text) for text in completions]

    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder,
            max_steps=STEPS,
            per_device_train_batch_size=options.group,
            num_generations=options.group,
            max_completion_length=options.tokens,
            learning_rate=1e-6,
            beta=0.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=options.checkpointing,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model,
            reward,
            args=settings,
            train_dataset=Dataset.from_list([{"prompt": PROMPT}] * 8),
            processing_class=tokenizer,
        )
        begin()
        trainer.train()


_before = 0


def begin() -> None:
    """From here on memory counts."""
    global _before
    forget_peak()
    _before = peak_bytes()


def measure(way: str, options: argparse.Namespace) -> dict[str, float]:
    """Most bytes above those at the start, and seconds of a step, in this process."""
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    {"ours": ours, "trl": trl}[way](options)
    return {"peak_bytes": peak_bytes() - _before, "process_s": time.perf_counter() - started}


def measured(way: str, options: argparse.Namespace) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.trl_memory", f"--measure={way}"]
    for name in ("group", "tokens", "vocabulary", "width", "threads"):
        command.append(f"--{name}={getattr(options, name)}")
    if options.checkpointing:
        command.append("--checkpointing")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    """Prints both peaks and their ratio, and writes them as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--group", type=int, default=8)
    arguments.add_argument("--tokens", type=int, default=512, help="of a completion")
    arguments.add_argument("--vocabulary", type=int, default=32768)
    arguments.add_argument("--width", type=int, default=256)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--checkpointing", action="store_true", help="of trl's activations")
    arguments.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return 0
    import trl as library

    found = {way: measured(way, options) for way in WAYS}
    logits = options.group * options.tokens * options.vocabulary * 4
    result = {
        **{k: v for k, v in vars(options).items() if k not in ("measure", "threads")},
        "trl": library.__version__,
        "logits_bytes": logits,
        "found": found,
        "peak_ours_over_trl": found["ours"]["peak_bytes"] / found["trl"]["peak_bytes"],
    }
    record("trl_memory", result, threads=options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
