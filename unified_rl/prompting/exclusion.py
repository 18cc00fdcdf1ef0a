"""Prompts that are never written: GenEval's, and those of a file.

GenEval's 553 prompts are known by digests of their canonical keys alone (`geneval_digests.txt`);
`python -m unified_rl.data.unirl_prompts --digests FILE` makes them from its metadata.

Source: UniRL (arXiv 2505.23380) 3.2: training prompts do not overlap with GenEval's.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from unified_rl.core.errors import DataError
from unified_rl.prompting.keys import KeyReader
from unified_rl.prompting.phrases import Request
from unified_rl.prompting.world import World

DIGEST_BYTES = 8
LINE_BYTES = 2**20
"""A longer line is refused without being held in memory."""
_GENEVAL = Path(__file__).with_name("geneval_digests.txt")


class Exclusion:
    """Tells requests that must not become prompts; see `keys` for what makes no difference.

    Args:
        world: of the requests.
        digests: of the keys to exclude.
    """

    def __init__(self, world: World, digests: Iterable[str]) -> None:
        self._reader, self._digests = KeyReader(world), frozenset(digests)

    def __call__(self, request: Request) -> bool:
        """Whether the request is excluded."""
        return digest(self._reader.of_request(request)) in self._digests


def digest(key: str) -> str:
    """16 hexadecimal digits that stand for a key."""
    return hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES).hexdigest()


def geneval_digests() -> frozenset[str]:
    """Of GenEval's prompts."""
    lines = _GENEVAL.read_text("ascii").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def benchmark_digests(path: str | Path, world: World) -> tuple[frozenset[str], int]:
    """Digests of the prompts of a file that the world has words for, and the number of all prompts.

    Args:
        path: of a text file in UTF-8; a line is a prompt, or a JSON object with the key "prompt" as
            in GenEval's metadata. Blank lines are passed over.
        world: a prompt that it has no words for is one that no builder over it writes.

    Raises:
        DataError: no such file, a broken line, or no prompts.
    """
    reader, digests, count = KeyReader(world), set(), 0
    for prompt in _prompts(Path(path)):
        count += 1
        key = reader.of_text(prompt)
        if key is not None:
            digests.add(digest(key))
    if not count:
        raise DataError(f"{path} holds no prompts; give one a line, or JSON lines with a 'prompt'")
    return frozenset(digests), count


def _prompts(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file), start=1):
                if line is None:
                    raise DataError(f"{path} line {number} is longer than {LINE_BYTES} bytes")
                prompt = _prompt(line, f"{path} line {number}")
                if prompt:
                    yield prompt
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines of a file; None for one that is too long."""
    while line := file.readline(LINE_BYTES + 1):
        yield line if len(line) <= LINE_BYTES else None


def _prompt(line: bytes, where: str) -> str:
    try:
        text = line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text") from error
    if not text.startswith("{"):
        return text
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {str(error)[:80]}") from error
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        raise DataError(f"{where} has no text under 'prompt'; its keys: {str(sorted(row))[:80]}")
    return prompt.strip()
