"""Which parts of a policy train, and how: whole weights, LoRA, or LoRA on 4-bit weights."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import peft
from peft.tuners.lora import LoraLayer
from torch import nn

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.quantisation import quantise, require_four_bit
from unified_rl.models.recomputation import recompute_layers

GROUPS = ("language_model", "aligners", "heads", "embeddings", "vision", "codec")
"""Names that `parameter_groups` of a family may use."""

ALL_LINEAR = "all-linear"
KINDS = ("full", "lora", "qlora")


@dataclass(frozen=True)
class Adapter:
    """How a policy is trained.

    Source: LoRA (arXiv 2106.09685), QLoRA (arXiv 2305.14314).

    Attributes:
        kind: "full" moves the weights themselves. "lora" freezes those of the language model and
            adds a product of two thin matrices to each targeted one; "qlora" also holds them in 4
            bit, which needs a CUDA device and bitsandbytes. Groups other than the language model
            train in full, whatever the kind.
        trainable: groups that train, of `GROUPS`; a family passes over those it does not have. The
            codec is for `stage=image_codec` alone.
        rank: inner width of the product; read by "lora" and "qlora", as is all that follows but
            `gradient_checkpointing`.
        alpha: the product is scaled by alpha / rank.
        dropout: of what enters the product, in [0, 1); RL stages run without.
        target_modules: last names of linear layers of the language model; "all-linear" stands for
            every one.
        gradient_checkpointing: layers of the language model keep no activations and are run again
            on the way back: less memory for about a third more time, and the same gradients.

    Raises:
        ConfigError: a value is out of its range.
    """

    kind: Literal["full", "lora", "qlora"] = "full"
    trainable: Sequence[str] = ("language_model", "aligners", "heads", "embeddings")
    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: Sequence[str] = (ALL_LINEAR,)
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"adapter.kind={self.kind!r}: {nearest(self.kind, KINDS)}")
        for name in self.trainable:
            if name not in GROUPS:
                raise ConfigError(f"adapter.trainable names {name!r}; {nearest(name, GROUPS)}")
        if self.rank < 1 or self.alpha <= 0:
            raise ConfigError(f"adapter.rank={self.rank} and alpha={self.alpha} must be above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"adapter.dropout={self.dropout} is outside [0, 1)")
        if self.is_low_rank and "language_model" not in self.trainable:
            raise ConfigError(
                f"adapter.kind={self.kind} is for the language model, which adapter.trainable="
                f"[{', '.join(self.trainable)}] leaves out; add it, or use adapter=full"
            )

    @property
    def is_low_rank(self) -> bool:
        """Whether the language model trains through LoRA."""
        return self.kind != "full"


def adapt(policy: UnifiedPolicy, adapter: Adapter) -> UnifiedPolicy:
    """Freezes what does not train and adds what does, in place.

    Args:
        policy: without LoRA.
        adapter: how it is to be trained.

    Raises:
        ConfigError: nothing would train, a target does not exist, or the machine has no 4 bits.
    """
    groups = policy.parameter_groups()
    policy.requires_grad_(False)
    if adapter.is_low_rank:
        if adapter.kind == "qlora":
            require_four_bit()
            quantise(root_of(policy), groups["language_model"])
        inject(policy, _lora_config(policy, adapter))
    for name in adapter.trainable:
        if name != "language_model" or not adapter.is_low_rank:
            for module in groups.get(name, ()):
                module.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise ConfigError(
            f"adapter.trainable=[{', '.join(adapter.trainable)}] leaves nothing to train; this "
            f"policy has {', '.join(groups)}"
        )
    if adapter.gradient_checkpointing:
        recompute_layers(groups["language_model"])
    return policy


def inject(policy: UnifiedPolicy, config: peft.LoraConfig) -> None:
    """Adds LoRA to a policy, in float32 as peft does by default; its product is 0 at first.

    Modules that train in full are left as they are: see `adapter_folder.save`.
    """
    root = root_of(policy)
    peft.inject_adapter_in_model(replace(config, modules_to_save=None), root)
    for name, parameter in root.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def merge(policy: UnifiedPolicy) -> None:
    """Adds every product to the weights that it belongs to, and takes LoRA away, in place."""
    root = root_of(policy)
    for name, layer in list(root.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge(safe_merge=True)
            root.set_submodule(name, layer.get_base_layer())
    del root.peft_config


def lora_config_of(policy: UnifiedPolicy) -> peft.LoraConfig | None:
    """The LoRA that a policy has; None for one without."""
    return getattr(root_of(policy), "peft_config", {}).get("default")


def root_of(policy: UnifiedPolicy) -> nn.Module:
    """The smallest module that holds all groups: the library's model where a policy wraps one.

    Names in an adapter's files count from here, so that peft finds them in the library's model.
    """
    held = [module for group in policy.parameter_groups().values() for module in group]
    paths = [name.split(".")[:-1] for name, module in policy.named_modules() if module in held]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return policy.get_submodule(".".join(shared))


def fully_trained(policy: UnifiedPolicy) -> list[str]:
    """Names, from the root, of modules outside the language model that train in full."""
    root = root_of(policy)
    groups = policy.parameter_groups()
    others = [m for name, group in groups.items() if name != "language_model" for m in group]
    names = {module: name for name, module in root.named_modules()}
    trained = [m for m in _without_lists(others) if any(p.requires_grad for p in m.parameters())]
    return sorted(names[module] for module in trained)


def frozen_base(policy: UnifiedPolicy) -> set[str]:
    """Names of parameters that a policy with LoRA takes from its files; empty for one without."""
    if lora_config_of(policy) is None:
        return set()
    return {name for name, parameter in policy.named_parameters() if not parameter.requires_grad}


def _lora_config(policy: UnifiedPolicy, adapter: Adapter) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=_pattern(policy, adapter.target_modules),
    )


def _pattern(policy: UnifiedPolicy, wanted: Sequence[str]) -> str:
    """Matches the targeted layers by their whole names: encoders have layers of the same ones.

    Raises:
        ConfigError: no linear layer of the language model has such a name.
    """
    paths = {module: name for name, module in root_of(policy).named_modules()}
    linears: dict[str, set[str]] = {}
    for module in policy.parameter_groups()["language_model"]:
        inner = [paths[m] for m in module.modules() if isinstance(m, nn.Linear)]
        if inner:
            linears[paths[module]] = {path.rpartition(".")[2] for path in inner}
    known = set().union(*linears.values())
    names = sorted(known if ALL_LINEAR in wanted else set(wanted))
    for name in names:
        if name not in known:
            raise ConfigError(
                f"adapter.target_modules names {name!r}, which no linear layer of the language "
                f"model is called; {nearest(name, known)}"
            )
    if not names:
        raise ConfigError(f"adapter.target_modules is empty; known: {', '.join(sorted(known))}")
    parts = "|".join(re.escape(name) for name in linears)
    return rf"(?:{parts})\.(?:.*\.)?(?:{'|'.join(map(re.escape, names))})"


def _without_lists(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Lists of modules, which peft cannot save, replaced by what they hold."""
    for module in modules:
        if isinstance(module, nn.ModuleList):
            yield from _without_lists(module)
        else:
            yield module
