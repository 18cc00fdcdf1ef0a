"""The processes of a run: what they tell each other, and what happens when one is lost."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from unified_rl.core.errors import TrainingError

T = TypeVar("T")
_BUCKET = 2**25
"""Elements that are averaged at once: large enough for a fast link, small beside the weights."""


class Ranks:
    """All processes of a run, or the only one, for which everything here changes nothing.

    Every exchange begins with a meeting, which says who is missing; the exchanges themselves know
    only that nothing came. All ranks must call the same methods in the same order.

    Args:
        group: of all ranks, over gloo, for meetings and plain values; None for a single process.
        timeout_s: seconds that ranks wait for each other. Longer than the slowest rank's rollout.
    """

    def __init__(
        self, group: distributed.ProcessGroup | None = None, timeout_s: float = 1800.0
    ) -> None:
        self._group, self._timeout_s = group, timeout_s

    @property
    def count(self) -> int:
        """How many there are."""
        return 1 if self._group is None else self._group.size()

    @property
    def place(self) -> int:
        """Which of them this is, from 0."""
        return 0 if self._group is None else self._group.rank()

    def meet(self, purpose: str) -> None:
        """Waits for all.

        Raises:
            TrainingError: some did not come in time, or are gone; names them where that is known.
        """
        if self._group is None:
            return
        try:
            distributed.monitored_barrier(
                self._group, timeout=timedelta(seconds=self._timeout_s), wait_all_ranks=True
            )
        except RuntimeError as error:
            raise TrainingError(
                f"rank {self.place} of {self.count} waited {self._timeout_s:g} s at most to "
                f"{purpose}, but others are lost or hang: {_reason(error)}; the same command goes "
                "on from the last checkpoint (strategy.timeout_s gives them longer)"
            ) from error

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order; anything that can be pickled, but small."""
        if self._group is None:
            return [value]
        self.meet("exchange values")
        found: list[T | None] = [None] * self.count
        distributed.all_gather_object(found, value, group=self._group)
        return found  # type: ignore[return-value]

    def mean(self, value: float | Tensor) -> float:
        """The mean of a number over ranks."""
        values = self.gather(float(value))
        return sum(values) / len(values)

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """The mean of each named number over the ranks that have it."""
        everyone = self.gather(dict(values))
        names = dict.fromkeys(name for own in everyone for name in own)
        found = {name: [own[name] for own in everyone if name in own] for name in names}
        return {name: sum(given) / len(given) for name, given in found.items()}

    def average(self, tensors: Sequence[Tensor | None], like: Iterable[Tensor]) -> list:
        """The mean of each tensor over ranks.

        Args:
            tensors: changed in place; None counts as zeros where other ranks have something.
            like: of the same shapes.

        Returns:
            The means, on every rank the same; None for what no rank has.
        """
        if self._group is None:
            return list(tensors)
        has = self.gather([tensor is not None for tensor in tensors])
        wanted = [any(own) for own in zip(*has, strict=True)]
        whole = [
            (torch.zeros_like(model) if own is None else own) if is_wanted else None
            for own, model, is_wanted in zip(tensors, like, wanted, strict=True)
        ]
        for bucket in _buckets([tensor for tensor in whole if tensor is not None]):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            distributed.all_reduce(flat)
            flat /= self.count
            for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))
        return whole


def _buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Neighbours of one dtype, in buckets of some `_BUCKET` elements."""
    found: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        is_new = not found or size + tensor.numel() > _BUCKET or found[-1][0].dtype != tensor.dtype
        if is_new:
            found.append([])
            size = 0
        found[-1].append(tensor)
        size += tensor.numel()
    return found


def _reason(error: Exception) -> str:
    """What torch says, without the place in its code and its advice."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first.rpartition("] ")[2].partition(". This is")[0] if "/" in first else first
