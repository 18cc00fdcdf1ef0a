"""What reads new columns behind those it has read before."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor
from transformers import Cache

from unified_rl.decoding.cache import PrefixCache


class Decoder(Protocol):
    """The language model of one decoding session, with keys and values of all columns so far."""

    def read(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Appends columns.

        Args:
            embeds: (R, n, width).
            mask: (R, 1, n, columns so far and these) bool, who may look at whom; every row sees
                something.
            positions: (R, n) int64.

        Returns:
            (R, n, width) hidden states.
        """
        ...

    def rewind(self, columns: int) -> None:
        """Forgets the last columns (a mask-predicting step that is not yet final)."""
        ...

    def spread(self, rows: Tensor) -> None:
        """Goes on with other rows: (R',) int64, which of the present ones each continues."""
        ...


class LibraryDecoder:
    """A whole model behind a cache; it serves every architecture, adapter and sharding.

    Args:
        backbone: embeds, mask, positions and cache -> hidden states.
        cache: empty.
    """

    def __init__(
        self, backbone: Callable[[Tensor, Tensor, Tensor, Cache], Tensor], cache: PrefixCache
    ) -> None:
        self._backbone, self._cache = backbone, cache

    def read(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """See `Decoder.read`."""
        return self._backbone(embeds, mask, positions, self._cache)

    def rewind(self, columns: int) -> None:
        """See `Decoder.rewind`."""
        self._cache.rewind(columns)

    def spread(self, rows: Tensor) -> None:
        """See `Decoder.spread`."""
        self._cache.spread(rows)
