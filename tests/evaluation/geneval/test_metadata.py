"""GenEval's rows: what is read and what is refused."""

import json

import pytest

from unified_rl.core.errors import DataError
from unified_rl.evaluation.geneval.metadata import CLASSES, Clause, read_metadata

GOOD = {
    "tag": "position",
    "include": [
        {"class": "sink", "count": 1},
        {"class": "tie", "count": 1, "position": ["above", 0]},
    ],
    "prompt": "a photo of a tie above a sink",
}


def read(tmp_path, *rows):
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return read_metadata(path)


def test_a_row_is_read(tmp_path):
    (request,) = read(tmp_path, GOOD)
    assert request.include == (
        Clause("sink", 1),
        Clause("tie", 1, relation="above", target=0),
    )
    assert request.exclude == ()
    assert request.row == GOOD


def test_classes_are_cocos_under_genevals_names():
    assert len(set(CLASSES)) == 80
    renamed = {64: "computer mouse", 65: "tv remote", 66: "computer keyboard"}
    assert {index: CLASSES[index] for index in renamed} == renamed
    assert (CLASSES[0], CLASSES[79]) == ("person", "toothbrush")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tag": "colours"}, "did you mean 'colors'"),
        ({"prompt": " "}, "'prompt'"),
        ({"include": []}, "neither 'include' nor 'exclude'"),
        ({"include": "dog"}, "'include' is no list"),
        ({"include": ["dog"]}, r"include\[0\] is no object"),
        ({"include": [{"class": "unicorn", "count": 1}]}, "unicorn"),
        ({"include": [{"class": "dog", "count": 0}]}, "count 0"),
        ({"include": [{"class": "dog", "count": True}]}, "count True"),
        ({"include": [{"class": "dog", "count": 1, "color": "teal"}]}, "teal"),
        ({"include": [{"class": "dog", "count": 1, "position": ["above", 0]}]}, "no earlier"),
        ({"include": [{"class": "dog", "count": 1, "position": ["behind", 0]}]}, "position"),
    ],
)
def test_a_row_that_cannot_be_judged_is_refused(tmp_path, change, said):
    with pytest.raises(DataError, match=f"line 2.*{said}"):
        read(tmp_path, GOOD, {**GOOD, **change})


def test_a_file_without_prompts_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no prompts"):
        read(tmp_path, "")
    with pytest.raises(DataError, match="line 1 is not JSON"):
        read(tmp_path, "{")
