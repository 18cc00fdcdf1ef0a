"""A Llama layer for CPUs: weights laid out anew, with all that can be folded into them."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from unified_rl.models.column_attention import KeptColumns, as_blocked, attend

_ONEDNN = torch.ops.mkldnn
"""oneDNN's products of packed weights, which `torch.compile` calls too."""


def has_products() -> bool:
    """Whether this torch has what `Product` calls, and is to use it."""
    available = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return available and hasattr(_ONEDNN, "_linear_pointwise")


def packs(layers: nn.ModuleList) -> bool:
    """Whether `PackedLayer` can stand for every one of a Llama's layers.

    Their weights must be plain, float32 and on a CPU, without autocast, and torch must have oneDNN.
    """
    return (
        has_products()
        and not torch.is_autocast_enabled("cpu")
        and all(_is_plain(layer) for layer in layers)
    )


def _is_plain(layer: LlamaDecoderLayer) -> bool:
    attention, feed = layer.self_attn, layer.mlp
    linear = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    linear += (feed.gate_proj, feed.up_proj, feed.down_proj)
    return (
        all(type(part) is nn.Linear for part in linear)
        and isinstance(feed.act_fn, (SiLUActivation, nn.SiLU))
        and not any(part._forward_hooks or part._forward_pre_hooks for part in layer.modules())
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in layer.parameters())
    )


class PackedLayer:
    """One block, read without gradients; see `lean_llama.Layer`.

    The scales of norms and of attention are multiplied into the weights behind them. The numbers
    of a head that turn together lie side by side, so that a turn is a product of complex numbers;
    scores do not depend on their order. Activations and sums are taken in the products themselves.

    Args:
        layer: `packs`.
        kept: keys and values of all layers.
        index: of this one.
    """

    def __init__(self, layer: LlamaDecoderLayer, kept: KeptColumns, index: int) -> None:
        attention, feed = layer.self_attn, layer.mlp
        self._head_width = width = attention.head_dim
        self._looked = attention.q_proj.out_features // width
        self._kept, self._index = kept, index
        self._norm = Norm(layer.input_layernorm, scaled=False)
        self._feed_norm = Norm(layer.post_attention_layernorm, scaled=False)
        before, before_feed = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        queries = _turned(attention.q_proj, width, attention.scaling)
        keys = _turned(attention.k_proj, width, 1.0)
        values = attention.v_proj.weight, attention.v_proj.bias
        weights, biases = zip(queries, keys, values, strict=True)
        bias = None if biases[0] is None else torch.cat(biases)
        self._inputs = Product(torch.cat(weights) * before, bias)
        self._output = Product(attention.o_proj.weight, attention.o_proj.bias)
        self._gate = Product(feed.gate_proj.weight * before_feed, feed.gate_proj.bias)
        self._up = Product(feed.up_proj.weight * before_feed, feed.up_proj.bias)
        self._down = Product(feed.down_proj.weight, feed.down_proj.bias)

    @staticmethod
    def turns(cosine: Tensor, sine: Tensor) -> Tensor:
        """(columns, head width) each -> (columns, head width / 2) complex."""
        half = cosine.shape[-1] // 2
        return torch.complex(cosine[:, :half].contiguous(), sine[:, :half].contiguous())

    def read(self, hidden: Tensor, mask: Tensor, turns: Tensor, place: slice, seen: int) -> Tensor:
        """See `lean_llama.Layer.read`."""
        rows, count, width = hidden.shape
        hidden = hidden.reshape(-1, width)
        found = self._inputs(self._norm(hidden)).view(rows, count, -1, self._head_width)
        found = found.transpose(1, 2)  # (R, heads, n, head width)
        halves = torch.view_as_complex(found.unflatten(-1, (-1, 2)))
        looked, turns = self._looked, turns[:, None]
        both = looked + self._kept.heads
        queries = torch.view_as_real(halves[:, :looked] * turns).flatten(-2)
        keys = torch.view_as_real(halves[:, looked:both] * turns).flatten(-2)
        keys, values = self._kept.put(self._index, keys, found[:, both:], place, seen)
        if count == 1:
            mixed = attend(queries, keys, values, mask, 1.0)
        else:
            mixed = functional.scaled_dot_product_attention(
                queries,
                as_blocked(keys),
                values,
                mask,
                scale=1.0,
                enable_gqa=looked != self._kept.heads,
            ).transpose(1, 2)
        hidden = self._output(mixed.reshape(rows * count, -1), "add", hidden)
        normed = self._feed_norm(hidden)
        gated = self._up(normed, "mul", self._gate(normed, "swish"))
        return self._down(gated, "add", hidden).view(rows, count, width)


class Product:
    """A linear layer that oneDNN has packed.

    Args:
        weight: (outputs, inputs) float32.
        bias: (outputs,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = _ONEDNN._reorder_linear_weight(weight.detach().contiguous(), None)
        self._bias = None if bias is None else bias.detach()

    def __call__(self, inputs: Tensor, then: str = "none", other: Tensor | None = None) -> Tensor:
        """(rows, inputs) -> (rows, outputs).

        Args:
            inputs: of any number of rows.
            then: what is done with the outputs: "swish"; with another, "add" or "mul".
            other: (rows, outputs).
        """
        if other is None:
            return _ONEDNN._linear_pointwise(inputs, self._weight, self._bias, then, [], "")
        return _ONEDNN._linear_pointwise.binary(inputs, other, self._weight, self._bias, then)


class Norm:
    """A root mean square norm.

    Args:
        norm: of a Llama.
        scaled: False leaves its scale to the weights behind it.
    """

    def __init__(self, norm: LlamaRMSNorm, scaled: bool = True) -> None:
        width = len(norm.weight)
        self._share = norm.weight.new_full((width, 1), 1 / width)
        self._epsilon = norm.weight.new_tensor(norm.variance_epsilon)
        self._scale = norm.weight.detach() if scaled else None

    def __call__(self, hidden: Tensor) -> Tensor:
        """(..., width) -> the same."""
        squares = (hidden * hidden).flatten(0, -2)
        root = torch.addmm(self._epsilon, squares, self._share).rsqrt_()
        normed = hidden * root.view(*hidden.shape[:-1], 1)
        return normed if self._scale is None else normed * self._scale


def _turned(layer: nn.Linear, width: int, scale: float) -> tuple[Tensor, Tensor | None]:
    """Weight and bias with the two halves of each head interleaved, times a scale."""

    def interleaved(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2) * scale

    return interleaved(layer.weight), None if layer.bias is None else interleaved(layer.bias)
