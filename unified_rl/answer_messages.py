"""Answers questions that another program writes to its standard input, a line of JSON each.

    python -m unified_rl.answer_messages model=janus_pro_1b behaviour=janus_pro checkpoint=FOLDER

A question is {"message": [{"type": "text" or "image", "value": TEXT or PATH}, ..],
"token_limit": N}. The reply is one line on standard output: {"answer": TEXT}, or {"error": WHY}
where it could not be asked. Everything else that is printed goes to standard error. The end of the
input ends the program.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from unified_rl.core.errors import ConfigError, UserError

if TYPE_CHECKING:
    from unified_rl.runtime.answerer import Answerer

LINE_BYTES = 4 * 2**20
"""A longer question is refused without being held in memory."""
TOKEN_LIMIT = 2048
OWN = ("model", "checkpoint", "behaviour", "device")


def main(arguments: list[str]) -> int:
    """Answers until the input ends; arguments are settings as `unified_rl.generate` takes them."""
    from unified_rl.runtime.answerer import Answerer
    from unified_rl.runtime.open_policy import open_policy
    from unified_rl.runtime.quiet import quieten

    replies, sys.stdout = sys.stdout, sys.stderr
    quieten()
    try:
        own, overrides = _settings(arguments)
        policy, behaviour = open_policy(
            own.get("model", "micro_janus"),
            own.get("checkpoint"),
            own.get("behaviour", "micro"),
            own.get("device", "auto"),
            overrides,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    answerer = Answerer(policy, behaviour)
    for line in _lines(sys.stdin.buffer):
        _write(replies, reply(answerer, line))
    return 0


def reply(answerer: "Answerer", line: bytes) -> dict[str, str]:
    """The reply to one line."""
    from unified_rl.data.images import ImageError, read_image
    from unified_rl.runtime.answerer import MARKER

    if len(line) > LINE_BYTES:
        return {"error": f"a question of over {LINE_BYTES} bytes"}
    try:
        asked = json.loads(line)
        parts = [(str(part["type"]), str(part["value"])) for part in asked["message"]]
        limit = int(asked.get("token_limit", TOKEN_LIMIT))
        "".join(value for _, value in parts).encode()  # half of a surrogate pair passes as JSON
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        return {"error": f"not a question: {type(error).__name__}: {error}"}
    odd = sorted({kind for kind, _ in parts} - {"text", "image"})
    if odd or limit < 1:
        return {"error": f"parts of kind {odd}" if odd else f"token_limit={limit} is below 1"}
    try:
        pictures = [read_image(Path(value)) for kind, value in parts if kind == "image"]
        # a marker that the text brings along would move the pictures
        runs = [MARKER if kind == "image" else value.replace(MARKER, "") for kind, value in parts]
        sample = answerer.question("message", "\n".join(runs), pictures)
        count = answerer.unasked_count
        (answer,) = answerer.answer([sample], limit)
    except (ImageError, UserError) as error:
        return {"error": f"cannot be asked: {error}"}
    if answerer.unasked_count > count:
        return {"error": "the question does not fit the context of the model"}
    return {"answer": answer}


def _settings(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    own: dict[str, str] = {}
    overrides = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument!r} is not a setting; settings are NAME=VALUE")
        if name in OWN:
            own[name] = value
        else:
            overrides.append(argument)
    return own, overrides


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES + 1):
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(LINE_BYTES + 1)):
            pass
        if line.strip():
            yield line


def _write(file: TextIO, row: dict[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
