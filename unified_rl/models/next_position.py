"""Families that draw an image position by position: flat next-token and residual-depth ones."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.trajectory import Modality, Trajectory
from unified_rl.decoding.session import Session
from unified_rl.decoding.support import pack, unpack
from unified_rl.decoding.tape import Kind, Tape
from unified_rl.models.base import UnifiedPolicy
from unified_rl.models.lean_logprobs import score_in_parts
from unified_rl.models.pictures import drawn_codes
from unified_rl.models.shared_prompts import read_sharing
from unified_rl.models.soft_images import PLAIN


class NextPositionPolicy(UnifiedPolicy):
    """Draws `image_positions` positions in reading order, D codes at each.

    The state that has read everything before a position predicts it: the begin-of-image state
    predicts position 0 through the image head. Replay alone can be told to take the state one
    position too late (`Behaviour.image_logprob_shift`).
    """

    @abstractmethod
    def draw_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        behaviour: Behaviour,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draws one position.

        Args:
            conditional: (R, width) states; `unconditional` those of the twins, if guided.
            behaviour: how codes are drawn.
            generator: source of randomness.
            unconditional: see `conditional`.

        Returns:
            codes (R, D), their log-probs (R, D), and the support (R, D, K) bool that truncation
            left, None where nothing is truncated.
        """

    @abstractmethod
    def score_codes(
        self,
        conditional: Tensor,
        unconditional: Tensor | None,
        codes: Tensor,
        behaviour: Behaviour,
        support: Tensor | None,
    ) -> Tensor:
        """(R, D) log-probs of given codes (R, D) from the same states as `draw_codes`."""

    def draw_image(self, session: Session, rows: Tensor, closing: Tensor, segment: Tensor) -> None:
        """Pushes one image for the given rows, one position at a time."""
        behaviour = session.behaviour
        session.force(self.begin_of_image_id, rows, segment)
        session.open_image(rows, segment)
        for _ in range(self.image_positions):
            twin = session.unconditional
            codes, logprobs, support = self.draw_codes(
                session.conditional, twin, behaviour, session.generator
            )
            if twin is not None and not behaviour.replays_guided:
                logprobs = self.score_codes(session.conditional, None, codes, behaviour, support)
            if support is not None:
                session.record("image_support", pack(support)[:, None])
            session.push_codes(codes, logprobs)
        if bool(closing.any()):
            session.force(self.end_of_image_id, closing, segment)

    def logprobs(self, trajectory: Trajectory) -> Tensor:
        """Scores every action again; see `Policy.logprobs`."""
        tape = Tape(*(trajectory.tape[name] for name in Tape._fields))
        hidden = read_sharing(self, tape)
        text = self._text_logprobs(trajectory, tape, hidden)
        return text + self._image_logprobs(trajectory, tape, hidden)

    def relaxed_states(
        self, drawn: Trajectory, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher forcing; every position is predicted. See `UnifiedPolicy`."""
        tape = Tape(*(drawn.tape[name] for name in Tape._fields))
        codes = drawn_codes(self, drawn)
        rows, columns = (tape.kind == Kind.CODE).nonzero(as_tuple=True)
        states = self.read(tape)[rows, columns - 1].unflatten(0, codes.shape[:2])
        return states, codes, torch.ones_like(codes[..., 0], dtype=torch.bool)

    def redraw_codes(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """(R, width) -> (R, D); see `UnifiedPolicy`."""
        return self.draw_codes(states, None, PLAIN, generator)[0]

    def _image_logprobs(self, trajectory: Trajectory, tape: Tape, hidden: Tensor) -> Tensor:
        result = torch.zeros_like(trajectory.logprobs)
        rows, columns = trajectory.mask_of(Modality.IMAGE)[..., 0].nonzero(as_tuple=True)
        if not len(rows):
            return result
        readers = columns if trajectory.behaviour.replays_off_by_one else columns - 1
        twin = None
        if trajectory.behaviour.replays_guided:
            drawn, places = rows.unique(return_inverse=True)  # words are scored without the twin
            twin = read_sharing(self, Tape(*(field[drawn] for field in tape.twin)))[places, readers]
        behaviour, support = trajectory.behaviour, trajectory.tape.get("image_support")
        own = self.capabilities

        def score(
            states: Tensor, unguided: Tensor | None, codes: Tensor, rows: Tensor, columns: Tensor
        ) -> Tensor:
            kept = None if support is None else unpack(support[rows, columns], own.codebook_size)
            return self.score_codes(states, unguided, codes, behaviour, kept)

        codes = tape.ids[rows, columns]
        logits = own.code_depth * own.codebook_size * (1 if twin is None else 2)
        fields = hidden[rows, readers], twin, codes, rows, columns
        return result.index_put((rows, columns), score_in_parts(score, fields, logits))
