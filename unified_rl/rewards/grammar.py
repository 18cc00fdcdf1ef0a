"""The grammar of interleaved answers: (THINK words VISUALISE image)+, then the end."""

from unified_rl.core.sample import THINK, VISUALISE, Completion, Segment, Text


def spoken(completion: Completion) -> tuple[Segment, ...]:
    """The segments without an empty text at the end, in which the policy only said "end"."""
    segments = completion.segments
    if segments and isinstance(segments[-1], Text) and not segments[-1].text.strip():
        return segments[:-1]
    return segments


def words_of(text: str) -> str:
    """A thought without its `THINK` and `VISUALISE`."""
    return " ".join(text.replace(THINK, " ").replace(VISUALISE, " ").split())


def is_thought(text: str) -> bool:
    """Whether a text is THINK, words, VISUALISE, each tag once."""
    text = text.strip()
    return (
        text.startswith(THINK)
        and text.endswith(VISUALISE)
        and text.count(THINK) == text.count(VISUALISE) == 1
        and any(letter.isalnum() for letter in words_of(text))
    )
