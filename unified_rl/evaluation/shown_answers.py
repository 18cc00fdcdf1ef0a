"""Interleaved answers to look at."""

from collections.abc import Mapping, Sequence

from unified_rl.evaluation.answer_folder import Answered
from unified_rl.evaluation.judgements import picture
from unified_rl.evaluation.question_file import Question
from unified_rl.evaluation.record import GalleryEntry

SIDE = 384
"""Pixels of the longer side to which pictures are scaled down."""


def shown_answers(
    questions: Sequence[Question], answers: Mapping[str, Answered], count: int
) -> tuple[GalleryEntry, ...]:
    """`count` of the questions, spread evenly, with their answers."""
    count = min(len(questions), count)
    places = [index * len(questions) // count for index in range(count)]
    return tuple(_entry(questions[place], answers[questions[place].id]) for place in places)


def _entry(question: Question, answered: Answered) -> GalleryEntry:
    said = answered.parts or ((f"not asked: {answered.unasked}",) if answered.unasked else ())
    asked = question.request.prompt
    return GalleryEntry(
        prompt="\n".join(part for part in asked if isinstance(part, str)),
        texts=tuple(part for part in said if isinstance(part, str)),
        images=tuple(picture(path, SIDE).pixels for path in answered.images),
        correct=(),
        well_formed=answered.finished and not answered.unasked,
        shown=tuple(picture(path, SIDE).pixels for path in question.request.images),
    )
