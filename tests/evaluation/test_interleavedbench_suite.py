"""InterleavedBench on hand-made rows, a policy that tells the same story, and judges by rule."""

import json

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.evaluation.telling import Grading, Telling, answer_of, colour, score, story
from unified_rl.core.errors import RewardError
from unified_rl.core.sample import Completion, Image, Text
from unified_rl.evaluation import interleavedbench as bench
from unified_rl.evaluation.interleavedbench_suite import InterleavedBenchSuite


def row(row_id, task, asked, images=(), told="<image> done"):
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": told}]
    return {"id": row_id, "task_name": task, "image": list(images), "conversations": turns}


ROWS = [
    row("a", "storytelling_generation", "before <image> after", ["i/0.png", "i/1.png"]),
    row("b", "report_generation", "write a report"),
    row("c", "image_editing", "make <image> green", ["i/0.png", "i/1.png"]),
]
MARKS = {
    "text_quality": 5,
    "perceptual_quality": 4,
    "image_coherence": 3,
    "text_image_coherence": 2,
    "helpfulness": 1,
}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "i").mkdir(parents=True)
    for number in range(2):
        shade = (10 + number, 20, 30)
        PillowImage.new("RGB", (40, 30), shade).save(folder / "i" / f"{number}.png")

    def write(rows=ROWS):
        (folder / "interleaved_bench.json").write_text(json.dumps(rows))
        return str(folder / "interleaved_bench.json")

    return write


def aspect_of(question):
    return next(name for name, words in bench.ASPECTS.items() if words in question.instruction)


def by_rule(question):
    """Each aspect's own mark, none for the bad answers of the sanity set."""
    bad = [case.bad for case in bench.sanity_set()]
    return score(0) if any(same(question, other) for other in bad) else score(marks(question))


def marks(question):
    return MARKS[aspect_of(question)]


def same(one, other):
    if one.instruction != other.instruction or len(one.parts) != len(other.parts):
        return False
    pairs = zip(one.parts, other.parts, strict=True)
    return all(
        type(a) is type(b)
        and (a.text == b.text if isinstance(a, Text) else np.array_equal(a.pixels, b.pixels))
        for a, b in pairs
    )


def suite(data, tmp_path, **settings):
    rows = settings.pop("rows", ROWS)
    return InterleavedBenchSuite(data(rows), str(tmp_path / "out"), batch_size=2, **settings)


def test_aspects_and_their_mean(data, tmp_path):
    evaluation = suite(data, tmp_path, judge=Grading(by_rule)).run(Telling(story))
    values = evaluation.values()
    for aspect, mark in MARKS.items():
        assert values[f"interleavedbench/{aspect}"] == pytest.approx(mark)
    assert values["interleavedbench"] == pytest.approx(3)  # (5 + 4 + 3 + 2 + 1) / 5
    assert values["interleavedbench/task/report_generation"] == pytest.approx(3)
    # without words: (4 + 3 + 1) / 3
    assert values["interleavedbench/task/image_editing"] == pytest.approx(8 / 3)
    assert evaluation.metrics["interleavedbench/text_quality"].n == 2  # not of the editing
    assert evaluation.metrics["interleavedbench/helpfulness"].n == 3
    assert values["interleavedbench_lower_bound"] == pytest.approx(3)
    assert evaluation.settings["picture_tasks"] == ["image_editing"]
    assert "not comparable" in evaluation.labels["interleavedbench"]
    json.dumps(evaluation.to_json(), allow_nan=False)


def test_what_is_missing_scores_0_without_asking(data, tmp_path):
    def words_only(sample, generator):
        return Completion((Text("only words"),), True)

    judge = Grading(by_rule)
    values = suite(data, tmp_path, judge=judge).run(Telling(words_only)).values()
    assert values["interleavedbench/text_quality"] == pytest.approx(5)
    for aspect in bench.PICTURE_ASPECTS:
        assert values[f"interleavedbench/{aspect}"] == 0
    assert values["interleavedbench"] == pytest.approx((5 + 1) / 5)
    assert values["unscored"] == values["with_image"] == 0
    asked = [q for q in judge.asked if answer_of(q) == ["only words"]]
    assert sorted(map(aspect_of, asked)) == ["helpfulness"] * 3 + ["text_quality"] * 2

    def silent(sample, generator):
        return Completion((Text(""),), True)

    nothing = suite(data, tmp_path / "other", judge=judge).run(Telling(silent)).values()
    assert nothing["interleavedbench"] == nothing["interleavedbench/helpfulness"] == 0


def test_unreadable_scores_are_bounded_from_below(data, tmp_path):
    def reply(question):
        unreadable = aspect_of(question) == "helpfulness" and "write a report" in texts(question)
        return "sorry" if unreadable else by_rule(question)

    values = suite(data, tmp_path, judge=Grading(reply)).run(Telling(story)).values()
    assert values["interleavedbench/helpfulness"] == pytest.approx(1)
    # helpfulness 1, 0, 1 of three; the others as they are
    assert values["interleavedbench_lower_bound"] == pytest.approx((5 + 4 + 3 + 2 + 2 / 3) / 5)
    assert values["unscored"] == pytest.approx(1 / 13)  # 5 + 5 + 3 aspects


def texts(question):
    return " ".join(part.text for part in question.parts if isinstance(part, Text))


def test_context_images_are_shown_and_the_gold_ones_are_not(data, tmp_path):
    policy = Telling(story)
    suite(data, tmp_path).run(policy)
    first = policy.shown[0]
    kinds = [part.text if isinstance(part, Text) else "image" for part in first.prompt]
    assert kinds == ["before", "image", "after"]
    shades = [part.pixels.max() for part in first.prompt if isinstance(part, Image)]
    assert len(shades) == 1


def test_output_has_the_layout_of_the_benchmark(data, tmp_path):
    suite(data, tmp_path).run(Telling(story))
    folder = tmp_path / "out" / "interleavedbench"
    rows = json.loads((folder / "output.json").read_text())
    assert [r["id"] for r in rows] == ["a", "b", "c"]
    assert rows[0]["conversations"][0]["value"] == "before\n<image>\nafter"
    told = rows[0]["conversations"][1]["value"]
    assert told == "first it is red\n<image>\nthen it is blue\n<image>"
    assert told.count("<image>") == len(rows[0]["image"])
    assert all((folder / name).is_file() for name in rows[0]["image"])


def test_every_aspect_has_a_sanity_case_that_must_be_told(data, tmp_path):
    assert [case.name for case in bench.sanity_set()][:5] == list(bench.ASPECTS)
    for blind in bench.ASPECTS:

        def reply(question, blind=blind):
            return score(3) if aspect_of(question) == blind else by_rule(question)

        policy = Telling(story)
        with pytest.raises(RewardError, match=blind):
            suite(data, tmp_path / blind, judge=Grading(reply)).run(policy)
        assert policy.asked == []


def test_a_judge_is_shown_a_bounded_number_of_pictures():
    many = ["x", *[colour(3)] * 20]
    question = bench.judge_question("helpfulness", many, many)
    assert sum(isinstance(part, Image) for part in question.parts) == 2 * bench.MOST_SHOWN


BROKEN = {
    "has no task_name": {**ROWS[0], "task_name": None},
    "names 0": row("x", "t", "see <image>"),
    "list of from and value": {**ROWS[0], "id": "x", "conversations": [{"from": "human"}]},
    "images that are no list": {**ROWS[0], "id": "x", "image": 3},
    "inside image_root": row("x", "t", "see <image>", ["/etc/passwd"]),
    "does not exist": row("x", "t", "see <image>", ["i/9.png"]),
    "that is no text": {**ROWS[0], "id": [1]},
    "without words": row("x", "t", "<image>", ["i/0.png"]),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_broken_rows_are_set_aside(data, tmp_path, reason):
    suite(data, tmp_path, rows=[*ROWS, BROKEN[reason]]).run(Telling(story))
    (line,) = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert reason in json.loads(line)["reason"]


def test_rows_without_an_id_are_named_by_task_and_place(data, tmp_path):
    bare = {key: value for key, value in ROWS[1].items() if key != "id"}
    policy = Telling(story)
    suite(data, tmp_path, rows=[bare]).run(policy)
    assert policy.asked == [["report_generation/1"]]
