"""Reads rows one by one; stops and goes on anywhere, without repeating or skipping."""

from collections.abc import Iterator

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Sample
from unified_rl.data.ordered_rows import OrderedRows

POSITION = "position"


class OrderedReader:
    """An iterator over this rank's good rows, whose whole state is one number.

    Ranks take turns at the places of the order, round by round, epoch after epoch. The state is
    the number of places, those of all ranks, in the rounds that this rank is through with, whether
    their rows were good or broken. A rank goes on from its own state if there are as many ranks.
    Where the states of all ranks are equal, as after as many rounds, any number of ranks goes on
    from it: each row before it was read once, those behind it have not been read.

    Args:
        rows: of the data set.
        rank: of the process.
        world_size: number of processes that share the rows.
        shuffle_seed: of the order, another one each epoch; None is the order of the data set.
        epochs: after which it ends; None goes on for ever.

    Raises:
        ConfigError: a setting outside of its range.
    """

    def __init__(
        self,
        rows: OrderedRows,
        rank: int = 0,
        world_size: int = 1,
        shuffle_seed: int | None = None,
        epochs: int | None = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} must be from 0 to world_size - 1 = {world_size - 1}")
        if epochs is not None and epochs < 1:
            raise ConfigError(f"epochs={epochs} must be at least 1, or null to go on for ever")
        self._rows = rows
        self._rank, self._world_size = rank, world_size
        self._shuffle_seed, self._epochs = shuffle_seed, epochs
        self._passed = 0
        self._order, self._order_epoch = rows.order(shuffle_seed, 0), 0

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        return self

    def __next__(self) -> tuple[int, Sample]:
        """The next good row: its place, counted over all epochs, and the sample.

        Raises:
            DataError: too many rows have turned out broken.
        """
        for _ in range(len(self._rows)):
            place = self._passed + self._rank
            epoch, position = divmod(place, len(self._rows))
            if self._epochs is not None and epoch >= self._epochs:
                raise StopIteration
            if epoch != self._order_epoch:
                self._order = self._rows.order(self._shuffle_seed, epoch)
                self._order_epoch = epoch
            sample = self._rows.take(self._order[position])
            self._passed += self._world_size
            if sample is not None:
                return place, sample
        raise DataError(
            f"{self._rows.path}: every row that is rank {self._rank}'s of {self._world_size} is "
            "broken; set shuffle_seed, so that it gets others each epoch"
        )

    def state_dict(self) -> dict[str, int]:
        """Where it stands."""
        return {POSITION: self._passed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on from a saved state.

        Raises:
            DataError: no state of a reader.
        """
        passed = state_dict.get(POSITION)
        if not isinstance(passed, int) or passed < 0:
            raise DataError(f"{state_dict} is no state of a reader, which is {{'{POSITION}': 0..}}")
        self._passed = passed
