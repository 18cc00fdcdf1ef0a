"""A Llama that reads a few columns at a time, without what a whole pass brings along."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from unified_rl.models.column_attention import attend, buffer, row_mask
from unified_rl.models.fixed_steps import BUCKET, FixedSteps

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


class LeanLlama:
    """The decoder of one session (see `decoding.decoder.Decoder`).

    It calls the library's norms, activations and, where they are adapted, linear layers, in the
    library's order; what it leaves out is bookkeeping. Keys and values lie in buffers of fixed
    size. Weights are read when it is made, so it serves one policy between two updates.

    Args:
        model: `is_lean`.
        columns: that may be read at most.
        fixed: whether single columns are read by `FixedSteps`; None does so on a CUDA device.
    """

    def __init__(self, model: LlamaModel, columns: int, fixed: bool | None = None) -> None:
        config = model.config
        self._capture = model.norm.weight.device.type == "cuda"
        self._fixed = self._capture if fixed is None else fixed
        if self._fixed:
            columns = -(-columns // BUCKET) * BUCKET
        self._columns, self._norm = columns, model.norm
        size = sum(p.numel() * p.element_size() for p in model.layers.parameters())
        self._layers = [_Layer(layer, size <= PACKED_BYTES) for layer in model.layers]
        self._head_width = model.layers[0].self_attn.head_dim
        self._queries, self._keys = config.num_attention_heads, config.num_key_value_heads
        places = torch.arange(columns, device=model.norm.weight.device)[None]
        cosine, sine = model.rotary_emb(model.norm.weight, places)
        half = self._head_width // 2
        sine = torch.cat([-sine[..., :half], sine[..., half:]], dim=-1)
        self._turns = torch.stack([cosine[0], sine[0]], dim=1)  # (columns, 2, head width)
        self._filled = 0
        self._steps = FixedSteps(self._capture, columns)

    def read(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """See `Decoder.read`."""
        count = embeds.shape[1]
        if self._fixed and count == 1 and not torch.is_grad_enabled():
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

    def spread(self, rows: Tensor) -> None:
        """See `Decoder.spread`."""
        for layer in self._layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = self._room((len(rows), *old.shape[1:]), old)
                new[:, :, : self._filled] = old[rows, :, : self._filled]
                setattr(layer, name, new)
        self._steps = FixedSteps(self._capture, self._columns)

    def _step(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, place: Tensor | slice, seen: int
    ) -> Tensor:
        """Reads columns at a place, of which the first `seen` may be looked at."""
        turns = self._turns[positions][:, :, :, None]  # (R, n, 2, 1, head width)
        if self._is_column(embeds):
            mask = row_mask(mask, self._keys)
        hidden = embeds
        for layer in self._layers:
            hidden = self._through(layer, hidden, mask, turns[:, :, 0], turns[:, :, 1], place, seen)
        return self._norm(hidden)

    def _is_column(self, hidden: Tensor) -> bool:
        return hidden.shape[1] == 1 and hidden.device.type == "cpu"

    def _room(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """For keys or values; what is masked must still be a number where it is looked at."""
        return like.new_zeros(shape) if self._fixed else buffer(shape, like)

    def _through(
        self,
        layer: "_Layer",
        hidden: Tensor,
        mask: Tensor,
        cosine: Tensor,
        sine: Tensor,
        place: Tensor | slice,
        seen: int,
    ) -> Tensor:
        rows, count = hidden.shape[:2]
        looked, kept = self._queries, self._keys
        found = layer.attention_inputs(layer.attention_norm(hidden), self._head_width)
        turned = found[:, :, : looked + kept]
        halves = turned.roll(self._head_width // 2, -1)
        turned = torch.addcmul(turned * cosine, halves, sine).transpose(1, 2)
        if layer.keys is None:
            shape = (rows, kept, self._columns, self._head_width)
            layer.keys, layer.values = self._room(shape, found), self._room(shape, found)
        # Under autocast the angles are wider than the keys; an index of places converts nothing.
        layer.keys[:, :, place] = turned[:, looked:].to(layer.keys.dtype)
        layer.values[:, :, place] = found[:, :, looked + kept :].transpose(1, 2)
        queries, keys, values = (
            turned[:, :looked],
            layer.keys[:, :, :seen],
            layer.values[:, :, :seen],
        )
        if count == 1 and looked != kept:  # heads that share keys ask as columns of one head
            queries = queries.reshape(rows, kept, looked // kept, self._head_width)
        if self._is_column(hidden):
            mixed = attend(queries, keys, values, mask)
        else:
            mixed = functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, enable_gqa=queries.shape[1] != kept
            )
        if count == 1:
            mixed = mixed.reshape(rows, 1, -1)
        else:
            mixed = mixed.transpose(1, 2).reshape(rows, count, -1)
        hidden = hidden + layer.attention_output(mixed)
        return hidden + layer.feed(layer.feed_norm(hidden))


class _Layer:
    """One block: its weights as they are multiplied, and its keys and values."""

    def __init__(self, layer: LlamaDecoderLayer, packed: bool) -> None:
        attention, feed = layer.self_attn, layer.mlp
        self.attention_norm = layer.input_layernorm
        self.feed_norm = layer.post_attention_layernorm
        self._inputs = _Side((attention.q_proj, attention.k_proj, attention.v_proj), packed)
        self.attention_output = _Side((attention.o_proj,), packed).whole
        self._gates, self._act = _Side((feed.gate_proj, feed.up_proj), packed), feed.act_fn
        self._down = _Side((feed.down_proj,), packed).whole
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def attention_inputs(self, hidden: Tensor, head_width: int) -> Tensor:
        """(R, n, width) -> queries, keys and values: (R, n, heads, head width)."""
        return self._inputs.whole(hidden).unflatten(-1, (-1, head_width))

    def feed(self, hidden: Tensor) -> Tensor:
        """(R, n, width) -> (R, n, width)."""
        gate, up = self._gates.parts(hidden)
        return self._down(self._act(gate) * up)


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
