"""Arrays of a JSON file through a window: every element, its place, and where damage begins."""

import json

import pytest

from unified_rl.data import json_elements as module
from unified_rl.data.json_elements import (
    JsonDamageError,
    Places,
    json_elements,
    json_members,
    json_records,
)


@pytest.fixture
def write(tmp_path):
    def write(content, name="file.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def until_damage(path):
    """The values before the damage, and what is said of it."""
    values = []
    try:
        for element in json_elements(path):
            values.append(element.value)
    except JsonDamageError as error:
        return values, str(error)
    return values, None


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("window", [8, 40, 4 * 2**20])
def test_every_element_is_found_at_its_place(write, monkeypatch, indent, ascii_only, window):
    elements = [{"n": n, "text": 'é猫🐈"\\ }]' * (n % 5)} for n in range(40)]
    file = {"head": {"x": [1]}, "first": elements, "none": [], "last": elements[::-1], "end": 3}
    path = write(json.dumps(file, indent=indent, ensure_ascii=ascii_only))
    # a value is at most 40 + 4 * 44 bytes; the window must hold the longest
    monkeypatch.setattr(module, "LINE_BYTES", max(window, 400))
    monkeypatch.setattr(module, "_CHUNK", window)
    found = list(json_elements(path))
    assert [e.value for e in found if e.array == "first"] == elements
    assert [e.value for e in found if e.array == "last"] == elements[::-1]
    content = path.read_bytes()
    assert all(json.loads(content[e.offset : e.offset + e.size]) == e.value for e in found)
    places = Places()
    for element in found:
        places.append(element)
    assert places.read(path, 7) == elements[7] and len(places) == 80


@pytest.mark.parametrize(
    ("content", "count", "reason"),
    [
        (b'[{"a": 1}, {"a": ', 1, "cut off or not JSON at byte 11"),
        (b'[{"a": 1}', 1, "is not JSON at byte 9"),
        (b'[{"a": 1} {"a": 2}]', 1, "is not JSON at byte 11"),
        (b'{"x": [1, 2], 3: 4}', 2, "a key that is no text"),
        (b'{"x" [1]}', 0, "is not JSON"),
        (b"[1, " + b"[" * 200000, 1, "cut off or not JSON at byte 4"),
        (b"", 0, "neither a JSON array nor an object"),
        (b'"text"', 0, "neither a JSON array nor an object"),
        (b"[]", 0, None),
        (b"{}", 0, None),
        (b"\xef\xbb\xbf[1]", 1, None),
        (b"[" + b"9" * 5000 + b", 2]", 2, None),
    ],
)
def test_damage_ends_the_file_and_nothing_before(write, content, count, reason):
    values, said = until_damage(write(content))
    assert len(values) == count
    assert said is None if reason is None else reason in said


def test_byte_that_is_not_utf8_breaks_its_own_element(write):
    path = write(b'[{"a": "x"}, {"a": "\xff\xfe"}, {"a": "y"}]')
    places = Places()
    for element in json_elements(path):
        places.append(element)
    assert places.read(path, 0) == {"a": "x"} and places.read(path, 2) == {"a": "y"}
    with pytest.raises(ValueError, match="is not JSON"):
        places.read(path, 1)


def test_value_longer_than_the_window_ends_the_file(write, monkeypatch):
    monkeypatch.setattr(module, "LINE_BYTES", 100)
    monkeypatch.setattr(module, "_CHUNK", 200)
    values, said = until_damage(write(json.dumps([1, "x" * 5000, 2])))
    assert values == [1] and "over 100 bytes" in said


def test_value_that_is_nested_too_deep_breaks_its_own_element(write):
    """Python's limit of a thousand calls would else end whoever shows or writes it."""
    path = write("[1, " + "[" * 900 + "]" * 900 + ", " + "[" * 64 + "]" * 64 + ", 4]")
    values, said = until_damage(path)
    assert values[:2] == [1, None] and values[2] is not None and values[3] == 4
    assert said is None
    (member,) = json_members(write('{"a": ' + "[" * 900 + "]" * 900 + "}"))
    assert member == ("a", None)


def test_lines_are_records_too(write):
    path = write('{"a": 1}\n\n[2]\n{"a": 3}\n', "file.jsonl")
    assert [element.value for element in json_records(path)] == [{"a": 1}, None, {"a": 3}]
