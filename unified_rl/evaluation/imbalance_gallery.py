"""What of the imbalance suite is kept to look at."""

from collections.abc import Iterator, Sequence

from unified_rl.core.sample import Image, Sample
from unified_rl.evaluation.record import GalleryEntry
from unified_rl.evaluation.turns import Drawing


def shown_drawings(
    samples: Sequence[Sample], drawings: Sequence[Drawing], right: Sequence[bool], count: int
) -> Iterator[GalleryEntry]:
    """`count` of the drawings, evenly spread.

    Args:
        samples: what was asked for.
        drawings: one a sample.
        right: whether it shows that.
        count: at most.
    """
    for row in _places(len(drawings), count):
        prompt, pixels = samples[row].prompt_text, drawings[row].pixels
        yield GalleryEntry(prompt, (), (pixels,), (right[row],), True)


def shown_answers(
    questions: Sequence[Sample],
    answers: Sequence[str],
    right: Sequence[bool],
    count: int,
    own: Sequence[Drawing] | None = None,
) -> Iterator[GalleryEntry]:
    """`count` of the answers, evenly spread.

    Args:
        questions: about pictures.
        answers: one a question.
        right: whether it is.
        count: at most.
        own: the policy's own drawings that the questions are about; None takes the pictures in
            the questions.
    """
    for row in _places(len(questions), count):
        question = questions[row]
        shown = tuple(s.pixels for s in question.prompt if isinstance(s, Image))
        yield GalleryEntry(
            prompt=question.prompt_text + (" (own drawing)" if own else ""),
            texts=(answers[row],),
            images=(),
            correct=(right[row],),
            well_formed=True,
            shown=(own[row].pixels,) if own else shown,
        )


def _places(size: int, count: int) -> list[int]:
    """`count` places, evenly spread over `size`."""
    count = min(size, count)
    return [index * size // count for index in range(count)]
