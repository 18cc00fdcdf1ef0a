"""What a judge is asked, as the messages of a chat endpoint, and its replies read back."""

import base64
import io
import json
from typing import Any, NamedTuple

from PIL import Image as PillowImage

from unified_rl.core.sample import Image
from unified_rl.rewards.judging import JudgeQuestion

REPLY_CHARACTERS = 100_000
"""A longer text is no reply."""
WHOLE = ("stop", "eos_token")
"""How a reply ends that was not cut off; "Score: 10" may be the beginning of "Score: 100"."""


class ChatReply(NamedTuple):
    """A whole reply.

    Attributes:
        text: what the judge said.
        tokens: of question and reply, as the server counts them; None where it does not.
    """

    text: str
    tokens: int | None


def messages(question: JudgeQuestion) -> list[dict[str, Any]]:
    """The system's turn, if there is one, and the user's; pictures are PNG data URLs."""
    content = [
        {"type": "image_url", "image_url": {"url": _data_url(part)}}
        if isinstance(part, Image)
        else {"type": "text", "text": part.text}
        for part in question.parts
    ]
    turns: list[dict[str, Any]] = []
    if question.instruction:
        turns.append({"role": "system", "content": question.instruction})
    return [*turns, {"role": "user", "content": content}]


def read_reply(body: bytes) -> ChatReply:
    """Reads what an endpoint sent with status 200.

    Raises:
        ValueError: it is no whole reply; a clause that says what it is.
    """
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the reply is not JSON") from None
    try:
        choice = sent["choices"][0]
        text, end = choice["message"]["content"], choice["finish_reason"]
    except (LookupError, TypeError):
        raise ValueError("the reply is not of the form of chat completions") from None
    if end not in WHOLE:
        ended = end if isinstance(end, str) and end.isascii() and end.isidentifier() else "unknown"
        raise ValueError(f"the reply was cut off (finish_reason {ended[:40]})")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the reply has no text")
    if len(text) > REPLY_CHARACTERS:
        raise ValueError(f"the reply has over {REPLY_CHARACTERS} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the reply is not Unicode") from None
    usage = sent.get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    counts = isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 2**40
    return ChatReply(text, tokens if counts else None)


def _data_url(picture: Image) -> str:
    file = io.BytesIO()
    PillowImage.fromarray(picture.pixels).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
