"""Elements of the arrays of a JSON file of any size, one at a time, with their places.

The file is walked through a window; what a data set names as one huge JSON value never is in memory
as a whole, and any element of it is read again by its place.
"""

import codecs
import json
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from unified_rl.core.errors import DataError
from unified_rl.data.jsonl import LINE_BYTES, numbered_lines, parse_row
from unified_rl.data.nesting import NESTING, nested_too_deep
from unified_rl.data.quarantine import BrokenRowError

TOP = ""
"""The name of an array that is the file's whole value."""
JSONL_SUFFIXES = (".jsonl", ".ndjson")
_CHUNK = 4 * LINE_BYTES
_SPACE = re.compile(r"[ \t\n\r]*")


class Element(NamedTuple):
    """An element of an array.

    Attributes:
        array: its key in the file's object; `TOP` where the file is one array.
        index: from 0, in its array.
        offset: of its first byte in the file.
        size: in bytes.
        value: as JSON; text that is not UTF-8 holds lone surrogates. None for one that is nested
            deeper than `nesting.NESTING`.
    """

    array: str
    index: int
    offset: int
    size: int
    value: Any


class Places:
    """Where elements stand in their file; sixteen bytes each."""

    def __init__(self) -> None:
        self._offsets, self._sizes = array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, element: Element) -> None:
        """Puts an element's place behind the others."""
        self._offsets.append(element.offset)
        self._sizes.append(element.size)

    def read(self, path: Path, index: int) -> dict[str, Any]:
        """An element that is an object, read again.

        Raises:
            BrokenRowError: it is none, or holds text that is not Unicode.
        """
        try:
            with path.open("rb") as file:
                file.seek(self._offsets[index])
                return parse_row(file.read(min(self._sizes[index], LINE_BYTES + 1)))
        except OSError as error:
            raise BrokenRowError(f"cannot be read: {error.strerror}") from error


class JsonDamageError(ValueError):
    """From where on a JSON file cannot be read."""


def json_elements(path: Path) -> Iterator[Element]:
    """Elements of a file that is an array, or of the arrays in one that is an object.

    Values of the object that are no arrays are passed over.

    Raises:
        JsonDamageError: when the good elements before were given: a clause to put behind the file.
    """
    with path.open("rb") as file:
        window = _Window(file)
        opener = window.punctuation()
        if opener == "[":
            yield from _elements(window, TOP)
        elif opener == "{":
            yield from _members(window)
        else:
            raise window.damage("is neither a JSON array nor an object")


def json_records(path: Path) -> Iterator[Element]:
    """Elements of a file that is an array, or the lines of a JSONL file (by its suffix).

    A line that is not JSON has the value None.

    Raises:
        JsonDamageError: when the good elements before were given.
        DataError: the file's value is an object.
    """
    if path.suffix.lower() in JSONL_SUFFIXES:
        with path.open("rb") as file:
            for index, (_, offset, line) in enumerate(numbered_lines(file)):
                try:
                    value = parse_row(line)
                except BrokenRowError:
                    value = None
                yield Element(TOP, index, offset, len(line), value)
        return
    for element in json_elements(path):
        if element.array != TOP:
            raise DataError(
                f"{path} is an object with the array {element.array[:80]!r}; records are expected "
                "as one array, or one a line of a .jsonl file"
            )
        yield element


def json_members(path: Path) -> Iterator[tuple[str, Any]]:
    """Keys and values of a file that is an object.

    Raises:
        JsonDamageError: when the good members before were given.
    """
    with path.open("rb") as file:
        window = _Window(file)
        if window.punctuation() != "{":
            raise window.damage("is no JSON object")
        while window.ahead() != "}":
            key, _, _ = window.value()
            if not isinstance(key, str):
                raise window.damage("has a key that is no text")
            if window.punctuation() != ":":
                raise window.damage("is not JSON")
            yield key, window.value()[0]
            if _ended(window, "}"):
                return


def _members(window: "_Window") -> Iterator[Element]:
    if window.ahead() == "}":
        return
    while True:
        key, _, _ = window.value()
        if not isinstance(key, str):
            raise window.damage("has a key that is no text")
        if window.punctuation() != ":":
            raise window.damage("is not JSON")
        if window.ahead() == "[":
            window.punctuation()
            yield from _elements(window, key)
        else:
            window.value()
        if _ended(window, "}"):
            return


def _elements(window: "_Window", name: str) -> Iterator[Element]:
    if window.ahead() == "]":
        window.punctuation()
        return
    index = 0
    while True:
        value, offset, size = window.value()
        yield Element(name, index, offset, size, value)
        index += 1
        if _ended(window, "]"):
            return


def _whole_number(digits: str) -> float:
    # thousands of digits are an error of Python's that would end the file here
    return float(digits) if len(digits) > 30 else int(digits)


def _ended(window: "_Window", closer: str) -> bool:
    mark = window.punctuation()
    if mark not in (",", closer):
        raise window.damage("is not JSON")
    return mark == closer


class _Window:
    """The text of a file around a place that moves on; holds a few times LINE_BYTES."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # a byte that is not UTF-8 breaks its own element and no other
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._scan = json.JSONDecoder(parse_int=_whole_number).raw_decode
        self._text, self._place, self._offset, self._ended = "", 0, 0, False
        if self.ahead() == "\ufeff":
            self._advance(1)

    def ahead(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            self._fill()
            end = _SPACE.match(self._text, self._place).end()
            self._offset += end - self._place
            self._place = end
            if self._place < len(self._text):
                return self._text[self._place]
            if self._ended:
                return ""

    def punctuation(self) -> str:
        """Takes the next character that is not white space."""
        mark = self.ahead()
        self._advance(len(mark))
        return mark

    def value(self) -> tuple[Any, int, int]:
        """Takes a value; with the place and the number of its bytes."""
        self.ahead()
        try:
            value, end = self._scan(self._text, self._place)
        except (ValueError, RecursionError) as error:
            reason = "cut off" if self._ended else f"over {LINE_BYTES} bytes"
            raise self.damage(f"holds a value that is {reason} or not JSON") from error
        brackets = sum(self._text.count(mark, self._place, end) for mark in "[{")
        if brackets > NESTING and nested_too_deep(value):
            value = None
        offset = self._offset
        self._advance(end - self._place)
        return value, offset, self._offset - offset

    def damage(self, reason: str) -> JsonDamageError:
        return JsonDamageError(f"{reason} at byte {self._offset}; what follows is lost")

    def _advance(self, count: int) -> None:
        taken = self._text[self._place : self._place + count]
        size = len(taken)
        if not taken.isascii():
            size = len(taken.encode("utf-8", "surrogateescape"))
        self._place += count
        self._offset += size

    def _fill(self) -> None:
        """Makes sure that the longest value, or the rest of the file, is there."""
        while not self._ended and len(self._text) - self._place <= LINE_BYTES:
            content = self._file.read(_CHUNK)
            self._ended = len(content) < _CHUNK
            self._text = self._text[self._place :] + self._decoder.decode(content, self._ended)
            self._place = 0
