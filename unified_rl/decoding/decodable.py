"""What the decoding session asks of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from unified_rl.core.behaviour import Behaviour
from unified_rl.decoding.decoder import Decoder

if TYPE_CHECKING:
    from unified_rl.decoding.session import Session


class Decodable(Protocol):
    """What a model offers to be decoded. Hidden states are (rows, columns, width)."""

    begin_of_image_id: int
    end_of_image_id: int
    end_of_text_id: int
    image_trigger_id: int
    image_positions: int

    def new_decoder(self, columns: int) -> Decoder: ...

    def image_features(self, shown: Tensor) -> Tensor:
        """Shown images, see `Tape` -> (B, M * positions, width)."""
        ...

    def embed(self, ids: Tensor, kind: Tensor, features: Tensor | None) -> Tensor:
        """(B, n, D) ids and (B, n) kinds -> (B, n, width)."""
        ...

    def code_embedder(self, count: int) -> Callable[[Tensor], Tensor]:
        """(B, n, D) codes -> (B, n, width), for about `count` positions in all."""
        ...

    def nullify(self, ids: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) ids and kinds of completion columns in the unconditional twin."""
        ...

    def visibility(self, kind: Tensor, segment: Tensor, start: int) -> Tensor:
        """(B, C - start, C) bool: what the columns from `start` on may look at.

        A column alone looks at every token before it, whatever the family.
        """
        ...

    def text_log_distribution(
        self, hidden: Tensor, behaviour: Behaviour, support: Tensor | None = None
    ) -> Tensor:
        """(R, width) -> (R, V) log-probabilities of the next text token."""
        ...

    def draw_image(self, session: Session, rows: Tensor, closing: Tensor, segment: Tensor) -> None:
        """Pushes one image for the given rows, with its borders."""
        ...
