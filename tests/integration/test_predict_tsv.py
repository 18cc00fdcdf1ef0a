"""Predictions for VLMEvalKit, from the command line and through its wrapper."""

import base64
import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from unified_rl import answer_messages, predict_tsv
from unified_rl.core.sample import Image
from unified_rl.data.benchmark_tsv import BenchmarkTsv
from unified_rl.data.microworld import question_sample
from unified_rl.microworld.facts import compose
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.questions import ask
from unified_rl.plugins.vlmeval import FAILED, UnifiedModel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A TSV of six questions, their images as files, and the right answers."""
    monkeypatch.setenv("UNIFIED_RL_ASSETS", str(ROOT / "assets"))
    rng, rows, gold = np.random.default_rng(0), [], []
    for number, category in enumerate(CATEGORIES):
        prompt = prompts(category, "test")[0]
        sample = question_sample(ask(category, compose(prompt.facts, rng), rng))
        (shown,) = (part for part in sample.prompt if isinstance(part, Image))
        file = tmp_path / f"{number}.png"
        PillowImage.fromarray(shown.pixels).save(file)
        encoded = base64.b64encode(file.read_bytes()).decode()
        gold.append(sample.target[0].text)
        rows.append([str(number), encoded, sample.prompt_text, gold[-1]])
    with (tmp_path / "SHAPES.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer"])
        writer.writerows(rows)
    return rows, gold


def predictions(folder):
    text = (folder / "unified_rl_SHAPES.tsv").read_text()
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))


def test_predictions_are_written_where_vlmevalkit_finds_them(run_command, tmp_path, asked):
    rows, gold = asked
    with (tmp_path / "SHAPES.tsv").open("a", newline="") as file:
        csv.writer(file, delimiter="\t").writerow(["bad", "!" * 99, "q", "a"])
    code, out, err = run_command("predict_tsv", "tsv=SHAPES.tsv", "batch_size=4")
    assert code == 0, err
    folder = tmp_path / "outputs" / "vlmeval" / "unified_rl" / "T20260101-000000"
    found = predictions(folder)
    assert list(found[0]) == ["index", "question", "answer", "prediction"]
    assert [row["index"] for row in found] == [*map(str, range(6)), "bad"]
    right = [row["prediction"] == answer for row, answer in zip(found, gold, strict=False)]
    assert sum(right) >= 3
    assert found[-1]["prediction"] == ""
    card = json.loads((folder / "provenance_SHAPES.json").read_text())["benchmark"]
    assert "not base64" in card["unanswered"]["bad"]
    assert "1 rows could not be asked" in out

    # a killed run: the last answer is torn
    progress = folder / "progress_SHAPES.jsonl"
    kept = progress.read_bytes()
    progress.write_bytes(kept[:-7])
    assert run_command("predict_tsv", "tsv=SHAPES.tsv", "batch_size=4")[0] == 0
    assert progress.read_bytes() == kept
    assert predictions(folder) == found
    code, _, err = run_command("predict_tsv", "tsv=SHAPES.tsv", "token_limit=1")
    assert code == 2 and "answers of other weights, questions or settings" in err


def test_a_carriage_return_in_an_answer_ends_no_line(tmp_path):
    """As pandas and the csv module read: 3 lines, whatever stands in a cell."""
    (tmp_path / "a.tsv").write_text('index\tquestion\n1\t"one\rtwo"\n2\tred\n', newline="")
    kept = predict_tsv._Kept(tmp_path / "kept.jsonl", {})
    kept.add(["1", "2"], ["=1+1\rsecond", 'quo"te\tand tab'])
    assert predict_tsv._write(BenchmarkTsv(tmp_path / "a.tsv"), kept, tmp_path / "out.tsv") == 2
    with (tmp_path / "out.tsv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows == [
        ["index", "question", "prediction"],
        ["1", "one\rtwo", "=1+1\rsecond"],
        ["2", "red", 'quo"te\tand tab'],
    ]


def test_a_missing_tsv_is_one_line(run_command):
    code, _, err = run_command("predict_tsv", "tsv=none.tsv")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    code, _, err = run_command("predict_tsv")
    assert (code, len(err.strip().splitlines())) == (2, 1)


def test_the_wrapper_asks_a_process_of_ours(run_command, tmp_path, asked, capfd):
    rows, _ = asked
    assert run_command("predict_tsv", "tsv=SHAPES.tsv", "batch_size=1")[0] == 0
    folder = tmp_path / "outputs" / "vlmeval" / "unified_rl" / "T20260101-000000"
    own = [row["prediction"] for row in predictions(folder)]
    model = UnifiedModel(sys.executable, str(ROOT), ["model=micro_janus", "device=cpu"])
    try:
        messages = [
            [{"type": "image", "value": str(tmp_path / f"{n}.png")}, {"type": "text", "value": q}]
            for n, (_, _, q, _) in enumerate(rows)
        ]
        assert [model.generate_inner(message) for message in messages] == own
        for kind, value in (("image", "none.png"), ("video", "none.mp4"), ("text", "red " * 900)):
            assert model.generate_inner([{"type": kind, "value": value}]) == FAILED
        said = capfd.readouterr().err
        for reason in ("does not exist", "parts of kind", "does not fit the context"):
            assert reason in said
        assert model.generate_inner(messages[0]) == own[0]  # it goes on
    finally:
        model.close()


def test_a_process_that_cannot_start_is_said(tmp_path):
    model = UnifiedModel(sys.executable, str(ROOT), ["model=no_such_model"])
    try:
        with pytest.raises(RuntimeError, match="has ended"):
            model.generate_inner([{"type": "text", "value": "hello"}])
    finally:
        model.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not a question"),
        (b"[" * 100_000, "not a question"),
        (b'{"message": 3}', "not a question"),
        (b'{"message": [{"type": "text"}]}', "not a question"),
        (b'{"message": [], "token_limit": 0}', "token_limit=0"),
        (b'{"message": [], "token_limit": "many"}', "not a question"),
        (b'{"message": [], "token_limit": 1e999}', "not a question"),
        (b'{"message": [{"type": "text", "value": "\\ud800"}]}', "not a question"),
        (b" " * (4 * 2**20 + 1), "over 4194304 bytes"),
    ],
)
def test_lines_that_are_no_question_get_an_error(line, says):
    assert says in answer_messages.reply(None, line)["error"]
