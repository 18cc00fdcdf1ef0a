"""The samples of any source one by one: all rows where it has some, else as many draws as asked."""

import numpy as np

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Pair, Sample
from unified_rl.data.mixture import Source
from unified_rl.data.ordered_rows import OrderedRows


class SourceWalk:
    """A source from its first sample to its last; any place of it depends on the place alone.

    Args:
        source: of samples or pairs.
        count: places at most; None takes all rows of a source that has some.
        draws: places of a source without an end.
        seed: of those draws.

    Raises:
        ConfigError: a number out of its range.
    """

    def __init__(
        self, source: Source, count: int | None = None, draws: int = 1000, seed: int = 0
    ) -> None:
        for name, value, least in (("count", count, 1), ("draws", draws, 1), ("seed", seed, 0)):
            if value is not None and value < least:
                raise ConfigError(f"{name}={value} must be at least {least}")
        self._source, self._seed = source, seed
        self.has_rows = isinstance(source, OrderedRows)
        length = len(source) if self.has_rows else draws
        self._length = length if count is None else min(count, length)

    def __len__(self) -> int:
        return self._length

    def samples_at(self, place: int) -> tuple[Sample, ...]:
        """One sample, both of a pair, or none where the row is broken.

        Raises:
            DataError: too many rows have turned out broken.
        """
        if self.has_rows:
            found = self._source.take(place)
        else:
            found = self._source.draw(np.random.default_rng([self._seed, 0, place]))
        if isinstance(found, Pair):
            return found.drawing, found.question
        return () if found is None else (found,)
