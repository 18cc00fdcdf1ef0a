"""Benchmark files that mean harm."""

import pytest

from unified_rl.core.errors import DataError
from unified_rl.evaluation.drawings.wise_prompts import read_wise
from unified_rl.evaluation.question_file import read_questions

DEEP = "[" * 900 + "]" * 900


def test_a_row_that_is_nested_too_deep_is_set_aside(tmp_path):
    path = tmp_path / "questions.json"
    path.write_text('[{"id": ' + DEEP + "}]")
    with pytest.raises(DataError, match="row 1: is nested deeper than 64 lists and objects"):
        read_questions(path, lambda row, place: pytest.fail("is not parsed"))


def test_a_deep_prompt_of_wise_is_refused(tmp_path):
    path = tmp_path / "wise.json"
    path.write_text('[{"prompt_id": ' + DEEP + "}]")
    with pytest.raises(DataError, match="no list of prompts"):
        read_wise([str(path)])
