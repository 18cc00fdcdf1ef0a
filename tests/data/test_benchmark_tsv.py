"""TSVs of benchmarks: prompts, shared images, and everything that can be wrong with a row."""

import base64
import csv

import pytest

from unified_rl.core.errors import DataError
from unified_rl.data import benchmark_tsv
from unified_rl.data.benchmark_tsv import BenchmarkTsv
from unified_rl.data.jsonl import BrokenRowError

IMAGE = base64.b64encode(b"x" * 60).decode()  # 80 letters, so no reference
OTHER = base64.b64encode(b"y" * 60).decode()


def opened(folder, rows, columns=("index", "image", "question", "A", "B", "hint")):
    with (folder / "bench.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return BenchmarkTsv(folder / "bench.tsv")


def test_prompts_of_choices_and_of_plain_questions(tmp_path):
    bench = opened(
        tmp_path,
        [
            ["1", IMAGE, "Which?", "red", "blue", "look"],
            ["2", IMAGE, "Which?", "red", "", ""],
            ["3", IMAGE, 'Say "it"\nnow', "", "", "look"],
        ],
    )
    choice, short, plain = bench.rows()
    assert choice.prompt() == (
        "Hint: look\nQuestion: Which?\nOptions:\nA. red\nB. blue\n"
        "Please select the correct answer from the options above. \n"
    )
    assert "Hint" not in short.prompt() and "B." not in short.prompt()
    assert plain.prompt("!") == 'Say "it"\nnow!'
    assert bench.broken == []


def test_images_alone_in_lists_and_by_reference(tmp_path):
    bench = opened(
        tmp_path,
        [
            ["1", "2", "early reference", "", "", ""],
            ["2", IMAGE, "own", "", "", ""],
            ["3", f"['{IMAGE}', '{OTHER}']", "two", "", "", ""],
            ["4", f'["{OTHER}"]', "one in a list", "", "", ""],
            ["5", "", "none", "", "", ""],
        ],
    )
    x, y = b"x" * 60, b"y" * 60
    assert [bench.images(row) for row in bench.rows()] == [[x], [x], [x, y], [y], []]


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("9", "row '9', which there is not"),
        ("1", "row '1', which there is not"),  # of itself
        ("!" * 70, "not base64"),
        ("é" * 70, "not base64"),
        ("[" + ",".join([IMAGE] * 33) + "]", "33 images"),
    ],
)
def test_images_that_are_none(tmp_path, cell, says):
    bench = opened(tmp_path, [["1", cell, "q", "", "", ""]])
    (row,) = bench.rows()
    with pytest.raises(BrokenRowError, match=says):
        bench.images(row)


def test_broken_rows_are_told_and_the_others_read(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_tsv, "FIELD_LENGTH", 5000)
    monkeypatch.setattr(benchmark_tsv, "LINE_BYTES", 9000)
    rows = [
        ["1", IMAGE, "good", "", "", ""],
        ["1", IMAGE, "again", "", "", ""],
        ["", IMAGE, "q", "", "", ""],
        ["4", IMAGE, " ", "", "", ""],
        ["5", IMAGE, "too few"],
        ["6", "z" * 6000, "long cell", "", "", ""],
        ["7", "z" * 4000, "z" * 4000, "z" * 4000, "", ""],  # a long line, cut
        ["8", IMAGE, "last", "", "", ""],
    ]
    bench = opened(tmp_path, rows)
    assert [row.index for row in bench.rows()] == ["1", "8"]
    assert [place for place, _ in bench.broken] == [2, 3, 4, 5, 6, 7]
    reasons = " ".join(reason for _, reason in bench.broken)
    for part in ("there twice", "no index", "no question", "3 cells under 6", "field larger"):
        assert part in reasons


def test_bytes_that_are_not_utf8_do_not_stop_it(tmp_path):
    opened(tmp_path, [])
    with (tmp_path / "bench.tsv").open("ab") as file:
        file.write(b"1\t\t\xff\xfe what\t\t\t\n")
    (row,) = BenchmarkTsv(tmp_path / "bench.tsv").rows()
    assert row.prompt() == "\ufffd\ufffd what"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no column 'index'"),
        (b"index\tanswer\n", "no column 'question'"),
        (b"\xff\xff\n", "no readable header"),
    ],
)
def test_files_that_are_no_benchmark_are_refused(tmp_path, content, says):
    (tmp_path / "bench.tsv").write_bytes(content)
    with pytest.raises(DataError, match=says):
        BenchmarkTsv(tmp_path / "bench.tsv")
    with pytest.raises(DataError, match="there is no file"):
        BenchmarkTsv(tmp_path / "other.tsv")
