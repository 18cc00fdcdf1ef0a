"""What a judge is asked and how it answers, whatever it runs on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from unified_rl.core.sample import Image, Text


class JudgeQuestion(NamedTuple):
    """One turn that a judge is asked to answer.

    Attributes:
        parts: texts and pictures in the order in which they are shown. Whatever a policy wrote
            must be delimited and cleaned before it stands here.
        instruction: what stands before them as the system's turn; "" for none.
    """

    parts: tuple[Text | Image, ...]
    instruction: str = ""


class Judge(Protocol):
    """A model that answers questions about texts and pictures."""

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[str | None]:
        """One reply a question, in order; None where the judge failed to answer.

        Failures are counted by the judge and never raise: whoever asks decides what an unanswered
        question is worth, and it is never a high score.
        """

    def describe(self) -> Mapping[str, Any]:
        """Name, version and settings, JSON-able, for the files of results."""
