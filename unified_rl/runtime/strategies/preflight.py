"""Says before the first step what a rank will need, and refuses what cannot fit."""

import os
import sys
from collections.abc import Iterable, Sequence

import lightning
import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Task
from unified_rl.models.base import DRAWING_TASKS, UnifiedPolicy
from unified_rl.runtime.strategies.fsdp import ShardedStrategy
from unified_rl.runtime.strategies.memory import Load, Memory, Sharing, estimate
from unified_rl.stages.base import Stage

_GIGA = 1e9
_QUIET_BELOW = 1 * _GIGA
"""Nothing is said of a single process that needs less."""
_PROMPT_TOKENS = 64
"""Stands for the length of prompts, which is known only when they come."""


class Preflight(lightning.Callback):
    """Prints the estimate of a rank's memory when training begins."""

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Stage) -> None:
        """Compares the estimate with what the device has.

        Raises:
            ConfigError: weights, gradients, optimizer and reference alone are too much.
        """
        batch = getattr(trainer.datamodule, "batch_size", 1)
        sources = getattr(trainer.datamodule, "sources", {}).values()
        load = load_of(pl_module, max(1, batch // trainer.world_size), tasks_of(sources))
        needed = estimate(load, sharing_of(trainer))
        there = _available(trainer)
        require_room(needed, there)
        if trainer.is_global_zero and (trainer.world_size > 1 or needed.peak > _QUIET_BELOW):
            print(described(needed, there), file=sys.stderr)


def require_room(needed: Memory, there: int) -> None:
    """Refuses what cannot fit; a cache and activations that are too large may be a poor estimate.

    Args:
        needed: by a rank.
        there: bytes on its device.

    Raises:
        ConfigError: it cannot fit.
    """
    if needed.certain > there:
        raise ConfigError(
            f"a rank needs {needed.certain / _GIGA:.3g} GB for weights ({_gb(needed.weights)}), "
            f"gradients ({_gb(needed.gradients)}), optimizer ({_gb(needed.optimizer)}) and "
            f"reference ({_gb(needed.reference)}), but its device has {_gb(there)}; shard over "
            "more ranks (strategy=deepspeed_zero2 trainer.devices=...), keep the optimizer on the "
            "CPU (strategy.offload_optimizer=true), the reference too (stage.reference_device=cpu),"
            " or train an adapter (adapter=lora)"
        )


def described(needed: Memory, there: int) -> str:
    """The estimate in one line."""
    parts = ", ".join(f"{name} {_gb(size)}" for name, size in needed._asdict().items())
    warning = "; that may be too much" if needed.peak > there else ""
    return f"memory a rank, estimated: {_gb(needed.peak)} of {_gb(there)} ({parts}){warning}"


def load_of(stage: Stage, prompts: int, tasks: tuple[Task, ...] = (Task.INTERLEAVED,)) -> Load:
    """What a stage asks of a rank; a stage that draws nothing has no cache.

    Args:
        stage: its policy is there.
        prompts: of the batch that the rank takes.
        tasks: of the data, which may all stand in one batch; a stage that has tasks of its own
            draws those, each by itself. Interleaved completions are the longest.
    """
    policy = stage.policy
    parameters = list(policy.parameters())
    word = torch.zeros(1, dtype=torch.long, device=parameters[0].device)
    with stage.whole_weights(), torch.no_grad():
        width = policy.embed_text(word).shape[-1]
    rows = prompts * getattr(stage, "group_size", 1)
    drawn = min(rows, getattr(stage, "rollout_batch_size", 0) or rows)
    tokens, cached_tokens = policy.image_positions + _PROMPT_TOKENS, 0
    behaviour: Behaviour | None = getattr(stage, "behaviour", None)
    if behaviour is not None:
        batches = [(task,) for task in stage.tasks] or [tasks]
        columns = [_columns(policy, batch, behaviour) for batch in batches]
        twins = [behaviour.guided and not set(DRAWING_TASKS).isdisjoint(own) for own in batches]
        tokens = max(columns)
        cached_tokens = max(
            drawn * (1 + has_twin) * own for has_twin, own in zip(twins, columns, strict=True)
        )
    layers = policy.parameter_groups()["language_model"][0]
    return Load(
        trained=sum(_count(p) for p in parameters if p.requires_grad),
        frozen=sum(_count(p) for p in parameters if not p.requires_grad),
        weight_bytes=max(p.element_size() for p in parameters),
        layers=len(layers),
        width=width,
        vocabulary=policy.text_vocabulary_size,
        tokens=tokens,
        cached_tokens=cached_tokens,
        learnt_rows=min(rows, getattr(stage, "micro_batch_size", 0) or rows),
        has_reference=bool(stage._start) and stage.reference_device is None,
        recomputes=any("forward" in vars(layer) for layer in layers),
    )


def tasks_of(sources: Iterable[object]) -> tuple[Task, ...]:
    """What sources of data give; interleaved samples where one of them does not say."""
    given = [getattr(source, "tasks", ()) for source in sources]
    if not given or not all(given):
        return (Task.INTERLEAVED,)
    return tuple(sorted({task for own in given for task in own}))


def sharing_of(trainer: lightning.Trainer) -> Sharing:
    """How the trainer's strategy shares the work."""
    strategy, ranks = trainer.strategy, trainer.world_size
    if isinstance(strategy, ShardedStrategy):
        offloads = strategy.offload
        return Sharing(ranks, 3, offloads_optimizer=offloads, offloads_weights=offloads)
    zero = getattr(strategy, "config", {}).get("zero_optimization")
    if zero is None:
        return Sharing(ranks)
    return Sharing(
        ranks,
        zero["stage"],
        has_masters=True,
        offloads_optimizer="offload_optimizer" in zero,
        offloads_weights="offload_param" in zero,
    )


def _columns(policy: UnifiedPolicy, tasks: Sequence[Task], behaviour: Behaviour) -> int:
    """Of the longest prompt and answer in a batch of these tasks; a question shows a picture."""
    shown = policy.shown_positions if Task.UNDERSTANDING in tasks else 0
    return policy.columns_of_batch(tasks, behaviour) + shown + _PROMPT_TOKENS


def _count(parameter: torch.nn.Parameter) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())


def _available(trainer: lightning.Trainer) -> int:
    """Bytes of a rank's device; the processes of one machine share its memory."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return whole // max(1, getattr(trainer.strategy, "num_processes", 1))


def _gb(size: int) -> str:
    return f"{size / _GIGA:.3g} GB"
