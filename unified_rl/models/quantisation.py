"""Four-bit weights through bitsandbytes, which needs an NVIDIA GPU."""

import importlib.util
from collections.abc import Iterable

import torch
from torch import nn

from unified_rl.core.errors import ConfigError


def require_four_bit() -> None:
    """Refuses machines that cannot hold a model in 4 bit.

    Raises:
        ConfigError: there is no CUDA device, or bitsandbytes is not installed.
    """
    if not torch.cuda.is_available():
        raise ConfigError("adapter.kind=qlora needs a CUDA device and here is none; use lora")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("adapter.kind=qlora needs bitsandbytes: pip install bitsandbytes")


def quantise(
    root: nn.Module, modules: Iterable[nn.Module], device: torch.device | str = "cuda"
) -> None:
    """Replaces the linear layers of `modules` by 4-bit ones, in place.

    Source: QLoRA (arXiv 2305.14314), section 3: NF4, double quantisation, bfloat16 arithmetic.

    Args:
        root: holds the modules; told that it is in 4 bit, which is where peft looks.
        modules: their `torch.nn.Linear` layers become bitsandbytes' `Linear4bit`.
        device: where the layers go, for moving them there is what quantises them.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    held = {part for module in modules for part in module.modules()}
    linears = [(n, m) for n, m in root.named_modules() if m in held and type(m) is nn.Linear]
    for name, linear in linears:
        layer = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        layer.weight = Params4bit(
            linear.weight.data,
            requires_grad=False,
            compress_statistics=True,
            quant_type="nf4",
            module=layer,
        )
        layer.bias = linear.bias
        # layer by layer, so that no second copy of the whole ever exists
        root.set_submodule(name, layer.to(device).requires_grad_(False))
    root.is_loaded_in_4bit = True
