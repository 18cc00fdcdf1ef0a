"""Trajectories to try, and what the tests do to them."""

import functools
from dataclasses import replace

import torch
from torch import Tensor

from tests.toys.samples import mixed, stories
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.sample import Completion
from unified_rl.core.trajectory import Trajectory
from unified_rl.decoding.tape import Kind
from unified_rl.models.base import UnifiedPolicy

PLAIN = Behaviour(max_text_tokens=6, max_image_count=2, image_step_count=4)
GREEDY = replace(PLAIN, text=Sampling(0.0), image=Sampling(0.0), mask_noise=0.0)
_CUT = Sampling(top_k=4, top_p=0.8)
BEHAVIOURS = {
    "plain": PLAIN,
    "cool": replace(PLAIN, text=Sampling(0.7), image=Sampling(0.7)),
    "truncated": replace(PLAIN, text=_CUT, image=_CUT),
    "guided": replace(PLAIN, guidance_scale=3.0),
    "conditional": replace(PLAIN, guidance_scale=3.0, logprob="conditional"),
    "guided_warm_truncated": replace(
        PLAIN, guidance_scale=3.0, image=Sampling(2.0, top_k=4, top_p=0.9)
    ),
    "conditional_truncated": replace(PLAIN, guidance_scale=3.0, logprob="conditional", image=_CUT),
    "greedy": GREEDY,
    "greedy_guided": replace(GREEDY, guidance_scale=3.0),
    "some_steps": replace(PLAIN, replayed_step_count=2),
    "some_steps_guided": replace(PLAIN, replayed_step_count=1, guidance_scale=3.0, image=_CUT),
    "frozen_masks": replace(PLAIN, mask_likelihood="frozen"),
    "frozen_masks_guided": replace(PLAIN, mask_likelihood="frozen", guidance_scale=3.0, image=_CUT),
}


def seeded(seed: int = 0) -> torch.Generator:
    """Fresh randomness."""
    return torch.Generator().manual_seed(seed)


def sampled(
    policy: UnifiedPolicy, name: str = "plain"
) -> tuple[Trajectory, tuple[Completion, ...]]:
    """A batch of all tasks."""
    return policy.sample(mixed(), BEHAVIOURS[name], seeded())


@functools.cache
def told(policy: UnifiedPolicy, behaviour: Behaviour = PLAIN) -> Trajectory:
    """One row: text of 3 tokens or more, an image, text of 3 tokens or more, and maybe more."""
    for seed in range(16):
        trajectory, _ = policy.sample(stories(16), behaviour, seeded(seed))
        text = trajectory.tape["kind"] == Kind.TEXT
        lengths = torch.stack([(text & (trajectory.segment == s)).sum(1) for s in (0, 1, 2)], 1)
        has_image = (trajectory.tape["kind"] == Kind.CODE).any(1)
        suited = has_image & (lengths[:, 0] >= 3) & (lengths[:, 2] >= 3)
        if bool(suited.any()):
            return trim(trajectory.select(suited.nonzero()[0]))
    raise AssertionError("no such row in 256")


def trim(trajectory: Trajectory) -> Trajectory:
    """Without the columns that are padding in every row."""
    width = int((trajectory.tape["kind"] != Kind.PAD).sum(1).max())
    tape = {
        name: value if name == "shown" else value[:, :width]
        for name, value in trajectory.tape.items()
    }
    return Trajectory(trajectory.behaviour, *(field[:, :width] for field in trajectory[1:5]), tape)


def with_ids(trajectory: Trajectory, ids: Tensor) -> Trajectory:
    """The same trajectory with other tokens."""
    return trajectory._replace(tape={**trajectory.tape, "ids": ids})


def all_candidates(trajectory: Trajectory, column: int, count: int) -> Trajectory:
    """A one-row trajectory `count` times, its token at `column` running from 0 to count - 1."""
    rows = trajectory.select(torch.zeros(count, dtype=torch.long))
    ids = rows.tape["ids"].clone()
    ids[:, column, 0] = torch.arange(count)
    return with_ids(rows, ids)


def order(trajectory: Trajectory) -> Tensor:
    """(L,) when each token of a one-row trajectory came about; equal values, same time.

    Columns come in reading order. Within an image of a mask-predicting family all columns sit at
    the place of its begin token, as its end token does, and the recorded reveal steps order them.
    """
    kind, tape = trajectory.tape["kind"][0], trajectory.tape
    time = torch.arange(len(kind), dtype=torch.float64)
    if "reveal" not in tape:
        return time
    is_code = kind == Kind.CODE
    starts = is_code & ~is_code.roll(1)
    begin = torch.where(starts, time - 1, -1.0).cummax(0).values
    time = torch.where(is_code.roll(1) & ~is_code, begin, time)
    return torch.where(is_code, begin + (tape["reveal"][0] + 1) / 100, time)
