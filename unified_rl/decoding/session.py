"""One batch being decoded in lockstep: a static cache, a column cursor, unguided twins beside."""

from typing import Protocol

import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.trajectory import Modality, Trajectory
from unified_rl.decoding.cache import PrefixCache
from unified_rl.decoding.tape import Kind, Tape


class Decodable(Protocol):
    """What a model offers to be decoded. Hidden states are (rows, columns, width)."""

    begin_of_image_id: int
    end_of_image_id: int
    end_of_text_id: int
    image_trigger_id: int
    image_positions: int

    def new_cache(self, columns: int) -> PrefixCache: ...

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, M, 3, H, W) shown images -> (B, M * positions, width)."""
        ...

    def embed(self, ids: Tensor, kind: Tensor, features: Tensor | None) -> Tensor:
        """(B, n, D) ids and (B, n) kinds -> (B, n, width)."""
        ...

    def nullify(self, ids: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """The unconditional twin of the columns: text hidden, drawn images kept."""
        ...

    def backbone(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None
    ) -> Tensor: ...

    def text_log_distribution(
        self, hidden: Tensor, behaviour: Behaviour, support: Tensor | None = None
    ) -> Tensor:
        """(R, width) -> (R, V) log-probabilities of the next text token."""
        ...

    def draw_image(self, session: "Session", rows: Tensor, segment: Tensor) -> None:
        """Pushes exactly `image_positions` columns of codes for the given rows."""
        ...


class Session:
    """Decodes a batch of left-padded prompts.

    All rows share one column cursor. A row that has nothing to say at a column leaves a gap there:
    gaps are not attended to and do not count as positions, so a row's values do not depend on its
    mates. With guidance the cache holds 2B rows, the unconditional twins behind.

    Args:
        model: what is decoded.
        prompt: left-padded prompts.
        behaviour: how tokens are drawn.
        generator: source of all randomness.
        columns: positions to provide for beyond the prompt.
    """

    def __init__(
        self,
        model: Decodable,
        prompt: Tape,
        behaviour: Behaviour,
        generator: torch.Generator,
        columns: int,
    ) -> None:
        self.model, self.behaviour, self.generator = model, behaviour, generator
        self.pixels = prompt.pixels
        self.rows, width, self.depth = prompt.ids.shape
        total, device = width + columns, prompt.ids.device
        self.ids = torch.zeros(self.rows, total, self.depth, dtype=torch.long, device=device)
        self.kind = torch.full((self.rows, total), int(Kind.PAD), device=device)
        self.segment = torch.full((self.rows, total), -1, device=device)
        self.action_mask = torch.zeros(
            self.rows, total, self.depth, dtype=torch.bool, device=device
        )
        self.logprobs = torch.zeros(self.rows, total, self.depth, device=device)
        self.records: dict[str, Tensor] = {}
        self.cursor = 0
        self.length = torch.zeros(self.rows, dtype=torch.long, device=device)
        self.cache = model.new_cache(total)
        self.state = torch.zeros(0)
        features = model.image_features(prompt.pixels) if prompt.pixels.shape[1] else None
        self._write(prompt.ids, prompt.kind)
        self.state = self._run(width, features=features)[:, -1]
        self._commit(width)

    @property
    def conditional(self) -> Tensor:
        """(B, width): what each row knows after its last column."""
        return self.state[: self.rows]

    @property
    def unconditional(self) -> Tensor | None:
        """(B, width): the same of the twins; None without guidance."""
        return self.state[self.rows :] if self.behaviour.guided else None

    def push(
        self,
        ids: Tensor,
        kind: Kind,
        rows: Tensor,
        segment: Tensor,
        logprobs: Tensor | None = None,
        bidirectional: bool = False,
    ) -> None:
        """Appends columns and reads them.

        Args:
            ids: (B, n, D).
            kind: of all of them.
            rows: (B,) bool, who takes part; the others get gaps.
            segment: (B,) int64, the modality step that the columns belong to.
            logprobs: (B, n, D) of chosen tokens; None for forced ones.
            bidirectional: the new columns see each other whole.
        """
        count = ids.shape[1]
        self._write(ids, torch.where(rows, int(kind), int(Kind.PAD))[:, None].expand(-1, count))
        span = slice(self.cursor, self.cursor + count)
        self.segment[:, span] = torch.where(rows, segment, -1)[:, None]
        if logprobs is not None:
            self.logprobs[:, span] = torch.where(rows[:, None, None], logprobs, 0.0)
            depth = self.depth if kind == Kind.CODE else 1
            self.action_mask[:, span, :depth] = rows[:, None, None]
        hidden = self._run(count, bidirectional)
        taking = rows.repeat(hidden.shape[0] // self.rows)
        self.state = torch.where(taking[:, None], hidden[:, -1], self.state)
        self._commit(count)

    def peek(self, embeds: Tensor, rows: Tensor) -> Tensor:
        """Hidden states of an image block that is not final yet; nothing is kept.

        Args:
            embeds: (R, n, width) for rows and, with guidance, their twins.
            rows: (B,) bool, who takes part.

        Returns:
            (R, n, width).
        """
        count = embeds.shape[1]
        self.kind[:, self.cursor : self.cursor + count] = torch.where(rows, Kind.CODE, Kind.PAD)[
            :, None
        ]
        hidden = self._run(count, bidirectional=True, embeds=embeds)
        self.cache.rewind(count)
        return hidden

    def record(self, name: str, value: Tensor) -> None:
        """Keeps (B, n, ...) beside the columns about to be pushed, for replay."""
        if name not in self.records:
            shape = (self.rows, self.kind.shape[1], *value.shape[2:])
            self.records[name] = torch.zeros(shape, dtype=value.dtype, device=value.device)
        self.records[name][:, self.cursor : self.cursor + value.shape[1]] = value

    def trajectory(self) -> Trajectory:
        """The rows without padding and gaps in front, so that it owes nothing to the batch."""
        kind = self.kind[:, : self.cursor]
        valid = kind != Kind.PAD
        order = (~valid).to(torch.int8).argsort(dim=1, stable=True)[:, : int(valid.sum(1).max())]

        def compact(tensor: Tensor) -> Tensor:
            index = order.reshape(*order.shape, *[1] * (tensor.dim() - 2))
            return tensor.gather(1, index.expand(*order.shape, *tensor.shape[2:]))

        kind = compact(self.kind)
        action_mask = compact(self.action_mask)
        tape = {
            "ids": compact(self.ids),
            "kind": kind,
            "segment": compact(self.segment),
            "action_mask": action_mask,
            "pixels": self.pixels,
            **{name: compact(value) for name, value in self.records.items()},
        }
        modality = torch.where(kind == Kind.CODE, int(Modality.IMAGE), int(Modality.TEXT))
        return Trajectory(
            self.behaviour, compact(self.logprobs), action_mask, modality, tape["segment"], tape
        )

    def _write(self, ids: Tensor, kind: Tensor) -> None:
        span = slice(self.cursor, self.cursor + ids.shape[1])
        if span.stop > self.kind.shape[1]:
            raise RuntimeError(f"decoding ran past its {self.kind.shape[1]} columns")
        self.ids[:, span] = torch.where((kind != Kind.PAD)[..., None], ids, 0)
        self.kind[:, span] = kind

    def _commit(self, count: int) -> None:
        self.length += (self.kind[:, self.cursor : self.cursor + count] != Kind.PAD).sum(1)
        self.cursor += count

    def _run(
        self,
        count: int,
        bidirectional: bool = False,
        features: Tensor | None = None,
        embeds: Tensor | None = None,
    ) -> Tensor:
        """Reads the `count` columns at the cursor: (R, count, width)."""
        end = self.cursor + count
        span = slice(self.cursor, end)
        ids, kind, valid = self.ids[:, span], self.kind[:, span], self.kind[:, :end] != Kind.PAD
        positions = (self.length[:, None] + valid[:, span].cumsum(1) - 1).clamp_min(0)
        own = torch.eye(count, end, dtype=torch.bool, device=ids.device).roll(self.cursor, 1)
        seen = torch.ones(count, end, dtype=torch.bool, device=ids.device)
        if not bidirectional:
            seen = seen.tril(self.cursor)
        mask = ((seen & valid[:, None, :]) | own)[:, None]
        if embeds is None:
            embeds = self.model.embed(ids, kind, features)
            if self.behaviour.guided:
                twin = self.model.embed(*self.model.nullify(ids, kind), None)
                embeds = torch.cat([embeds, twin])
        repeat = embeds.shape[0] // self.rows
        return self.model.backbone(
            embeds, mask.repeat(repeat, 1, 1, 1), positions.repeat(repeat, 1), self.cache
        )
