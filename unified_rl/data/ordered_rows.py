"""Rows that can be taken one by one: in order, in shuffled order, shared by ranks."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unified_rl.core.sample import Sample
from unified_rl.data.permutation import Permutation


class OrderedRows(ABC):
    """Rows of a file or folder, good or broken, that become samples.

    Attributes:
        path: of the file or folder.
        image_size: side of the images in pixels; None leaves them as they are.
    """

    path: Path
    image_size: int | None

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows, good or broken; the same whenever they are opened."""

    @abstractmethod
    def load(self, index: int) -> Sample:
        """The sample of the row at an index from 0, its images decoded.

        Raises:
            BrokenRowError: the row is broken: a clause to put behind its place.
        """

    @abstractmethod
    def place(self, index: int) -> int | str:
        """Where the row at an index stands, for people: a line from 1, or words."""

    @abstractmethod
    def take(self, index: int) -> Sample | None:
        """The sample of the row at an index; None where it is broken, which is then listed.

        Raises:
            DataError: too many rows have turned out broken.
        """

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Sample:
        """The sample of a random good row; depends on `rng` alone.

        Raises:
            DataError: too many rows have turned out broken.
        """

    @property
    @abstractmethod
    def broken_count(self) -> int:
        """Number of rows found broken so far, with what was lost before it became a row."""

    @property
    @abstractmethod
    def broken_reasons(self) -> list[tuple[str, int]]:
        """Kinds of reasons why they are broken, with their counts; the most frequent first."""

    def in_order(
        self,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        shuffle_seed: int | None = None,
        epoch: int = 0,
    ) -> Iterator[tuple[int, Sample]]:
        """A rank's good rows of one epoch; see `reader.OrderedReader` for one that resumes.

        Args:
            rank: of the process.
            world_size: number of processes that share the rows.
            start: number of places, those of all ranks, that are passed over.
            shuffle_seed: of the order; None is the order of the file.
            epoch: each has a shuffled order of its own.

        Yields:
            Its place in the order, from 0, and the sample. Without shuffling the place is the
            row's index.

        Raises:
            DataError: too many rows have turned out broken.
        """
        order = self.order(shuffle_seed, epoch)
        for position in range(start + rank, len(self), world_size):
            sample = self.take(order[position])
            if sample is not None:
                yield position, sample

    def order(self, shuffle_seed: int | None = None, epoch: int = 0) -> range | Permutation:
        """Index of the row at each place of an epoch; takes no memory."""
        if shuffle_seed is None:
            return range(len(self))
        return Permutation(len(self), shuffle_seed, epoch)
