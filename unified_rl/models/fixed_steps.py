"""Single columns read at fixed addresses, so that a GPU can replay each as one CUDA graph."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

BUCKET = 128
"""Columns by which the stretch that a step looks at grows. A multiple of 8, as attention wants its
masks aligned; more columns are looked at in vain, fewer need more graphs."""
FIRST_WARM_UPS, WARM_UPS = 2, 1
"""Runs before the first capture, and before each further one, whose shapes are others: in them
libraries load kernels and make plans and workspaces, which they may not do in a capture."""

Step = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""Embeds (R, 1, width), mask (R, 1, 1, n) to add, positions (R, 1), the column (1,) that is read,
and n, the columns that may be looked at -> hidden states (R, 1, width). Reading a column twice is
the same as reading it once."""


class FixedSteps:
    """Reads one column a call; what changes from call to call lies in tensors that stay in place.

    A step of a small batch is bound by its launches: replayed from a graph, hundreds of kernels are
    launched by one call. As shapes are part of a graph, a step looks at a whole number of buckets,
    of which the columns to come are masked, and there is one graph for each number.

    It does not keep what it captures: whoever reads owns these steps, so that keys and values are
    given back as soon as their owner is let go.

    Args:
        capture: whether the device replays graphs. Without them the same step runs eagerly, on
            any device.
        columns: that there are at most.
    """

    def __init__(self, capture: bool, columns: int) -> None:
        self._capture, self._columns = capture, columns
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._embeds: Tensor | None = None

    def read(self, step: Step, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Hidden states (R, 1, width).

        Args:
            step: what is captured, the same in every call; it must not wait for the device.
            embeds: (R, 1, width).
            mask: (R, 1, 1, columns so far and this one) bool, who looks at whom.
            positions: (R, 1) int64.
        """
        if self._embeds is None:
            self._embeds, self._positions = torch.empty_like(embeds), torch.empty_like(positions)
            shape = (len(embeds), 1, 1, -(-self._columns // BUCKET) * BUCKET)
            self._mask = embeds.new_empty(shape)
            self._column = positions.new_empty(1)
        seen = mask.shape[-1]
        self._embeds.copy_(embeds)
        self._positions.copy_(positions)
        self._mask[..., :seen].zero_().masked_fill_(~mask, -torch.inf)
        self._mask[..., seen:].fill_(-torch.inf)
        self._column.fill_(seen - 1)
        looked_at = -(-seen // BUCKET) * BUCKET
        if not self._capture:
            return self._run(step, looked_at)
        with torch.cuda.device(embeds.device):  # which need not be the current one
            if looked_at not in self._graphs:
                self._graphs[looked_at] = self._captured(step, looked_at)
            graph, hidden = self._graphs[looked_at]
            graph.replay()
            return hidden.clone()  # the next replay writes over it

    def _run(self, step: Step, looked_at: int) -> Tensor:
        mask = self._mask[..., :looked_at]
        return step(self._embeds, mask, self._positions, self._column, looked_at)

    def _captured(self, step: Step, looked_at: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        beside = _side_stream(self._embeds.device)
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS if self._graphs else FIRST_WARM_UPS):
                self._run(step, looked_at)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, as those of rewards and loggers, may use the device meanwhile.
        with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
            hidden = self._run(step, looked_at)
        return graph, hidden


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all sessions, as libraries keep a workspace for each stream that they have seen."""
    return torch.cuda.Stream(device)
