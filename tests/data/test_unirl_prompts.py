"""The command that writes prompts: its lines, its options, and its ends."""

import json
import subprocess
import sys

import pytest

from unified_rl.data.unirl_prompts import main
from unified_rl.prompting.categories import GENEVAL_TAGS
from unified_rl.prompting.exclusion import geneval_digests

COMMAND = [sys.executable, "-m", "unified_rl.data.unirl_prompts"]


def rows(capsys, *arguments):
    assert main(arguments) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def mistake(capsys, *arguments):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


def test_lines_are_genevals_metadata_with_a_question(capsys):
    found = rows(capsys, "--count", "60", "--seed", "3")
    assert len(found) == 60
    assert {row["tag"] for row in found} == set(GENEVAL_TAGS.values())
    for row in found:
        keys = ["tag", "include", "prompt", "question", "answer"]
        if row["tag"] == "counting":
            keys.insert(2, "exclude")
            (shown,), (refused,) = row["include"], row["exclude"]
            assert refused == {"class": shown["class"], "count": shown["count"] + 1}
        assert list(row) == keys


def test_a_line_does_not_depend_on_how_many_are_written(capsys):
    whole = rows(capsys, "--count", "9")
    assert rows(capsys, "--count", "4") == whole[:4]
    assert rows(capsys, "--start", "5", "--count", "4") == whole[5:]
    assert rows(capsys, "--count", "0") == []


def test_categories_go_by_both_names(capsys):
    ours = rows(capsys, "--category", "attribution")
    assert {row["tag"] for row in ours} == {"color_attr"}
    assert rows(capsys, "--category", "color_attr") == ours


def test_the_wording_changes_questions_alone(capsys):
    table = rows(capsys, "--category", "two")
    released = rows(capsys, "--category", "two", "--wording", "released")
    assert [row["prompt"] for row in table] == [row["prompt"] for row in released]
    assert released[0]["answer"] == f"There is {table[0]['answer'].lower()}"


def test_what_is_held_out_or_excluded_is_not_written(capsys, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "an image of one lamp"}\n')
    options = ["--held-out", "corkscrew, sock", "--exclude", str(path)]
    found = rows(capsys, "--category", "single", "--count", "2000", *options)
    names = {row["include"][0]["class"] for row in found}
    assert len(names) == 80 - 2 - 1
    assert not names & {"corkscrew", "sock", "lamp"}
    assert rows(capsys, "--category", "single", "--distinct", *options) == [
        {"tag": "single_object", "count": 77}
    ]


def test_digests_are_printed_as_the_package_carries_them(capsys, tmp_path):
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"prompt": "a photo of a bench"}\n{"prompt": "a photo of a cow"}\n')
    assert main(["--digests", str(path)]) == 0
    header, *digests = capsys.readouterr().out.splitlines()
    assert header == "# Digests of the 2 different keys of 2 prompts; see exclusion.py."
    assert digests == sorted(digests)
    assert set(digests) < geneval_digests()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--category", "color_att"], "did you mean 'color_attr'?"),
        (["--category", "atribution"], "did you mean 'attribution'?"),
        (["--wording", "relased"], "did you mean 'released'?"),
        (["--held-out", "lamp,zebar"], "held_out='zebar' is no object; did you mean 'zebra'?"),
        (["--count", "-1"], "--count -1 must be 0 or more"),
        (["--start", "-1"], "--start -1 must be 0 or more"),
        (["--exclude", "nowhere.txt"], "nowhere.txt cannot be read: No such file"),
        (["--digests", "nowhere.txt"], "nowhere.txt cannot be read: No such file"),
    ],
)
def test_mistakes_are_named_in_one_line(capsys, arguments, message):
    assert message in mistake(capsys, *arguments)


def test_a_category_that_is_empty_is_named_before_anything_is_written(capsys, tmp_path):
    found = rows(capsys, "--category", "single", "--count", "2000")
    path = tmp_path / "all.txt"
    path.write_text("\n".join(row["prompt"] for row in found))
    assert "nothing remains of category 'single'" in mistake(capsys, "--exclude", str(path))
    assert len(rows(capsys, "--exclude", str(path), "--category", "two")) == 10


@pytest.mark.parametrize("arguments", [["--count", "many"], ["--counts", "3"], ["3"]])
def test_options_that_do_not_exist_end_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_help_helps(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in ("--category C", "color_attr", "python -m unified_rl.data.unirl_prompts --count"):
        assert word in text


def test_a_closed_pipe_is_no_fault():
    command = subprocess.Popen(
        [*COMMAND, "--count", "100000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    first = command.stdout.readline()
    command.stdout.close()
    said = command.stderr.read()
    command.stderr.close()
    assert (command.wait(60), said) == (0, b"")
    assert json.loads(first)["tag"] in GENEVAL_TAGS.values()


def test_lines_are_the_same_whatever_the_hash_seed():
    outputs = {
        subprocess.run(
            [*COMMAND, "--seed", "1"],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
