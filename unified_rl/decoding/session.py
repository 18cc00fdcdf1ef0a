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

    def image_features(self, shown: Tensor) -> Tensor:
        """Shown images, see `Tape` -> (B, M * positions, width)."""
        ...

    def embed(self, ids: Tensor, kind: Tensor, features: Tensor | None) -> Tensor:
        """(B, n, D) ids and (B, n) kinds -> (B, n, width)."""
        ...

    def nullify(self, ids: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) ids and kinds of completion columns in the unconditional twin."""
        ...

    def visibility(self, kind: Tensor, segment: Tensor, start: int) -> Tensor:
        """(B, C - start, C) bool: what the columns from `start` on may look at."""
        ...

    def backbone(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: PrefixCache | None
    ) -> Tensor: ...

    def text_log_distribution(
        self, hidden: Tensor, behaviour: Behaviour, support: Tensor | None = None
    ) -> Tensor:
        """(R, width) -> (R, V) log-probabilities of the next text token."""
        ...

    def draw_image(
        self, session: "Session", rows: Tensor, closing: Tensor, segment: Tensor
    ) -> None:
        """Pushes one image for the given rows, with its borders."""
        ...


class Session:
    """Decodes a batch of left-padded prompts.

    All rows share one column cursor. A row that has nothing to say at a column leaves a gap there:
    gaps are not attended to and do not count as positions, so a row's values do not depend on its
    mates. With guidance the unconditional twins are decoded beside, as rows B to 2B.

    Args:
        model: what is decoded.
        prompt: left-padded prompts.
        behaviour: how tokens are drawn.
        generator: source of all randomness.
        columns: positions to provide for beyond the prompt.
        guided: whether the twins are decoded too, which only drawings need; None: where the
            behaviour is guided.
    """

    def __init__(
        self,
        model: Decodable,
        prompt: Tape,
        behaviour: Behaviour,
        generator: torch.Generator,
        columns: int,
        guided: bool | None = None,
    ) -> None:
        self.model, self.behaviour, self.generator = model, behaviour, generator
        self.prompt = prompt
        self.guided = behaviour.guided if guided is None else guided
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
        self.cache = model.new_cache(total)
        features = model.image_features(prompt.shown) if prompt.shown.shape[1] else None
        self._write(prompt.ids, prompt.kind, prompt.twin_ids, prompt.twin_kind)
        self.state = self._run(width, features)[:, -1]
        self._commit(width)

    @property
    def conditional(self) -> Tensor:
        """(B, width): what each row knows after its last column."""
        return self.state[: self.rows]

    @property
    def unconditional(self) -> Tensor | None:
        """(B, width): the same of the twins; None without guidance."""
        return self.state[self.rows :] if self.guided else None

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

    def peek(self, ids: Tensor, kind: Tensor, rows: Tensor, segment: Tensor) -> Tensor:
        """Hidden states of columns that are not final yet; nothing is kept.

        Returns:
            (B, n, width), or (2B, n, width) with the twins of a guided session behind.
        """
        self._place(ids, kind, rows, segment)
        hidden = self._run(ids.shape[1])
        self.cache.rewind(ids.shape[1])
        return hidden

    def record(self, name: str, value: Tensor) -> None:
        """Keeps (B, n, ...) beside the columns about to be pushed, for replay."""
        if name not in self.records:
            shape = (self.rows, self.kind.shape[1], *value.shape[2:])
            self.records[name] = torch.zeros(shape, dtype=value.dtype, device=value.device)
        self.records[name][:, self.cursor : self.cursor + value.shape[1]] = value

    def trajectory(self) -> Trajectory:
        """The rows without padding and gaps in front, so that it owes nothing to the batch."""
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
        span = slice(self.cursor, self.cursor + ids.shape[1])
        if span.stop > self.kind.shape[1]:
            raise RuntimeError(f"decoding ran past its {self.kind.shape[1]} columns")
        if self.guided:
            twins = torch.cat([twin_ids[..., None], ids[..., 1:]], dim=-1)
            ids, kind = torch.cat([ids, twins]), torch.cat([kind, twin_kind])
        self.ids[:, span] = torch.where((kind != Kind.PAD)[..., None], ids, 0)
        self.kind[:, span] = kind
        return span

    def _commit(self, count: int) -> None:
        self.length += (self.kind[:, self.cursor : self.cursor + count] != Kind.PAD).sum(1)
        self.cursor += count

    def _run(self, count: int, features: Tensor | None = None) -> Tensor:
        """Reads the `count` columns at the cursor: (R, count, width)."""
        end = self.cursor + count
        span = slice(self.cursor, end)
        ids, kind = self.ids[:, span], self.kind[:, span]
        positions = (self.length[:, None] + (kind != Kind.PAD).cumsum(1) - 1).clamp_min(0)
        segment = self.segment[:, :end].repeat(len(self.kind) // self.rows, 1)
        mask = self.model.visibility(self.kind[:, :end], segment, self.cursor)[:, None]
        if features is not None and self.guided:  # twins are shown no image
            features = torch.cat([features, torch.zeros_like(features)])
        embeds = self.model.embed(ids, kind, features)
        return self.model.backbone(embeds, mask, positions, self.cache)
