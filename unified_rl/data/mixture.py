"""Mixes sources by sampling ratio into one endless, seeded stream."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Protocol

import lightning
import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Pair, Sample


class Source(Protocol):
    """Where samples, or pairs of them, come from: one random draw at a time.

    Attributes:
        image_size: side of its images in pixels; None where it has none or any size.
    """

    image_size: int | None

    def draw(self, rng: np.random.Generator) -> Sample | Pair: ...


class MixtureStream(IterableDataset):
    """Sample number i of a stream depends on (seed, i) alone, so that it can be resumed.

    Ranks share the batches of a single process: the first takes the first samples of each, the
    next those that follow.

    Args:
        sources: by name.
        ratios: relative frequency of each source; 0 leaves it out.
        seed: of the stream.
        start: number of samples to skip, those of all ranks.
        share: samples of each batch that this rank takes; None takes all there are.
        rank: of the process.
        rank_count: number of processes.
        turn: samples in a row from one source before the next one has its turn, whatever their
            ratios; 0 draws the source of each sample at random.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        ratios: Mapping[str, float],
        seed: int,
        start: int = 0,
        turn: int = 0,
        share: int | None = None,
        rank: int = 0,
        rank_count: int = 1,
    ) -> None:
        if set(sources) != set(ratios) or min(ratios.values()) < 0 or not sum(ratios.values()):
            raise ConfigError(
                f"data.ratios={dict(ratios)} must give each of {sorted(sources)} a ratio >= 0, "
                "not all of them 0"
            )
        names = [name for name in sources if ratios[name] > 0]
        total = sum(ratios[name] for name in names)
        self._sources = [sources[name] for name in names]
        self._shares = np.cumsum([ratios[name] / total for name in names])
        self._seed, self._start, self._turn = seed, start, turn
        self._share, self._rank, self._rank_count = share or 1, rank, rank_count

    def __iter__(self) -> Iterator[Sample | Pair]:
        for index in self._places():
            rng = np.random.default_rng([self._seed, 0, index])
            choice = int(np.searchsorted(self._shares, rng.random(), side="right"))
            if self._turn:
                choice = index // self._turn % len(self._sources)
            yield self._sources[min(choice, len(self._sources) - 1)].draw(rng)

    def _places(self) -> Iterator[int]:
        """Numbers of the samples that are this rank's."""
        for batch in itertools.count(self._start, self._share * self._rank_count):
            first = batch + self._rank * self._share
            yield from range(first, first + self._share)


class SampleDataModule(lightning.LightningDataModule):
    """Batches of samples or pairs (plain lists) from a mixture.

    Args:
        sources: by name.
        ratios: relative frequency of each source.
        batch_size: samples a step (prompts, in reinforcement learning), which the ranks share.
        seed: of the stream.
        turn: batches in a row from one source before the next one has its turn, whatever their
            ratios, as in CoRL's cycle paradigm; 0 draws the source of each sample at random.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        ratios: Mapping[str, float],
        batch_size: int,
        seed: int,
        turn: int = 0,
    ) -> None:
        super().__init__()
        if turn < 0:
            raise ConfigError(f"data.turn={turn} must be 0 or more; 0 mixes the sources")
        if batch_size < 1:
            raise ConfigError(f"data.batch_size={batch_size} must be at least 1")
        self.sources, self.ratios = dict(sources), dict(ratios)
        self.batch_size, self.seed, self.turn = batch_size, seed, turn
        self.batches_seen = 0

    def train_dataloader(self) -> DataLoader:
        """An endless loader that goes on where `batches_seen` says.

        Raises:
            ConfigError: the ranks cannot share a batch evenly.
        """
        rank, count = 0, 1
        if self.trainer is not None:
            rank, count = self.trainer.global_rank, self.trainer.world_size
        if self.batch_size % count:
            raise ConfigError(
                f"data.batch_size={self.batch_size} cannot be shared by {count} processes; use "
                f"{-(-self.batch_size // count) * count}"
            )
        share = self.batch_size // count
        stream = MixtureStream(
            self.sources,
            self.ratios,
            self.seed,
            start=self.batches_seen * self.batch_size,
            turn=self.turn * self.batch_size,
            share=share,
            rank=rank,
            rank_count=count,
        )
        return DataLoader(stream, batch_size=share, collate_fn=list)

    def on_after_batch_transfer(
        self, batch: list[Sample | Pair], dataloader_idx: int
    ) -> list[Sample | Pair]:
        """Counts what a run has consumed."""
        self.batches_seen += 1
        return batch

    def transfer_batch_to_device(
        self, batch: list[Sample | Pair], device: object, dataloader_idx: int
    ) -> list[Sample | Pair]:
        """Samples stay as they are; the policy moves what it encodes."""
        return batch

    def state_dict(self) -> dict[str, int]:
        """Position in the stream."""
        return {"batches_seen": self.batches_seen}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on from a saved position."""
        self.batches_seen = state_dict["batches_seen"]
