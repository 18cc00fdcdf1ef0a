"""Key-value caches: one for decoding that is written in place, one for replay with gradients."""

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer


class _PrefixLayer(StaticLayer):
    """Buffers of fixed size, written in place; returns the filled prefix as a view."""

    def __init__(self, max_cache_len: int) -> None:
        super().__init__(max_cache_len=max_cache_len)
        self.filled = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.filled = self.filled, self.filled + key_states.shape[-2]
        self.keys[:, :, start : self.filled] = key_states
        self.values[:, :, start : self.filled] = value_states
        return self.keys[:, :, : self.filled], self.values[:, :, : self.filled]

    def get_seq_length(self) -> int:
        return self.filled


class PrefixCache(Cache):
    """The cache of one decoding session.

    Args:
        config: configuration of the language model.
        columns: positions that may be written at most.
    """

    def __init__(self, config: PreTrainedConfig, columns: int) -> None:
        super().__init__(layers=[_PrefixLayer(columns) for _ in range(config.num_hidden_layers)])

    def rewind(self, columns: int) -> None:
        """Forgets the last `columns` positions (a mask-predicting step that is not yet final)."""
        for layer in self.layers:
            layer.filled -= columns

    def spread(self, rows: Tensor) -> None:
        """Goes on with other rows: (R',) int64, which of the present ones each continues."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]


class _KeptLayer(DynamicLayer):
    """Keys and values of the last pass, in its graph."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if self.keys is None:
            self.keys, self.values = key_states, value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        return 0


class _BehindLayer(DynamicLayer):
    """Lets a pass see what another layer kept; keeps nothing itself."""

    def __init__(self, kept: _KeptLayer, rows: Tensor, columns: int) -> None:
        super().__init__()
        self._kept, self._rows, self._columns = kept, rows, columns

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        place = self._rows, slice(None), slice(self._columns)
        return (
            torch.cat([self._kept.keys[place], key_states], dim=-2),
            torch.cat([self._kept.values[place], value_states], dim=-2),
        )

    def get_seq_length(self) -> int:
        return self._columns


class KeptCache(Cache):
    """Keeps what one pass over a tape computed, for passes behind its columns to look at.

    Gradients flow through it, and a layer that is run again on the way back changes nothing.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_KeptLayer)

    def behind(self, rows: Tensor, columns: int) -> Cache:
        """A cache for a pass that may look at the first columns of the given rows.

        Args:
            rows: (E,) int64, the row of the kept pass that each row of the next one follows.
            columns: how many.
        """
        return Cache(layers=[_BehindLayer(layer, rows, columns) for layer in self.layers])
