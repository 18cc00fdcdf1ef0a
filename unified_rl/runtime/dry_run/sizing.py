"""What an experiment asks of one rank at the published size, before anything is downloaded."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from accelerate import init_empty_weights
from hydra.utils import instantiate
from omegaconf import DictConfig

from unified_rl.models.adapter import Adapter, adapt
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.specimens.published import published_model
from unified_rl.models.weights import float_dtype
from unified_rl.runtime.strategies.memory import Load, Memory, Sharing, estimate
from unified_rl.runtime.strategies.preflight import load_of, tasks_of

_GIGA = 1e9
_FOUR_BITS = 0.5
"""Bytes; the constants of NF4's blocks are a thirtieth of it."""


def published_size(config: DictConfig, name: str) -> tuple[Load, Sharing, Memory]:
    """The load of a rank, how ranks share it, and the memory that it takes.

    Args:
        config: with small stand-ins for checkpoints, judges and data, all else as in the
            experiment.
        name: of the published model, as in `conf/model`.

    Raises:
        ConfigError: the model's sizes are not known.
    """
    config = copy.deepcopy(config)  # building resolves interpolations of the tree that it is given
    adapter: Adapter = instantiate(config.adapter, _convert_="all")
    policy = _empty_policy(config, name, adapter)
    stage = instantiate(config.stage, _convert_="all")
    stage.policy = policy
    stage.configure_model()
    sharing = _sharing(config)
    sources = instantiate(config.data, _convert_="all").sources.values()
    load = load_of(stage, max(1, config.data.batch_size // sharing.ranks), tasks_of(sources))
    size = torch.empty(0, dtype=float_dtype(config.model.dtype)).element_size()
    load = replace(load, weight_bytes=size)
    memory = estimate(load, sharing)
    if adapter.kind == "qlora":
        saved = int(_in_four_bits(policy) * (size - _FOUR_BITS))
        memory = memory._replace(
            weights=memory.weights - saved,
            reference=memory.reference - saved if load.has_reference else 0,
        )
    return load, sharing, memory


def lines(config: DictConfig, name: str) -> Iterator[str]:
    """What `published_size` finds, in words."""
    load, sharing, memory = published_size(config, name)
    whole = load.trained + load.frozen
    yield f"{name}: {whole / _GIGA:.3f} billion weights, {load.trained / _GIGA:.3f} of them train"
    parts = ", ".join(
        f"{part} {size / _GIGA:.3g}" for part, size in memory._asdict().items() if size
    )
    yield (
        f"memory of each of {sharing.ranks} rank(s), estimated: {memory.peak / _GIGA:.3g} GB at "
        f"its peak ({parts} GB)"
    )


def _empty_policy(config: DictConfig, name: str, adapter: Adapter) -> UnifiedPolicy:
    """The published model as the adapter trains it, on the meta device."""
    small = instantiate(config.model, _convert_="all")()
    model = published_model(name).to(float_dtype(config.model.dtype))
    if adapter.kind == "qlora":
        adapter = replace(adapter, kind="lora")
    with init_empty_weights(include_buffers=False):
        return adapt(type(small)(model, small.tokenizer, small.template), adapter)


def _in_four_bits(policy: UnifiedPolicy) -> int:
    """Weights of the linear layers that QLoRA holds in 4 bit, LoRA's own not among them."""
    return sum(
        parameter.numel()
        for module in policy.parameter_groups()["language_model"]
        for layer in module.modules()
        for parameter in layer.parameters(recurse=False)
        if isinstance(layer, torch.nn.Linear) and not parameter.requires_grad
    )


def _sharing(config: DictConfig) -> Sharing:
    """As `preflight.sharing_of`, of a trainer that does not exist."""
    strategy = config.strategy
    kind = strategy["_target_"].rpartition(".")[2]
    ranks = int(config.trainer.devices) * int(config.trainer.get("num_nodes", 1))
    if kind == "ShardedStrategy":
        return Sharing(ranks, 3, False, strategy.offload, strategy.offload)
    if kind == "ZeroStrategy":
        offloads = strategy.get("offload_parameters", False)
        return Sharing(ranks, strategy.stage, True, strategy.offload_optimizer, offloads)
    return Sharing(ranks)
