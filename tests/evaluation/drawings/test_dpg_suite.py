"""DPG-Bench: numbers by hand, grids for the official tool, answers asked for once."""

import numpy as np
import pytest

from tests.evaluation.drawers import SIDE, Drawer
from tests.evaluation.drawings.answering import TableAnswerer
from tests.evaluation.drawings.test_question_graphs import table
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.evaluation.drawings.dpg_suite import DpgSuite, grid, read_prompts
from unified_rl.evaluation.drawings.picture_folder import read_picture

ROWS = [
    ("skipped", 1, "0"),
    ("dog", 1, "0", "entity - whole (dog)"),
    ("dog", 2, "1", "attribute - color (dog, red)"),
    ("cat", 1, "0", "entity - whole (cat)"),
]


def suite(tmp_path, answerer=None, rows=ROWS, prompts=("cat", "dog"), **settings):
    folder = tmp_path / "prompts"
    folder.mkdir(exist_ok=True)
    for name in prompts:
        (folder / f"{name}.txt").write_text(f"a {name}\n")
    settings = {"pictures_per_prompt": 2, "batch_size": 4, **settings}
    path = str(table(tmp_path, rows))
    return DpgSuite(str(folder), path, str(tmp_path / "pictures"), answerer, **settings)


def test_numbers_by_hand(tmp_path):
    """In order: cat 1 of pictures 0 and 1; dog 1, 2 of picture 0; dog 1, 2 of picture 1."""
    answers = [True, False, True, False, False, True]
    answerer = TableAnswerer(lambda number, text: answers[number])
    values = suite(tmp_path, answerer).run(Drawer()).values()
    # cat: (1 + 0) / 2. dog: 1 of 2 of picture 0; of picture 1 the child falls with its parent, 0.
    assert values["dpg"] == pytest.approx(100 * (0.5 + 0.25) / 2)
    # last pictures, not zeroed: cat no, dog no; the colour yes
    assert values["dpg_last_picture/entity"] == pytest.approx(0)
    assert values["dpg_last_picture/entity - whole"] == pytest.approx(0)
    assert values["dpg_last_picture/attribute"] == pytest.approx(100)
    # all pictures, not zeroed: cat yes no, dog yes no; the colour no yes
    assert values["dpg_category/entity"] == pytest.approx(50)
    assert values["dpg_category/attribute - color"] == pytest.approx(50)


def test_children_of_a_no_count_in_categories_but_not_in_the_score(tmp_path):
    answerer = TableAnswerer(lambda number, text: text == "dog, 2?")
    values = suite(tmp_path, answerer).run(Drawer()).values()
    assert values["dpg"] == 0
    assert values["dpg_category/attribute"] == pytest.approx(100)


def test_no_answer_counts_as_no_and_is_asked_again(tmp_path):
    evaluation = suite(tmp_path, TableAnswerer(lambda n, text: None)).run(Drawer())
    assert evaluation.values()["dpg"] == 0
    assert evaluation.labels["answers"].startswith("6 of 6 questions got no answer")
    answerer = TableAnswerer(lambda n, text: True)
    assert suite(tmp_path, answerer).run(Drawer()).values()["dpg"] == 100
    assert len(answerer.asked) == 6


def test_answers_are_asked_for_once(tmp_path):
    suite(tmp_path, TableAnswerer(lambda n, text: n != 2)).run(Drawer())
    path = tmp_path / "pictures" / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-7])  # a kill in the middle of the last line
    again = TableAnswerer(lambda n, text: True)
    values = suite(tmp_path, again).run(Drawer()).values()
    assert again.asked == ["dog, 2?"]
    assert values["dpg"] == pytest.approx(75)  # cat 1; dog 0 and 1
    third = TableAnswerer(lambda n, text: True)
    suite(tmp_path, third).run(Drawer())
    assert third.asked == []


def test_grids_are_as_the_official_tool_cuts_them(tmp_path):
    suite(tmp_path, pictures_per_prompt=4).run(Drawer())
    whole = read_picture(tmp_path / "pictures" / "grids" / "cat.png")
    assert whole.shape == (2 * SIDE, 2 * SIDE, 3)
    for number, (left, top) in enumerate([(0, 0), (SIDE, 0), (0, SIDE), (SIDE, SIDE)]):
        cut = whole[top : top + SIDE, left : left + SIDE]
        own = read_picture(tmp_path / "pictures" / "cat" / f"{number}.png")
        assert (cut == own).all()
    assert {path.name for path in (tmp_path / "pictures" / "grids").iterdir()} == {
        "cat.png",
        "dog.png",
    }
    one = np.ones((3, 3, 3), np.uint8)
    assert grid([one]) is one


def test_the_first_row_is_skipped_or_asked(tmp_path):
    rows = [("cat", 1, "0"), ("cat", 2, "0"), ("dog", 1, "0")]
    answerer = TableAnswerer(lambda n, text: True)
    suite(tmp_path, answerer, rows).run(Drawer())
    assert "cat, 1?" not in answerer.asked
    other = TableAnswerer(lambda n, text: True)
    asked = suite(tmp_path, other, rows, skip_first_row=False)
    assert "first question" in asked.settings["differences"][-1]
    asked.run(Drawer())
    assert other.asked == ["cat, 1?", "cat, 1?"]  # the others are known


def test_a_prompt_that_lost_a_parent_is_left_out_and_counted(tmp_path):
    """The official tool fails on it, and goes on without it."""
    rows = [("cat", 1, "0"), ("cat", 2, "1"), ("dog", 1, "0")]
    evaluation = suite(tmp_path, TableAnswerer(lambda n, text: True), rows).run(Drawer())
    assert evaluation.metrics["dpg"].n == 1
    assert evaluation.settings["prompts_left_out"] == 1
    assert evaluation.labels["left_out"].startswith("1 prompts")


def test_what_differs_is_said(tmp_path):
    differences = suite(tmp_path, TableAnswerer(None)).settings["differences"]
    assert differences == [
        "2 prompts, published 1065",
        "2 pictures of a prompt, published 4",
        "questions are answered by table-1, not by mPLUG-large",
    ]
    official = suite(tmp_path, TableAnswerer(None, ["dpg"]), pictures_per_prompt=4)
    assert official.settings["differences"] == ["2 prompts, published 1065"]


def test_without_an_answerer_it_only_draws(tmp_path):
    evaluation = suite(tmp_path).run(Drawer())
    assert evaluation.metrics == {}
    assert (tmp_path / "pictures" / "grids" / "dog.png").is_file()


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(DataError, match="no questions about"):
        suite(tmp_path, rows=[("skipped", 1, "0"), ("bird", 1, "0")])
    with pytest.raises(ConfigError, match="pictures_per_prompt=5"):
        suite(tmp_path, pictures_per_prompt=5)
    with pytest.raises(DataError, match="not a folder"):
        read_prompts(tmp_path / "none")
    with pytest.raises(ConfigError, match="prompt_limit=0"):
        suite(tmp_path, prompt_limit=0)
    (tmp_path / "prompts" / "...txt").write_text("a cat")
    with pytest.raises(DataError, match=r"the folder '\.\.'; rename it"):
        suite(tmp_path)
    (tmp_path / "prompts" / "...txt").unlink()
    (tmp_path / "prompts" / "x.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"x\.txt cannot be read"):
        suite(tmp_path)
    (tmp_path / "prompts" / "x.txt").write_text("x" * 20_000)
    with pytest.raises(DataError, match=r"x\.txt is no prompt"):
        suite(tmp_path)
