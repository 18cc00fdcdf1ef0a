"""A static key-value cache that hands attention only what has been written so far."""

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, StaticLayer


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
