"""One batch being decoded in lockstep: a static cache, a column cursor, unguided twins beside."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.trajectory import Modality, Trajectory
from unified_rl.decoding.decodable import Decodable
from unified_rl.decoding.sampling import require_numbers
from unified_rl.decoding.tape import Kind, Tape


class Session:
    """Decodes a batch of left-padded prompts.

    All rows share one column cursor. A row that has nothing to say at a column leaves a gap there:
    gaps are not attended to and do not count as positions, so a row's values do not depend on its
    mates. With guidance the unconditional twins are decoded beside, as rows B to 2B. Twins of rows
    that draw nothing, and rows that have ended, are not read (`retire`).

    Args:
        model: what is decoded, all of it under `torch.no_grad`.
        prompt: left-padded prompts.
        behaviour: how tokens are drawn.
        generator: source of all randomness.
        columns: positions to provide for beyond the prompt.
        draws: (B,) bool, rows that may draw: twins are of use to no other; None for all.
        same_as: (B,) int64, for each row the first one with the same prompt, which is read once
            for all of them; None reads every row's.
    """

    def __init__(
        self,
        model: Decodable,
        prompt: Tape,
        behaviour: Behaviour,
        generator: torch.Generator,
        columns: int,
        draws: Tensor | None = None,
        same_as: Tensor | None = None,
    ) -> None:
        self.model, self.behaviour, self.generator = model, behaviour, generator
        self.prompt = prompt
        self.guided = behaviour.guided and (draws is None or bool(draws.any()))
        self.rows, width, self.depth = prompt.ids.shape
        total, device = width + columns, prompt.ids.device
        batch = 2 * self.rows if self.guided else self.rows
        self.ids = torch.zeros(batch, total, self.depth, dtype=torch.long, device=device)
        self.kind = torch.full((batch, total), int(Kind.PAD), device=device)
        self.segment = torch.full((self.rows, total), -1, device=device)
        self.action_mask = torch.zeros(
            self.rows, total, self.depth, dtype=torch.bool, device=device
        )
        self.logprobs = torch.zeros(self.rows, total, self.depth, device=device)
        self.records: dict[str, Tensor] = {}
        self.cursor = 0
        self.length = torch.zeros(batch, dtype=torch.long, device=device)
        self.decoder = model.new_decoder(total)
        self._live = torch.arange(batch, device=device)  # rows that are read
        if self.guided and draws is not None:
            self._live = self._live[torch.cat([torch.ones_like(draws), draws])]
        self._image: _ImageRoom | None = None
        self._write(prompt.ids, prompt.kind, prompt.twin_ids, prompt.twin_kind)
        self.state = self._read_prompts(same_as)
        self._commit(width)

    @property
    def conditional(self) -> Tensor:
        """(B, width): what each row knows after its last column."""
        return self.state[: self.rows]

    @property
    def unconditional(self) -> Tensor | None:
        """(B, width): the same of the twins; None without guidance."""
        return self.state[self.rows :] if self.guided else None

    def retire(self, rows: Tensor) -> None:
        """Stops reading rows that nothing will follow, once they are half of those that are read.

        Args:
            rows: (B,) bool, all of them so far.
        """
        kept = ~rows.repeat(len(self.kind) // self.rows)[self._live]
        if 0 < int(kept.sum()) <= len(kept) // 2:
            self.decoder.spread(kept.nonzero()[:, 0])
            self._live = self._live[kept]

    def force(self, token: int, rows: Tensor, segment: Tensor) -> None:
        """Appends a structural token that the policy does not choose."""
        ids = self.ids.new_zeros(self.rows, 1, self.depth)
        ids[..., 0] = token
        self.push(ids, ids.new_tensor([Kind.TEXT]), rows, segment)

    def push(
        self,
        ids: Tensor,
        kind: Tensor,
        rows: Tensor,
        segment: Tensor,
        logprobs: Tensor | None = None,
        scored: Tensor | None = None,
    ) -> None:
        """Appends columns and reads them.

        Args:
            ids: (B, n, D).
            kind: (n,) int64, a `Kind` each.
            rows: (B,) bool, who takes part; the others get gaps.
            segment: (B,) int64, the modality step that the columns belong to.
            logprobs: (B, n, D) of chosen tokens; None for forced ones. Where there are codes among
                the columns, they are what was chosen.
            scored: (B, n) bool, which of the chosen columns are actions; None for all.
        """
        span = self._place(ids, kind, rows, segment)
        if logprobs is not None:
            is_code = kind == Kind.CODE
            chosen = is_code if bool(is_code.any()) else torch.ones_like(is_code)
            depth = is_code[:, None] | (torch.arange(self.depth, device=kind.device) == 0)
            taken = rows[:, None, None] & (chosen[:, None] & depth)
            if scored is not None:
                taken = taken & scored[..., None]
            self.logprobs[:, span] = torch.where(taken, logprobs, 0.0)
            self.action_mask[:, span] = taken
        hidden = self._run(ids.shape[1])
        taking = self.kind[:, span.stop - 1] != Kind.PAD
        self.state = torch.where(taking[:, None], hidden[:, -1], self.state)
        self._commit(ids.shape[1])

    def open_image(self, rows: Tensor, segment: Tensor) -> None:
        """Makes room for the codes of one image of each given row; `push_codes` fills it.

        Args:
            rows: (B,) bool, who draws; the others get gaps.
            segment: (B,) int64, the modality step that the image belongs to.
        """
        count = self.model.image_positions
        span = self._span(count)
        drawing = rows.repeat(len(self.kind) // self.rows)
        self.kind[:, span] = torch.where(drawing, int(Kind.CODE), int(Kind.PAD))[:, None]
        self.segment[:, span] = torch.where(rows, segment, -1)[:, None]
        self.action_mask[:, span] = rows[:, None, None]
        steps = torch.arange(count, device=rows.device)
        self._image = _ImageRoom(
            start=span.start,
            drawing=None if bool(rows.all()) else drawing[:, None],
            seen=(self.kind[:, : span.stop] != Kind.PAD)[:, None, None],
            positions=self.length[:, None] + steps,
            embed=self.model.code_embedder(count * self.rows),
        )

    def push_codes(self, codes: Tensor, logprobs: Tensor) -> None:
        """Fills the next position of an image that was opened.

        Args:
            codes: (B, D).
            logprobs: (B, D).
        """
        room, column = self._image, self.cursor
        if room.drawing is not None:
            drawing = room.drawing[: self.rows]
            codes, logprobs = torch.where(drawing, codes, 0), torch.where(drawing, logprobs, 0.0)
        self.logprobs[:, column] = logprobs
        embeds = room.embed(codes[:, None])
        if self.guided:
            codes, embeds = torch.cat([codes, codes]), torch.cat([embeds, embeds])
        self.ids[:, column] = codes
        step = column - room.start
        hidden = self._decode(
            embeds, room.seen[..., : column + 1], room.positions[:, step : step + 1]
        )[:, 0]
        if room.drawing is not None:
            hidden = torch.where(room.drawing, hidden, self.state)
            self.length += room.drawing[:, 0]
        else:
            self.length += 1
        self.state = hidden
        self.cursor += 1

    def peek(self, ids: Tensor, kind: Tensor, rows: Tensor, segment: Tensor) -> Tensor:
        """Hidden states of columns that are not final yet; nothing is kept.

        Returns:
            (B, n, width), or (2B, n, width) with the twins of a guided session behind.
        """
        self._place(ids, kind, rows, segment)
        hidden = self._run(ids.shape[1])
        self.decoder.rewind(ids.shape[1])
        return hidden

    def record(self, name: str, value: Tensor) -> None:
        """Keeps (B, n, ...) beside the columns about to be pushed, for replay."""
        if name not in self.records:
            shape = (self.rows, self.kind.shape[1], *value.shape[2:])
            self.records[name] = torch.zeros(shape, dtype=value.dtype, device=value.device)
        self.records[name][:, self.cursor : self.cursor + value.shape[1]] = value

    def trajectory(self) -> Trajectory:
        """The rows without padding and gaps in front, so that it owes nothing to the batch.

        Raises:
            TrainingError: a token was drawn from what is no distribution.
        """
        require_numbers(self.logprobs)
        ids, kind = self.ids[: self.rows, : self.cursor], self.kind[: self.rows, : self.cursor]
        width = self.prompt.kind.shape[1]
        twin_ids, twin_kind = self.model.nullify(ids[:, width:], kind[:, width:])
        twin_ids = torch.cat([self.prompt.twin_ids, twin_ids], 1)
        twin_kind = torch.cat([self.prompt.twin_kind, twin_kind], 1)
        valid = (kind != Kind.PAD) | (twin_kind != Kind.PAD)
        order = (~valid).to(torch.int8).argsort(dim=1, stable=True)[:, : int(valid.sum(1).max())]

        def compact(tensor: Tensor) -> Tensor:
            index = order.reshape(*order.shape, *[1] * (tensor.dim() - 2))
            return tensor.gather(1, index.expand(*order.shape, *tensor.shape[2:]))

        tape = Tape(
            ids=compact(ids),
            kind=compact(kind),
            segment=compact(self.segment),
            action_mask=compact(self.action_mask),
            shown=self.prompt.shown,
            twin_ids=compact(twin_ids),
            twin_kind=compact(twin_kind),
        )
        modality = torch.where(tape.kind == Kind.CODE, int(Modality.IMAGE), int(Modality.TEXT))
        records = {name: compact(value) for name, value in self.records.items()}
        return Trajectory(
            self.behaviour,
            compact(self.logprobs),
            tape.action_mask,
            modality,
            tape.segment,
            {**tape._asdict(), **records},
        )

    def _place(self, ids: Tensor, kind: Tensor, rows: Tensor, segment: Tensor) -> slice:
        kinds = torch.where(rows[:, None], kind, int(Kind.PAD))
        span = self._write(ids, kinds, *(self.model.nullify(ids, kinds) if self.guided else ()))
        self.segment[:, span] = torch.where(rows, segment, -1)[:, None]
        return span

    def _write(
        self,
        ids: Tensor,
        kind: Tensor,
        twin_ids: Tensor | None = None,
        twin_kind: Tensor | None = None,
    ) -> slice:
        span = self._span(ids.shape[1])
        if self.guided:
            twins = torch.cat([twin_ids[..., None], ids[..., 1:]], dim=-1)
            ids, kind = torch.cat([ids, twins]), torch.cat([kind, twin_kind])
        self.ids[:, span] = torch.where((kind != Kind.PAD)[..., None], ids, 0)
        self.kind[:, span] = kind
        return span

    def _commit(self, count: int) -> None:
        self.length += (self.kind[:, self.cursor : self.cursor + count] != Kind.PAD).sum(1)
        self.cursor += count

    def _span(self, count: int) -> slice:
        """The next columns."""
        span = slice(self.cursor, self.cursor + count)
        if span.stop > self.kind.shape[1]:
            raise RuntimeError(f"decoding ran past its {self.kind.shape[1]} columns")
        return span

    def _read_prompts(self, same_as: Tensor | None) -> Tensor:
        """(R, width): the last state of every row; equal prompts and equal twins are read once."""
        prompt, width = self.prompt, self.prompt.kind.shape[1]
        first = torch.arange(self.rows, device=self.kind.device) if same_as is None else same_as
        if self.guided:
            twins = torch.cat([prompt.twin_ids, prompt.twin_kind], dim=1)
            first = torch.cat([first, self.rows + _first_alike(twins)])
        chosen, group = first[self._live].unique(return_inverse=True)
        ids, kind = self.ids[chosen, :width], self.kind[chosen, :width]
        features = None
        if prompt.shown.shape[1]:  # twins, which come last, are shown no image
            features = self.model.image_features(prompt.shown[chosen[chosen < self.rows]])
            empty = features.new_zeros(len(chosen) - len(features), *features.shape[1:])
            features = torch.cat([features, empty])
        embeds = self.model.embed(ids, kind, features)
        segment = torch.full_like(kind, -1)
        mask = self.model.visibility(kind, segment, 0)[:, None]
        positions = ((kind != Kind.PAD).cumsum(1) - 1).clamp_min(0)
        last = self.decoder.read(embeds, mask, positions)[:, -1]
        if len(chosen) < len(group):
            self.decoder.spread(group)
        return self._everyone(last[group])

    def _run(self, count: int) -> Tensor:
        """Reads the `count` columns at the cursor: (R, count, width)."""
        end = self.cursor + count
        span = slice(self.cursor, end)
        ids, valid = self.ids[:, span], self.kind[:, :end] != Kind.PAD
        if count == 1:
            mask, positions = valid[:, None, None], self.length[:, None]
        else:
            segment = self.segment[:, :end].repeat(len(self.kind) // self.rows, 1)
            mask = self.model.visibility(self.kind[:, :end], segment, self.cursor)[:, None]
            positions = (self.length[:, None] + valid[:, span].cumsum(1) - 1).clamp_min(0)
        return self._decode(self.model.embed(ids, self.kind[:, span], None), mask, positions)

    def _decode(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Reads columns of all rows that are read: (R, n, width), 0 for the others."""
        live = self._live
        if len(live) == len(self.kind):
            return self.decoder.read(embeds, mask, positions)
        return self._everyone(self.decoder.read(embeds[live], mask[live], positions[live]))

    def _everyone(self, hidden: Tensor) -> Tensor:
        """Of the rows that are read -> of all."""
        if len(hidden) == len(self.kind):
            return hidden
        whole = hidden.new_zeros(len(self.kind), *hidden.shape[1:])
        whole[self._live] = hidden
        return whole


@dataclass(frozen=True)
class _ImageRoom:
    """What an image's codes need that does not change from one to the next; see `open_image`."""

    start: int
    drawing: Tensor | None
    """(R, 1) bool; None where every row draws."""
    seen: Tensor
    """(R, 1, 1, columns) bool."""
    positions: Tensor
    """(R, count)."""
    embed: Callable[[Tensor], Tensor]


def _first_alike(rows: Tensor) -> Tensor:
    """(B,) int64: for each of (B, n) the first one that is equal to it."""
    _, group = rows.unique(dim=0, return_inverse=True)
    places = torch.arange(len(rows), device=rows.device)
    return torch.full_like(group, len(rows)).scatter_reduce(0, group, places, "amin")[group]
