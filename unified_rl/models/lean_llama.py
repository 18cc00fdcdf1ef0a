"""A Llama that reads a few columns at a time, without what a whole pass brings along."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from unified_rl.models.column_attention import (
    KeptColumns,
    as_blocked,
    attend,
    reads_column,
    row_mask,
)
from unified_rl.models.fixed_steps import BUCKET, FixedSteps
from unified_rl.models.packed_layer import Norm, PackedLayer, packs

PACKED_BYTES = 2**31
"""Up to this size weights are laid out anew for a session: one product for three, and on a CPU in
the order in which products of few rows read them."""
_FIXED_ROPES = ("default", "linear", "llama3", "yarn")
"""Those whose angles depend on the position alone."""


def is_lean(model: nn.Module) -> bool:
    """Whether `LeanLlama` can take the place of a model: a Llama of the library, all of it here.

    Adapters and quantised layers are welcome. Weights that are spread over ranks are not: their
    layers gather them as whole modules, which are passed by here.
    """
    return (
        type(model) is LlamaModel
        and all(type(layer) is LlamaDecoderLayer for layer in model.layers)
        and model.rotary_emb.rope_type in _FIXED_ROPES
        and not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.layers)
        and all(_is_whole(parameter) for parameter in model.layers.parameters())
    )


def _is_whole(parameter: nn.Parameter) -> bool:
    """Not a shard: neither a distributed tensor nor the empty stand-in of ZeRO-3."""
    distributed = hasattr(parameter, "device_mesh")
    return not distributed and parameter.numel() > 0


class Layer(Protocol):
    """One block of a model; its keys and values are kept among those of all."""

    def read(
        self, hidden: Tensor, mask: Tensor, turns: Tensor, place: Tensor | slice, seen: int
    ) -> Tensor:
        """Reads n columns of R rows: (R, n, width) -> (R, n, width).

        Args:
            hidden: (R, n, width).
            mask: (R, 1, n, seen) to add; for `reads_column` what `row_mask` makes of it.
            turns: (R, n, ...), what `turns` gave for the positions of the columns.
            place: where they are kept.
            seen: how many kept columns may be looked at.
        """
        ...

    @staticmethod
    def turns(cosine: Tensor, sine: Tensor) -> Tensor:
        """(positions, head width) each, of the library -> (positions, ...)."""
        ...


class LeanLlama:
    """The decoder of one session (see `decoding.decoder.Decoder`).

    What it leaves out is bookkeeping. Keys and values lie in buffers of fixed size. Weights are
    read when it is made, so it serves one policy between two updates, under the autocast that it is
    made under. What it reads has no gradient and is an inference tensor: to be used under
    `torch.no_grad`, and not to be changed in place.

    Args:
        model: `is_lean`.
        columns: that may be read at most.
        fixed: whether single columns are read by `FixedSteps`; None does so on a CUDA device.
    """

    def __init__(self, model: LlamaModel, columns: int, fixed: bool | None = None) -> None:
        self._capture = model.norm.weight.device.type == "cuda"
        self._fixed = self._capture if fixed is None else fixed
        if self._fixed:
            columns = -(-columns // BUCKET) * BUCKET
        self._columns = columns
        attention = model.layers[0].self_attn
        heads = model.config.num_key_value_heads
        self._kept = KeptColumns(len(model.layers), heads, columns, attention.head_dim, self._fixed)
        size = sum(p.numel() * p.element_size() for p in model.layers.parameters())
        small = size <= PACKED_BYTES
        packed = small and not self._fixed and packs(model.layers)
        self._layers: list[Layer] = [
            PackedLayer(layer, self._kept, index)
            if packed
            else _ModuleLayer(layer, self._kept, index, small)
            for index, layer in enumerate(model.layers)
        ]
        self._norm = Norm(model.norm) if packed else model.norm
        places = torch.arange(columns, device=model.norm.weight.device)[None]
        cosine, sine = model.rotary_emb(model.norm.weight, places)
        self._turns = self._layers[0].turns(cosine[0], sine[0])
        self._filled = 0
        self._steps = FixedSteps(self._capture, columns)

    @torch.inference_mode()
    def read(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """See `Decoder.read`."""
        count = embeds.shape[1]
        if self._fixed and count == 1:
            hidden = self._steps.read(self._step, embeds, mask, positions)
        else:
            place = slice(self._filled, self._filled + count)
            mask = torch.zeros_like(mask, dtype=embeds.dtype).masked_fill_(~mask, -torch.inf)
            hidden = self._step(embeds, mask, positions, place, place.stop)
        self._filled += count
        return hidden

    def rewind(self, columns: int) -> None:
        """See `Decoder.rewind`."""
        self._filled -= columns

    @torch.inference_mode()
    def spread(self, rows: Tensor) -> None:
        """See `Decoder.spread`."""
        self._kept.spread(rows, self._filled)
        self._steps = FixedSteps(self._capture, self._columns)

    def _step(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, place: Tensor | slice, seen: int
    ) -> Tensor:
        """Reads columns at a place, of which the first `seen` may be looked at."""
        turns, hidden = self._turns[positions], embeds
        if reads_column(embeds):
            mask = row_mask(mask, self._kept.heads)
        for layer in self._layers:
            hidden = layer.read(hidden, mask, turns, place, seen)
        return self._norm(hidden)


class _ModuleLayer:
    """One block by the library's norms, activations and, where they are adapted, linear layers.

    Args:
        layer: of the model.
        kept: keys and values of all layers.
        index: of this one.
        joined: whether linear layers that read the same are multiplied as one.
    """

    def __init__(
        self, layer: LlamaDecoderLayer, kept: KeptColumns, index: int, joined: bool
    ) -> None:
        attention, feed = layer.self_attn, layer.mlp
        self._kept, self._index, self._head_width = kept, index, attention.head_dim
        self._scale, self._looked = attention.scaling, attention.config.num_attention_heads
        self._attention_norm = layer.input_layernorm
        self._feed_norm = layer.post_attention_layernorm
        self._inputs = _Side((attention.q_proj, attention.k_proj, attention.v_proj), joined)
        self._output = _Side((attention.o_proj,), joined)
        self._gates, self._act = _Side((feed.gate_proj, feed.up_proj), joined), feed.act_fn
        self._down = _Side((feed.down_proj,), joined)

    @staticmethod
    def turns(cosine: Tensor, sine: Tensor) -> Tensor:
        """(columns, head width) each -> (columns, 2, head width), signed for `roll`."""
        half = cosine.shape[-1] // 2
        return torch.stack([cosine, torch.cat([-sine[:, :half], sine[:, half:]], dim=-1)], dim=1)

    def read(
        self, hidden: Tensor, mask: Tensor, turns: Tensor, place: Tensor | slice, seen: int
    ) -> Tensor:
        """See `Layer.read`."""
        rows, count = hidden.shape[:2]
        looked, both = self._looked, self._looked + self._kept.heads
        found = self._inputs.whole(self._attention_norm(hidden))
        found = found.unflatten(-1, (-1, self._head_width))  # (R, n, heads, head width)
        turned, (cosine, sine) = found[:, :, :both], turns[:, :, :, None].unbind(2)
        halves = turned.roll(self._head_width // 2, -1)
        turned = torch.addcmul(turned * cosine, halves, sine).transpose(1, 2)
        # Under autocast the angles are wider than the keys; an index of places converts nothing.
        keys, values = turned[:, looked:].to(found.dtype), found[:, :, both:].transpose(1, 2)
        keys, values = self._kept.put(self._index, keys, values, place, seen)
        if reads_column(hidden):
            mixed = attend(turned[:, :looked], keys, values, mask, self._scale)
        else:
            mixed = self._blocked(turned[:, :looked], keys, values, mask)
        hidden = hidden + self._output.whole(mixed.transpose(1, 2).reshape(rows, count, -1))
        gate, up = self._gates.parts(self._feed_norm(hidden))
        return hidden + self._down.whole(self._act(gate) * up)

    def _blocked(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """(R, heads, n, head width) -> the same."""
        shape, heads = queries.shape, self._kept.heads
        if shape[2] == 1:  # heads that share keys ask as columns of one head
            queries = queries.reshape(shape[0], heads, -1, shape[3])
        return functional.scaled_dot_product_attention(
            queries,
            as_blocked(keys),
            values,
            mask,
            scale=self._scale,
            enable_gqa=queries.shape[1] != heads,
        ).reshape(shape)


class _Side:
    """Linear layers that read the same input: one product where they are plain and small."""

    def __init__(self, layers: Sequence[nn.Module], packed: bool) -> None:
        self._layers, self._weight, self._bias = layers, None, None
        plain = all(
            type(layer) is nn.Linear and not layer._forward_hooks and not layer._forward_pre_hooks
            for layer in layers
        )
        on_cpu = plain and layers[0].weight.device.type == "cpu"
        if packed and plain and (on_cpu or len(layers) > 1):
            self._weight = torch.cat([layer.weight for layer in layers])
            if on_cpu:  # inputs outermost, as products of few rows read them
                self._weight = self._weight.t().contiguous().t()
            self._sizes = [layer.out_features for layer in layers]
            if layers[0].bias is not None:
                self._bias = torch.cat([layer.bias for layer in layers])

    def whole(self, hidden: Tensor) -> Tensor:
        """Outputs of all layers, one behind the other."""
        if self._weight is None:
            found = self.parts(hidden)
            return found[0] if len(found) == 1 else torch.cat(found, dim=-1)
        return functional.linear(hidden, self._weight, self._bias)

    def parts(self, hidden: Tensor) -> Sequence[Tensor]:
        """The output of each layer."""
        if self._weight is None:
            return [layer(hidden) for layer in self._layers]
        return self.whole(hidden).split(self._sizes, dim=-1)
