"""Rows on disk: a torn line is cut off, other origins and damage are refused in one line."""

import pytest

from unified_rl.core.errors import ConfigError
from unified_rl.evaluation.kept_rows import KeptRows


def opened(path, origin=0):
    return KeptRows(path, {"seed": origin}, ["id"], "paths.output")


def test_rows_come_back_and_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "rows.jsonl"
    opened(path).append([{"id": "é"}, {"id": "\ud800"}])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "thi')
    assert opened(path).found == [{"id": "é"}, {"id": "\ud800"}]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 100_000 + b"\n", "is damaged"),
        (b"\xff\n", "is damaged"),
        (b'{"no": 1}\n', "of other weights, questions or settings; name another folder by paths"),
        (b"[]\n", "of other weights"),
    ],
)
def test_another_file_is_refused(tmp_path, content, says):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        opened(path)


def test_other_origins_and_lines_without_their_keys_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    opened(path)
    with pytest.raises(ConfigError, match="of other weights"):
        opened(path, 1)
    with path.open("ab") as file:
        file.write(b'{"name": 1}\n')
    with pytest.raises(ConfigError, match=r"is damaged \(a line lacks id\); remove it"):
        opened(path)
