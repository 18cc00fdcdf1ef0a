"""Families that uncover the codes of an image over a few steps, as MaskGIT does."""

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import CapabilityError, ConfigError
from unified_rl.core.trajectory import Trajectory
from unified_rl.decoding.cache import KeptCache
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
from unified_rl.decoding.support import pack, unpack
from unified_rl.decoding.tape import Kind, Tape, causal_visibility, image_visibility
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.lean_logprobs import score_in_parts
from unified_rl.models.pictures import drawn_codes
from unified_rl.models.soft_images import PLAIN

REPLAYED_COLUMNS = 16384
"""Columns of images that one pass of a replay takes at most."""


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
        _require_no_shift(behaviour)
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
            if session.guided and not behaviour.replays_guided:
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
            session.record("image_support", functional.pad(pack(supports), (0, 0, 1, 1)))
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
        return hidden[: session.rows], hidden[session.rows :] if session.guided else None

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

    # -- drawing softly ----------------------------------------------------------------------------

    def relaxed_states(
        self, drawn: Trajectory, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A random share of each image is masked, and predicted at once. See `UnifiedPolicy`."""
        tape = Tape(*(drawn.tape[name] for name in Tape._fields))
        codes, is_code = drawn_codes(self, drawn), tape.kind == Kind.CODE
        masked = torch.cat([self._masks(1, generator) for generator in generators])  # (B, N)
        ids = tape.ids.clone()
        ids[is_code] = torch.where(masked[..., None], self.mask_code, codes).flatten(0, 1)
        hidden = self.read(tape._replace(ids=ids))
        return hidden[is_code].unflatten(0, codes.shape[:2]), codes, masked

    def redraw_codes(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """(R, width) -> (R, 1); see `UnifiedPolicy`."""
        return draw(self.code_log_probs(states, None, PLAIN), generator)[0][:, None]

    def _masks(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, N) bool: what training masks of so many images, on the generator's device."""
        device = generator.device
        noise = torch.rand(count, generator=generator, device=device)
        scores = torch.rand(count, self.image_positions, generator=generator, device=device)
        return training_mask("cosine", noise, scores)

    # -- scoring -----------------------------------------------------------------------------------

    def choose_targets(
        self, tape: Tape, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Masks a random share of each image; what is masked is to be predicted, in one step."""
        is_code = tape.kind == Kind.CODE
        masks = self._masks(int(is_code.sum()) // self.image_positions, generator)
        masked = torch.zeros_like(is_code)
        masked[is_code] = masks.flatten().to(masked.device)
        action_mask = tape.action_mask & (~is_code | masked)[..., None]
        return action_mask, {"reveal": torch.where(masked, 0, GIVEN)}

    def logprobs(self, trajectory: Trajectory) -> Tensor:
        """Scores every action again.

        Each step of each image is read once more behind what precedes the image, with masks over
        what came later; it sees that and itself. The tape is read once for all of them.
        """
        _require_no_shift(trajectory.behaviour)
        tape = Tape(*(trajectory.tape[name] for name in Tape._fields))
        placed, views, tape = _views(trajectory, tape, self.image_positions, self.mask_code)
        guided = trajectory.behaviour.replays_guided and (placed, views) != (None, None)
        twin, kept, kept_twin = tape.twin if guided else None, KeptCache(), KeptCache()
        hidden = self.read(tape, kept if views else None)
        unguided = None if twin is None else self.read(twin, kept_twin if views else None)
        result = self._text_logprobs(trajectory, tape, hidden)
        revealed = []
        if placed is not None:
            rows, columns, _, _ = placed.places()
            own = None if unguided is None else unguided[rows, columns]
            revealed.append(_Revealed(rows, columns, hidden[rows, columns], own))
        if views is not None:
            for part in views.split(max(1, REPLAYED_COLUMNS // views.columns.shape[1])):
                seen = self._read_behind(tape, kept, part)
                unseen = None if twin is None else self._read_behind(twin, kept_twin, part)
                rows, columns, *inside = part.places()
                own = None if unseen is None else unseen[*inside]
                revealed.append(_Revealed(rows, columns, seen[*inside], own))
        return self._score(trajectory, revealed, result) if revealed else result

    def _read_behind(self, tape: Tape, kept: KeptCache, views: "_Views") -> Tensor:
        """(E, N + 2, width): states of the views behind the columns that precede their images."""
        width = int(views.columns[:, 0].max())
        kind = torch.full_like(views.columns, int(Kind.CODE))
        kind[:, 0] = kind[:, -1] = int(Kind.TEXT)
        before = torch.arange(width, device=kind.device) < views.columns[:, :1]
        before &= tape.valid[views.owner, :width]
        itself = torch.ones_like(kind, dtype=torch.bool)
        mask = torch.cat([before, itself], 1)[:, None, None].expand(-1, 1, kind.shape[1], -1)
        return self.backbone(
            self.embed(views.ids, kind, None),
            mask,
            tape.positions[views.owner[:, None], views.columns],
            kept.behind(views.owner, width),
        )

    def _score(
        self, trajectory: Trajectory, revealed: Sequence["_Revealed"], result: Tensor
    ) -> Tensor:
        """`result` with the log-probabilities of what was revealed."""
        rows, columns, states, twin = (
            None if fields[0] is None else torch.cat(fields)
            for fields in zip(*revealed, strict=True)
        )
        behaviour, support = trajectory.behaviour, trajectory.tape.get("image_support")

        def score(
            states: Tensor, unguided: Tensor | None, codes: Tensor, rows: Tensor, columns: Tensor
        ) -> Tensor:
            kept = None if support is None else unpack(support[rows, columns], self.mask_code)
            return _of(self.code_log_probs(states, unguided, behaviour, kept), codes)

        codes = trajectory.tape["ids"][rows, columns, 0]
        logits = self.mask_code if behaviour.constrained else self.text_vocabulary_size
        fields = states, twin, codes, rows, columns
        scores = score_in_parts(score, fields, logits * (1 if twin is None else 2))
        return result.index_put((rows, columns, torch.zeros_like(rows)), scores)


class _Revealed(NamedTuple):
    """Codes with the states that they were chosen from.

    Attributes:
        rows: (R,) of the tape.
        columns: (R,) of the tape.
        states: (R, width).
        twin: (R, width) those of the unconditional twins, if guided.
    """

    rows: Tensor
    columns: Tensor
    states: Tensor
    twin: Tensor | None


class _Views(NamedTuple):
    """What steps saw of their images.

    Attributes:
        owner: (E,) row of the tape.
        columns: (E, N + 2) where the image stands on it.
        ids: (E, N + 2, 1) codes and masks, between the borders.
        chosen: (E, N + 2) bool, the codes that the step revealed by choice.
    """

    owner: Tensor
    columns: Tensor
    ids: Tensor
    chosen: Tensor

    def places(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where the chosen codes stand: rows and columns of the tape, entries and offsets here."""
        entries, offsets = self.chosen.nonzero(as_tuple=True)
        return self.owner[entries], self.columns[entries, offsets], entries, offsets

    def split(self, count: int) -> Iterator["_Views"]:
        """Parts of at most `count`."""
        return itertools.starmap(_Views, zip(*(field.split(count) for field in self), strict=True))


def _views(
    trajectory: Trajectory, tape: Tape, positions: int, mask_code: int
) -> tuple[_Views | None, _Views | None, Tape]:
    """Every step that chose a code: those to put in their images' place, and those to read behind.

    In rows with one image that no later word is learnt from, its own place on the tape serves its
    first step, so that training on masked drawings takes one pass.

    Returns:
        both, None where there are none, and the tape with what was put in its place.
    """
    starts = _image_starts(tape)
    acting, every = trajectory.action_mask[..., 0], []
    offsets = torch.arange(positions + 2, device=acting.device)
    is_code = (offsets > 0) & (offsets <= positions)
    for image in range(starts.shape[1]):
        (rows,) = (starts[:, image] >= 0).nonzero(as_tuple=True)
        columns = starts[rows, image, None] + offsets
        step = torch.where(is_code, trajectory.tape["reveal"][rows[:, None], columns], GIVEN)
        chosen = is_code & acting[rows[:, None], columns]
        ids = tape.ids[rows[:, None], columns]
        for index in range(int(step.max()) + 1):
            now = chosen & (step == index)
            (some,) = now.any(1).nonzero(as_tuple=True)
            masked = torch.where((is_code & (step >= index))[..., None], mask_code, ids)
            every.append(_Views(rows[some], columns[some], masked[some], now[some]))
    if not every:
        return None, None, tape
    views = _Views(*(torch.cat(fields) for fields in zip(*every, strict=True)))
    if not len(views.owner):
        return None, None, tape
    behind = torch.arange(acting.shape[1], device=acting.device) > starts.amax(1)[:, None]
    follows = (behind & acting & (tape.kind == Kind.TEXT)).any(1)
    alone = ((starts >= 0).sum(1) == 1) & ~follows
    first = _first_of_each(views.owner) & alone[views.owner]
    if not bool(first.any()):
        return None, views, tape
    placed = _Views(*(field[first] for field in views))
    ids = tape.ids.clone()
    ids[placed.owner[:, None], placed.columns] = placed.ids
    rest = _Views(*(field[~first] for field in views))
    return placed, rest if len(rest.owner) else None, tape._replace(ids=ids)


def _first_of_each(owner: Tensor) -> Tensor:
    """(E,) bool: the first entry of each row, entries being in the order of their steps."""
    order = owner.sort(stable=True)
    first = torch.ones_like(owner, dtype=torch.bool)
    first[order.indices[1:]] = order.values.diff() != 0
    return first


def _sample_steps(reveal: Tensor, session: Session) -> Tensor:
    """(B, N) bool: the codes of some steps, evenly spaced behind a start drawn for each row.

    Every step is as likely as any other to be among them.
    """
    steps, taken = session.behaviour.image_step_count, session.behaviour.replayed_step_count
    start = torch.rand((len(reveal), 1), generator=session.generator, device=reveal.device)
    offsets = torch.arange(taken, device=reveal.device)
    chosen = ((start + offsets) * steps / taken).long().clamp_max(steps - 1)
    return (reveal[..., None] == chosen[:, None]).any(-1)


def _require_no_shift(behaviour: Behaviour) -> None:
    if behaviour.replays_off_by_one:
        raise CapabilityError(
            f"behaviour.image_logprob_shift={behaviour.image_logprob_shift} shifts scores by one "
            "position in reading order, and this family draws in another order; set it to none"
        )


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
