"""Answers in a file."""

import numpy as np
import pytest

from unified_rl.core.errors import DataError
from unified_rl.evaluation.kept_answers import LINE_BYTES, KeptAnswers

PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def test_answers_are_found_by_what_was_asked_of_whom(tmp_path):
    path = tmp_path / "sub" / "answers.jsonl"
    kept = KeptAnswers(path, {"model": "a"})
    key = kept.key(PIXELS, "is it red?")
    assert kept.get(key) is None
    kept.put(key, [2, 1, 0])
    again = KeptAnswers(path, {"model": "a"})
    assert again.get(again.key(PIXELS, "is it red?")) == [2, 1, 0]
    others = {
        again.key(PIXELS, "is it blue?"),
        again.key(PIXELS + 1, "is it red?"),
        again.key(PIXELS.reshape(1, 4, 3), "is it red?"),
        KeptAnswers(path, {"model": "b"}).key(PIXELS, "is it red?"),
        key,
    }
    assert len(others) == 5


def test_an_answer_too_long_for_a_line_takes_no_other_with_it(tmp_path):
    path = tmp_path / "answers.jsonl"
    kept = KeptAnswers(path, {})
    for key, answer in (("a", "yes"), ("b", "x" * LINE_BYTES), ("c", "no")):
        kept.put(key, answer)
    assert len(kept.get("b")) == LINE_BYTES
    again = KeptAnswers(path, {})
    assert [again.get(key) for key in "abc"] == ["yes", None, "no"]


def test_half_a_line_is_cut_off_and_the_next_stands_on_its_own(tmp_path):
    path = tmp_path / "answers.jsonl"
    kept = KeptAnswers(path, {})
    kept.put("a", True)
    kept.put("b", False)
    path.write_bytes(path.read_bytes()[:-5])
    again = KeptAnswers(path, {})
    assert (again.get("a"), again.get("b")) == (True, None)
    again.put("c", True)
    assert KeptAnswers(path, {}).get("c") is True


@pytest.mark.parametrize("content", ["no json\n", "[]\n", '{"key": []}\n', "\xff\n"])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="no file of answers"):
        KeptAnswers(path, {})
    assert path.read_bytes() == content.encode("latin-1")
