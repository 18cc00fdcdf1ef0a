"""What comes out of a policy: completions as tokens, with all it takes to score them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Self

import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.sample import Completion, Sample


class Modality(IntEnum):
    """Which head a position is scored by; the values index `Trajectory.modality`."""

    TEXT = 0
    IMAGE = 1


class Trajectory(NamedTuple):
    """A batch of completions as tokens; position t of every field speaks of the same token t.

    B rows, L positions (prompt and completion, right padded), D codes a position (1 but for
    residual-depth families, whose text sits at depth 0).

    Attributes:
        behaviour: the distribution the tokens were drawn from.
        logprobs: (B, L, D) float32, log-probability of each token as it was drawn; 0 elsewhere.
        action_mask: (B, L, D) bool, True where the policy chose. Forced tokens are False.
        modality: (B, L) int64, a `Modality`.
        segment: (B, L) int64, index of the modality step within the completion; -1 in the prompt
            and in padding.
        tape: tensors, rows first, that only the policy which made them reads.
    """

    behaviour: Behaviour
    logprobs: Tensor
    action_mask: Tensor
    modality: Tensor
    segment: Tensor
    tape: dict[str, Tensor]

    @property
    def row_count(self) -> int:
        """B."""
        return self.logprobs.shape[0]

    def select(self, rows: Tensor | slice) -> Self:
        """The given rows, as a trajectory of its own."""
        return type(self)(
            self.behaviour,
            self.logprobs[rows],
            self.action_mask[rows],
            self.modality[rows],
            self.segment[rows],
            {name: tensor[rows] for name, tensor in self.tape.items()},
        )

    @property
    def lengths(self) -> Tensor:
        """(B,) int64: columns of each row up to the end of its completion."""
        columns = torch.arange(1, self.segment.shape[1] + 1, device=self.segment.device)
        return torch.where(self.segment >= 0, columns, 0).amax(1)

    def trimmed(self) -> Self:
        """The same rows without the columns behind the longest of them."""
        whole, kept = self.segment.shape[1], int(self.lengths.max())
        if kept == whole:
            return self
        return type(self)(
            self.behaviour,
            *(tensor[:, :kept] for tensor in self[1:5]),
            {
                name: tensor[:, :kept] if tensor.shape[1] == whole else tensor  # pictures stay
                for name, tensor in self.tape.items()
            },
        )

    def to(self, device: torch.device | str) -> Self:
        """The same trajectory with its tensors on `device`."""
        return type(self)(
            self.behaviour,
            *(tensor.to(device) for tensor in self[1:5]),
            {name: tensor.to(device) for name, tensor in self.tape.items()},
        )

    def mask_of(self, modality: Modality) -> Tensor:
        """(B, L, D) bool: the actions of one modality."""
        return self.action_mask & (self.modality == modality).unsqueeze(-1)


def join(parts: Sequence[Trajectory]) -> Trajectory:
    """One trajectory of the rows of several, drawn in the same way; shorter ones are padded.

    Raises:
        ValueError: there are none, or they were drawn in different ways.
    """
    if len({part.behaviour for part in parts}) != 1:
        raise ValueError(f"{len(parts)} trajectories of different behaviours cannot be joined")
    if len(parts) == 1:
        return parts[0]  # a copy of a whole rollout would be for nothing
    names = dict.fromkeys(name for part in parts for name in part.tape)
    return Trajectory(
        parts[0].behaviour,
        _stacked([part.logprobs for part in parts]),
        _stacked([part.action_mask for part in parts]),
        _stacked([part.modality for part in parts]),
        _stacked([part.segment for part in parts], fill=-1),
        {name: _joined(name, parts) for name in names},
    )


def _joined(name: str, parts: Sequence[Trajectory]) -> Tensor:
    """What the parts have on their tapes under a name; nothing where a part has no such thing."""
    holder = next(part for part in parts if name in part.tape)
    like = holder.tape[name]
    found = [
        part.tape.get(name, like.new_zeros(part.row_count, 0, *like.shape[2:])) for part in parts
    ]
    by_column = like.shape[1] == holder.segment.shape[1]  # pictures are not
    least = max(part.segment.shape[1] for part in parts) if by_column else 0
    return _stacked(found, fill=-1 if name == "segment" else 0, least=least)


def _stacked(parts: Sequence[Tensor], fill: int = 0, least: int = 0) -> Tensor:
    """(b, n, ...) of different n -> (B, N, ...), filled on the right; N is `least` at least."""
    most = max(least, *(part.shape[1] for part in parts))
    rows = sum(part.shape[0] for part in parts)
    whole = parts[0].new_full((rows, most, *parts[0].shape[2:]), fill)
    start = 0
    for part in parts:
        whole[start : start + part.shape[0], : part.shape[1]] = part
        start += part.shape[0]
    return whole


@dataclass(frozen=True, eq=False)
class Rollout:
    """The completions of one step: `group_size` in a row for each prompt.

    Attributes:
        samples: B samples; the completions of one prompt repeat its sample.
        completions: B decoded answers.
        trajectory: the same answers as tokens.
        group_size: G; rows [i * G, (i + 1) * G) form a group.
    """

    samples: tuple[Sample, ...]
    completions: tuple[Completion, ...]
    trajectory: Trajectory
    group_size: int

    def __post_init__(self) -> None:
        counts = len(self.samples), len(self.completions), self.trajectory.row_count
        if len(set(counts)) != 1:
            raise ValueError(f"samples, completions and trajectory rows differ: {counts}")
        if self.group_size < 1 or counts[0] % self.group_size:
            raise ValueError(
                f"group_size={self.group_size} does not divide the {counts[0]} completions"
            )

    def select(self, rows: Tensor, group_size: int) -> Self:
        """The given rows, which form groups of another size."""
        places = rows.tolist()
        return type(self)(
            tuple(self.samples[row] for row in places),
            tuple(self.completions[row] for row in places),
            self.trajectory.select(rows.to(self.trajectory.segment.device)),
            group_size,
        )


class RewardScores(NamedTuple):
    """What a reward says of B completions.

    Attributes:
        outcome: (B,) float32, one score a completion.
        steps: (B, K) float32, one score a modality step, NaN where a completion has no such step
            or the reward has nothing to say of it; None for rewards without a per-step form.
        judged: (B,) bool, False where the reward has nothing to say of the whole completion, as of
            a task that is not its own; the outcome there is 0. None where it judges all.
    """

    outcome: Tensor
    steps: Tensor | None = None
    judged: Tensor | None = None

    @property
    def judged_rows(self) -> Tensor:
        """(B,) bool: `judged`, or True throughout."""
        if self.judged is None:
            return torch.ones(len(self.outcome), dtype=torch.bool, device=self.outcome.device)
        return self.judged

    def select(self, rows: Tensor) -> Self:
        """The scores of the given rows."""
        return type(self)(*(None if part is None else part[rows] for part in self))


def repeat_for_groups(samples: Sequence[Sample], group_size: int) -> tuple[Sample, ...]:
    """Each sample `group_size` times, its copies side by side."""
    return tuple(sample for sample in samples for _ in range(group_size))
