"""Two drawings, two answers or both, of which one is to be preferred."""

from dataclasses import dataclass

from unified_rl.core.sample import Sample, Task


@dataclass(frozen=True, eq=False)
class Preference:
    """A better and a worse drawing of one prompt, a better and a worse answer to one question.

    Each is a sample with its target. Either half is None where no two of it were apart enough.

    Attributes:
        drawing_win: the better drawing.
        drawing_lose: the worse drawing of the same prompt.
        answer_win: the better answer.
        answer_lose: the worse answer to the same question about the same picture.
    """

    drawing_win: Sample | None
    drawing_lose: Sample | None
    answer_win: Sample | None
    answer_lose: Sample | None

    def __post_init__(self) -> None:
        if self.drawings is None and self.answers is None:
            raise ValueError("a preference has neither two drawings nor two answers")
        for pair, task in (
            (self.drawings, Task.TEXT_TO_IMAGE),
            (self.answers, Task.UNDERSTANDING),
        ):
            for sample in pair or ():
                if sample.task is not task or not sample.target:
                    raise ValueError(
                        f"{sample.id!r} of task {sample.task} has {len(sample.target)} targets; a "
                        f"preference needs one of task {task}"
                    )
            if pair is not None and pair[0].prompt_text != pair[1].prompt_text:
                raise ValueError(f"{pair[0].id!r} and {pair[1].id!r} answer different prompts")

    @property
    def drawings(self) -> tuple[Sample, Sample] | None:
        """The better and the worse drawing."""
        return _both(self.drawing_win, self.drawing_lose)

    @property
    def answers(self) -> tuple[Sample, Sample] | None:
        """The better and the worse answer."""
        return _both(self.answer_win, self.answer_lose)

    @property
    def id(self) -> str:
        """Of what was better."""
        return " + ".join(pair[0].id for pair in (self.drawings, self.answers) if pair is not None)


def _both(win: Sample | None, lose: Sample | None) -> tuple[Sample, Sample] | None:
    if (win is None) != (lose is None):
        raise ValueError(f"{(win or lose).id!r} has nothing that it is compared with")
    return None if win is None else (win, lose)
