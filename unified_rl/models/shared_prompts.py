"""Answers to one prompt, read again with the prompt read once."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from unified_rl.decoding.cache import KeptCache
from unified_rl.decoding.tape import Kind, Tape, causal_visibility

if TYPE_CHECKING:
    from unified_rl.models.base import UnifiedPolicy

WORTH = 0.75
"""Equal prompts are read once where that leaves at most this share of the columns to read."""


def read_sharing(policy: "UnifiedPolicy", tape: Tape) -> Tensor:
    """(B, C, width): `policy.read(tape)` of a causal family, but equal prompts are read once.

    Gradients reach the prompt from all its answers. Where little would be saved, as by the short
    prompts of drawings, it is one plain pass. Which of the two follows from the tape alone, so that
    two replays of the same rows give the very same numbers.

    Args:
        policy: whose columns see those before them, and all of those.
        tape: answers behind their prompts; rows are right padded.
    """
    plan = _plan(tape)
    if plan is None:
        return policy.read(tape)
    first, group, prompt, columns = plan
    width, kept = int(prompt.max()), KeptCache()
    begin = tape.kind[first, :width]
    inside = torch.arange(width, device=begin.device) < prompt[:, None]
    shared = Tape(*(field[first] for field in tape))._replace(
        ids=tape.ids[first, :width],
        kind=torch.where(inside[first], begin, int(Kind.PAD)),
        segment=tape.segment[first, :width],
    )
    opening = policy.read(shared, kept)[group]  # (B, width of the prompts, width)

    rows, last = torch.arange(len(group), device=group.device)[:, None], tape.kind.shape[1] - 1
    place = rows, columns.clamp_max(last)
    kind = torch.where(columns <= last, tape.kind[place], int(Kind.PAD))
    before = (inside & tape.valid[:, :width])[:, None].expand(-1, columns.shape[1], -1)
    mask = torch.cat([before, causal_visibility(kind)], dim=-1)[:, None]
    embeds = policy.embed(tape.ids[place], kind, None)
    answers = policy.backbone(embeds, mask, tape.positions[place], kept.behind(group, width))

    every = torch.arange(last + 1, device=group.device)
    index = torch.where(every < prompt[:, None], every, every - prompt[:, None] + width)
    index = index.clamp_max(width + columns.shape[1] - 1)[..., None]
    states = torch.cat([opening, answers], dim=1)
    return states.gather(1, index.expand(-1, -1, states.shape[-1]))


class _Plan(NamedTuple):
    """Which prompts are read for which rows.

    Attributes:
        first: (U,) a row of each prompt.
        group: (B,) the place of each row's prompt in `first`.
        prompt: (B,) columns that each prompt takes.
        columns: (B, R) where each row's answer stands, and what is behind it.
    """

    first: Tensor
    group: Tensor
    prompt: Tensor
    columns: Tensor


def _plan(tape: Tape) -> _Plan | None:
    """None where too little would be saved."""
    batch, total = tape.kind.shape
    if batch == 1 or tape.shown.requires_grad:
        return None
    places = torch.arange(total, device=tape.kind.device)
    prompt = torch.where(tape.segment >= 0, places, total).amin(1)
    end = torch.where(tape.valid, places + 1, 0).amax(1)
    longest, answer = int(prompt.max()), int((end - prompt).max())
    if not longest or answer <= 0:
        return None
    most = int(batch * (WORTH * total - answer) / longest)  # prompts for which it is worth it
    if most < 1:
        return None
    inside = (places < prompt[:, None])[:, :longest]
    ids = torch.where(inside[..., None], tape.ids[:, :longest], -1).flatten(1)
    group = _groups(torch.cat([ids, torch.where(inside, tape.kind[:, :longest], -1)], dim=1))
    if tape.shown.shape[1] and int(group.max()) < most:
        group = _groups(torch.stack([group.double(), _fingerprints(tape.shown)], dim=1))
    count = int(group.max()) + 1
    if count == batch or count > most:
        return None
    rows = torch.arange(batch, device=group.device)
    first = torch.full((count,), batch, device=group.device)
    first = first.scatter_reduce(0, group, rows, "amin")
    if not torch.equal(tape.shown, tape.shown[first][group]):
        return None  # other images of the same fingerprint
    columns = prompt[:, None] + torch.arange(answer, device=group.device)
    return _Plan(first, group, prompt, columns)


def _groups(rows: Tensor) -> Tensor:
    """(B, n) -> (B,) int64 from 0, the same for equal rows."""
    return rows.unique(dim=0, return_inverse=True)[1]


def _fingerprints(shown: Tensor) -> Tensor:
    """(B, ...) -> (B,) float64, the same for equal rows: to compare all pairs would take longer."""
    flat = shown.flatten(1).double()
    weights = torch.linspace(1, 2, flat.shape[1], dtype=flat.dtype, device=flat.device)
    return (flat * weights).sum(1)
