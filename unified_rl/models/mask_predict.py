"""Families that uncover the codes of an image over a few steps, as MaskGIT does."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.trajectory import Trajectory
from unified_rl.decoding.masked import (
    GIVEN,
    masked_again,
    masked_counts,
    nested_masks,
    noise_temperatures,
    training_mask,
)
from unified_rl.decoding.sampling import draw
from unified_rl.decoding.session import Session
from unified_rl.decoding.tape import Kind, Tape, causal_visibility, image_visibility
from unified_rl.models.base import UnifiedPolicy

REPLAYED_COLUMNS = 2048
"""Columns of masked copies that one replay pass takes at most."""


class MaskPredictPolicy(UnifiedPolicy):
    """Each step proposes all masked codes and keeps the most confident.

    A code's log-probability is the one at the step that revealed it, given what was revealed
    before. Which positions a step reveals follows from its proposals and is replayed, not scored.
    An image is read as one block with its borders: all of it sees all of it.

    Source: MaskGIT (arXiv 2202.04200); omni-attention of Show-o (arXiv 2408.12528), section 3.3.
    """

    closes_images = True

    @abstractmethod
    def code_log_probs(
        self,
        hidden: Tensor,
        twin: Tensor | None,
        behaviour: Behaviour,
        support: Tensor | None = None,
    ) -> Tensor:
        """(..., K) log-probabilities of a code from the state at its own position.

        Args:
            hidden: (..., width); `twin` those of the unconditional twins, if guided.
            twin: see `hidden`.
            behaviour: how codes are drawn.
            support: (..., K) bool, what truncation kept when the code was drawn.
        """

    @property
    def mask_code(self) -> int:
        """What stands for a masked code; `embed_codes` knows it."""
        return self.capabilities.codebook_size

    def visibility(self, kind: Tensor, segment: Tensor, start: int) -> Tensor:
        """Causal, but images see themselves whole, and all see what a prompt shows."""
        seen = causal_visibility(kind, start)
        if kind.shape[1] - start == 1:
            return seen
        shown = self.seen_by_all(kind)[:, None, :]
        return seen | shown | image_visibility(kind, segment, start)

    def seen_by_all(self, kind: Tensor) -> Tensor:
        """(B, C) bool: columns that those before them see too: up to the last image shown."""
        columns = torch.arange(kind.shape[1], device=kind.device)
        last = torch.where(kind == Kind.PIXEL, columns + 1, -1).amax(1)  # its end-of-image token
        return (columns <= last[:, None]) & (kind != Kind.PAD)

    # -- drawing -----------------------------------------------------------------------------------

    def draw_image(self, session: Session, rows: Tensor, closing: Tensor, segment: Tensor) -> None:
        """Pushes one image for the given rows, with both borders."""
        behaviour, shape = session.behaviour, (session.rows, self.image_positions)
        if not behaviour.constrained:
            raise ConfigError(
                "behaviour.constrained=false lets words compete with codes, but this family draws "
                "codes alone; set it to true"
            )
        codes, reveal = segment.new_full(shape, self.mask_code), segment.new_full(shape, GIVEN)
        logprobs = torch.zeros(shape, device=segment.device)
        supports = None
        if behaviour.image.truncates:
            supports = codes.new_zeros(*shape, self.mask_code, dtype=torch.bool)
        step_count = behaviour.image_step_count
        left = masked_counts(behaviour.mask_schedule, self.image_positions, step_count)
        noise = noise_temperatures(behaviour.mask_noise, step_count)
        for step in range(step_count):
            states = self.image_states(session, codes, rows, segment)
            log_probs = self.code_log_probs(*states, behaviour)
            drawn, _ = draw(log_probs.flatten(0, 1), session.generator)
            proposal = drawn.view(shape)
            new = masked = codes == self.mask_code
            if step < step_count - 1:
                chosen = _of(log_probs, proposal).exp()
                uniform = torch.rand(shape, generator=session.generator, device=codes.device)
                new = masked & ~masked_again(chosen, masked, left[step], noise[step], uniform)
            support = None
            if behaviour.image.truncates:
                support = torch.isfinite(log_probs)
                supports |= support & new[..., None]
            scores = _of(log_probs, proposal)
            if behaviour.guided and not behaviour.replays_guided:
                scores = self._scores(states, proposal, support, behaviour)
            codes = torch.where(new, proposal, codes)
            reveal = torch.where(new, step, reveal)
            logprobs = torch.where(new, scores, logprobs)
        if behaviour.mask_likelihood == "frozen":
            order = torch.rand(shape, generator=session.generator, device=codes.device)
            reveal = nested_masks(order, behaviour.frozen_step_count)
            for step in range(behaviour.frozen_step_count):
                hidden = torch.where(reveal >= step, self.mask_code, codes)
                states = self.image_states(session, hidden, rows, segment)
                scores = self._scores(states, codes, supports, behaviour)
                logprobs = torch.where(reveal == step, scores, logprobs)
        session.record("reveal", functional.pad(reveal, (1, 1), value=GIVEN))
        if supports is not None:
            session.record("image_support", functional.pad(supports, (0, 0, 1, 1)))
        scored = _sample_steps(reveal, session) if behaviour.replays_some_steps else reveal >= 0
        padded = functional.pad(logprobs, (1, 1))[..., None]
        session.push(
            *self._block(codes), rows, segment, padded, functional.pad(scored, (1, 1), value=False)
        )

    def _block(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N) codes between their borders: ids (B, N + 2, 1) and kinds (N + 2,)."""
        ids = functional.pad(codes, (1, 1))
        ids[:, 0], ids[:, -1] = self.begin_of_image_id, self.end_of_image_id
        kind = codes.new_full((ids.shape[1],), int(Kind.CODE))
        kind[0] = kind[-1] = int(Kind.TEXT)
        return ids[..., None], kind

    def image_states(
        self, session: Session, codes: Tensor, rows: Tensor, segment: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """(B, N, width) states of (B, N) codes, masked or not, and the twins' in a guided session.

        The session keeps nothing of them.
        """
        hidden = session.peek(*self._block(codes), rows, segment)[:, 1:-1]
        guided = session.behaviour.guided
        return hidden[: session.rows], hidden[session.rows :] if guided else None

    def _scores(
        self,
        states: tuple[Tensor, Tensor | None],
        codes: Tensor,
        support: Tensor | None,
        behaviour: Behaviour,
    ) -> Tensor:
        """(B, N) log-probabilities of `codes` as replay will find them."""
        twin = states[1] if behaviour.replays_guided else None
        return _of(self.code_log_probs(states[0], twin, behaviour, support), codes)

    # -- scoring -----------------------------------------------------------------------------------

    def choose_targets(
        self, tape: Tape, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Masks a random share of each image; what is masked is to be predicted, in one step."""
        is_code = tape.kind == Kind.CODE
        count = int(is_code.sum()) // self.image_positions
        device = generator.device
        noise = torch.rand(count, generator=generator, device=device)
        scores = torch.rand(count, self.image_positions, generator=generator, device=device)
        masked = torch.zeros_like(is_code)
        masked[is_code] = training_mask("cosine", noise, scores).flatten().to(masked.device)
        action_mask = tape.action_mask & (~is_code | masked)[..., None]
        return action_mask, {"reveal": torch.where(masked, 0, GIVEN)}

    def logprobs(self, trajectory: Trajectory) -> Tensor:
        """Scores every action again.

        Each step of each image is a copy of the image behind the finished columns, in which what
        came later is masked again; copies see what precedes their image, and themselves.
        """
        tape = Tape(*(trajectory.tape[name] for name in Tape._fields))
        copies, tape = self._copies(trajectory, tape)
        result, columns = None, tape.kind.shape[1]
        most = max(1, REPLAYED_COLUMNS // (self.image_positions + 2))
        for start in range(0, max(1, len(copies)), most):
            chunk = copies[start : start + most]
            hidden = self._read_with(tape, chunk)
            twin = None
            if trajectory.behaviour.replays_guided and chunk:
                twin = self._read_with(tape.twin, chunk)
            if result is None:
                result = self._text_logprobs(trajectory, tape, hidden[:, :columns])
            place = columns
            for copy in chunk:
                result = self._score_copy(trajectory, copy, hidden, twin, place, result)
                place += 0 if copy.in_place else copy.columns.shape[1]
        return result

    def _copies(self, trajectory: Trajectory, tape: Tape) -> tuple[list["_Copy"], Tape]:
        """All copies that replay needs, and the tape that they stand behind."""
        starts = _image_starts(tape)
        if not starts.shape[1]:
            return [], tape
        reveal = trajectory.tape["reveal"]
        acting = trajectory.action_mask[..., 0]
        offsets = torch.arange(self.image_positions + 2, device=starts.device)
        copies = []
        for image in range(starts.shape[1]):
            columns = torch.where(starts[:, image, None] >= 0, starts[:, image, None] + offsets, -1)
            step = reveal.gather(1, columns.clamp_min(0))
            is_code = (columns >= 0) & (offsets > 0) & (offsets <= self.image_positions)
            chosen = is_code & acting.gather(1, columns.clamp_min(0))
            ids = tape.ids.gather(1, columns.clamp_min(0)[..., None])
            for index in _steps_of(step, chosen).unbind(1):
                masked = is_code & (step >= index[:, None])
                masked_ids = torch.where(masked[..., None], self.mask_code, ids)
                copies.append(_Copy(columns, masked_ids, chosen & (step == index[:, None])))
        behind = torch.arange(tape.kind.shape[1], device=starts.device) > starts.amax(1)[:, None]
        follows = behind & acting & (tape.kind == Kind.TEXT)
        if copies and starts.shape[1] == 1 and not bool(follows.any()):
            # Nobody reads the finished image, so its own place serves the first copy.
            first, rows = copies[0], (starts[:, 0] >= 0).nonzero().flatten()
            ids = tape.ids.clone()
            ids[rows[:, None], first.columns[rows]] = first.ids[rows]
            copies[0] = first._replace(in_place=True)
            return copies, tape._replace(ids=ids)
        return copies, tape

    def _read_with(self, tape: Tape, copies: list["_Copy"]) -> Tensor:
        """(B, C + E, width): one pass over the tape and the copies that are not in their place."""
        behind = [copy for copy in copies if not copy.in_place]
        if not behind:
            return self.read(tape)
        origin = torch.cat([copy.columns for copy in behind], 1)  # (B, E), -1 where there is none
        owner = torch.cat([copy.columns[:, :1].expand_as(copy.columns) for copy in behind], 1)
        index = origin.clamp_min(0)
        kind = torch.where(origin >= 0, tape.kind.gather(1, index), int(Kind.PAD))
        ids = torch.cat([copy.ids for copy in behind], 1)
        features = self.image_features(tape.pixels) if tape.pixels.shape[1] else None
        embeds = self.embed(
            torch.cat([tape.ids, ids], 1), torch.cat([tape.kind, kind], 1), features
        )
        positions = torch.cat([tape.positions, tape.positions.gather(1, index)], 1)
        columns, extra = tape.kind.shape[1], origin.shape[1]
        mask = torch.zeros(
            len(kind), columns + extra, columns + extra, dtype=torch.bool, device=kind.device
        )
        mask[:, :columns, :columns] = self.visibility(tape.kind, tape.segment, 0)
        before = torch.arange(columns, device=kind.device) < owner[..., None]
        mask[:, columns:, :columns] = before & tape.valid[:, None]
        serial = torch.arange(len(behind), device=kind.device)
        serial = serial.repeat_interleave(behind[0].columns.shape[1])
        mask[:, columns:, columns:] = serial[:, None] == serial
        return self.backbone(embeds, mask[:, None], positions, None)

    def _score_copy(
        self,
        trajectory: Trajectory,
        copy: "_Copy",
        hidden: Tensor,
        twin: Tensor | None,
        place: int,
        result: Tensor,
    ) -> Tensor:
        rows, offsets = copy.chosen.nonzero(as_tuple=True)
        if not len(rows):
            return result
        columns = copy.columns[rows, offsets]
        places = columns if copy.in_place else place + offsets
        support = trajectory.tape.get("image_support")
        log_probs = self.code_log_probs(
            hidden[rows, places],
            None if twin is None else twin[rows, places],
            trajectory.behaviour,
            None if support is None else support[rows, columns],
        )
        scores = _of(log_probs, trajectory.tape["ids"][rows, columns, 0])
        return result.index_put((rows, columns, torch.zeros_like(rows)), scores)


class _Copy(NamedTuple):
    """One step of one image of each row.

    Attributes:
        columns: (B, N + 2) where the image stands on the tape; -1 in rows that have none.
        ids: (B, N + 2, 1) what the step saw.
        chosen: (B, N + 2) bool, the codes that the step revealed by choice.
        in_place: stands in the image's own columns instead of behind the tape.
    """

    columns: Tensor
    ids: Tensor
    chosen: Tensor
    in_place: bool = False


def _sample_steps(reveal: Tensor, session: Session) -> Tensor:
    """(B, N) bool: the codes of some steps, evenly spaced behind a start drawn for each row.

    Every step is as likely as any other to be among them.
    """
    steps, taken = session.behaviour.image_step_count, session.behaviour.replayed_step_count
    start = torch.rand((len(reveal), 1), generator=session.generator, device=reveal.device)
    offsets = torch.arange(taken, device=reveal.device)
    chosen = ((start + offsets) * steps / taken).long().clamp_max(steps - 1)
    return (reveal[..., None] == chosen[:, None]).any(-1)


def _steps_of(step: Tensor, chosen: Tensor) -> Tensor:
    """(B, S) the steps with a chosen code, in order; behind them a step that nothing waits for."""
    count = int(step.max()) + 1
    taken = torch.zeros(len(step), count + 1, dtype=torch.bool, device=step.device)
    taken.scatter_(1, torch.where(chosen, step, count), True)
    indices = torch.arange(count, device=step.device).expand(len(step), count)
    ordered = torch.where(taken[:, :count], indices, count).sort(1).values
    most = int(taken[:, :count].sum(1).max())
    return ordered[:, :most]


def _of(log_probs: Tensor, codes: Tensor) -> Tensor:
    """(..., K) and (...,) -> (...,)."""
    return log_probs.gather(-1, codes[..., None]).squeeze(-1)


def _image_starts(tape: Tape) -> Tensor:
    """(B, M) column of the begin token of each drawn image; -1 behind a row's last."""
    is_code = (tape.kind == Kind.CODE).long()
    first = is_code.diff(dim=1, prepend=is_code[:, :1] * 0) == 1
    counts = first.sum(1)
    starts = counts.new_full((len(counts), int(counts.max())), -1)
    rows, columns = first.nonzero(as_tuple=True)
    order = first.cumsum(1)[rows, columns] - 1
    starts[rows, order] = columns - 1
    return starts
