"""WISE: replies, formula, weights and ids by hand."""

import json

import pytest

from tests.evaluation.drawers import Drawer
from tests.evaluation.drawings.answering import TableJudge
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.evaluation.drawings.wise_prompts import CATEGORIES, WisePrompt, category_of
from unified_rl.evaluation.drawings.wise_scores import WiseScores, instructed, read_scores, wiscore
from unified_rl.evaluation.drawings.wise_suite import WEIGHTS, WiseSuite, metrics

IDS = {name: ids[0] for name, ids in CATEGORIES.items()}
REPLY = "Consistency: {}\nRealism: {}\nAesthetic Quality: {}"


def prompts(tmp_path, ids, name="wise.json"):
    path = tmp_path / name
    rows = [
        {"Prompt": f"p{i}", "Explanation": f"e{i}", "Category": "?", "prompt_id": i} for i in ids
    ]
    path.write_text(json.dumps(rows))
    return [str(path)]


def suite(tmp_path, judge, ids=(1, 401, 568, 701, 801, 901), **settings):
    return WiseSuite(prompts(tmp_path, ids), str(tmp_path / "p"), judge, **settings)


@pytest.mark.parametrize(
    ("reply", "want"),
    [
        (REPLY.format(2, 1, 0), (2, 1, 0)),
        ("**Consistency**: 2\n**Realism:** 1\n\nAesthetic quality : 0\n", (2, 1, 0)),
        ("Realism: 1\nConsistency: 2\nAesthetic Quality: 0", (2, 1, 0)),
        ("2\n1\n0", (2, 1, 0)),
        ("2\n1", None),
        ("2\n1\n3", None),
        (REPLY.format(2, 1, 3), None),
        (REPLY.format(2, 1, 10), None),
        (REPLY.format(2, 1, "2.0"), None),
        (REPLY.format(2, 1, "-1"), None),
        ("Consistency: 2\nConsistency: 2\nRealism: 1", None),
        ("Consistency: 2\nRealism: 1", None),
        ("Here are the scores:\n" + REPLY.format(2, 1, 0), None),
        (REPLY.format(2, 1, 0) + "\nConsistency: 0", None),
        (REPLY.format(2, 1, 0) + " " * 100_000, None),
        ("", None),
    ],
)
def test_replies(reply, want):
    assert read_scores(reply) == (None if want is None else WiseScores(*want))


@pytest.mark.parametrize(
    ("scores", "want"), [((2, 2, 2), 1.0), ((0, 0, 0), 0.0), ((2, 1, 0), 0.8), ((1, 0, 2), 0.45)]
)
def test_the_formula(scores, want):
    assert wiscore(WiseScores(*scores)) == pytest.approx(want)  # (.7c + .2r + .1a) / 2


def test_ids_tell_categories_and_their_weights_sum_to_one():
    edges = {1: "culture", 400: "culture", 401: "time", 567: "time", 568: "space", 700: "space"}
    edges |= {701: "biology", 800: "biology", 801: "physics", 900: "physics", 901: "chemistry"}
    assert {number: category_of(number) for number in edges} == edges
    assert category_of(1000) == "chemistry"
    assert sum(WEIGHTS.values()) == pytest.approx(1)


def test_the_overall_score_weighs_categories():
    """Culture has 1 and 0, time 1, space .35, the sciences 0: .4 / 2 + .167 + .133 * .35."""
    some = [WisePrompt(i, "", "") for i in (1, 2, 401, 568, 701, 801, 901)]
    full, half, none = WiseScores(2, 2, 2), WiseScores(1, 0, 0), WiseScores(0, 0, 0)
    found = metrics(some, [full, none, full, half, none, none, None])
    values = {name: estimate.value for name, estimate in found.items()}
    assert values["wise"] == pytest.approx(0.2 + 0.167 + 0.133 * 0.35)
    assert values["wise/culture"] == pytest.approx(0.5)
    assert values["wise/space"] == pytest.approx(0.35)
    assert values["wise_consistency"] == pytest.approx((1 + 1 + 0.5) / 7)
    assert values["judge_failures"] == pytest.approx(1 / 7)


def test_there_is_no_overall_score_without_all_categories(tmp_path):
    found = metrics([WisePrompt(1, "", "")], [WiseScores(2, 2, 2)])
    assert "wise" not in found
    made = WiseSuite(prompts(tmp_path, [1, 401]), str(tmp_path / "p"))
    said = "no overall score without space, biology, physics, chemistry"
    assert said in made.settings["differences"]
    assert found["wise/culture"].value == pytest.approx(1)


def test_end_to_end(tmp_path):
    judge = TableJudge(lambda text: REPLY.format(2, 2, 2) if 'p1"' in text else "no idea")
    evaluation = suite(tmp_path, judge).run(Drawer())
    assert evaluation.values()["wise"] == pytest.approx(0.4)
    assert evaluation.values()["judge_failures"] == pytest.approx(5 / 6)
    assert len(judge.asked) == 6 + 5 + 5  # three attempts at what got no scores
    assert {path.name for path in (tmp_path / "p").glob("*.png")} == {
        f"{number}.png" for number in IDS.values()
    }
    again = TableJudge(lambda text: REPLY.format(2, 2, 2))
    assert suite(tmp_path, again).run(Drawer()).values()["wise"] == pytest.approx(1)
    assert len(again.asked) == 5
    assert evaluation.settings["differences"] == [
        "6 prompts, published 1000",
        "the judge's instruction is not the official text",
        "the judge is table-1, not gpt-4o-2024-05-13",
    ]


def test_a_judge_that_never_answers_ends_the_run_with_zeros(tmp_path):
    values = suite(tmp_path, TableJudge(lambda text: None)).run(Drawer()).values()
    assert values["wise"] == 0
    assert values["judge_failures"] == 1


def test_an_instruction_of_ones_own(tmp_path):
    path = tmp_path / "instruction.txt"
    path.write_text("Judge {prompt} by {explanation}")
    judge = TableJudge(lambda text: "2\n2\n2")
    made = suite(tmp_path, judge, instruction=str(path), official_instruction=True)
    assert "instruction" not in str(made.settings["differences"])
    made.run(Drawer())
    assert judge.asked[0] == "Judge p1 by e1"
    path.write_text("Judge {prompt}")
    with pytest.raises(DataError, match="lacks {explanation}"):
        suite(tmp_path, judge, instruction=str(path))


def test_a_prompt_cannot_pull_in_the_explanation():
    prompt = WisePrompt(1, "{explanation} {prompt}", "e")
    assert instructed("{prompt}|{explanation}", prompt) == "{explanation} {prompt}|e"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("{}", "no list of prompts"),
        ("[]", "no files with prompts"),
        ("[1]", "entry 1 is no object"),
        ('[{"prompt_id": 1001, "Prompt": "a", "Explanation": "b"}]', "prompt_id 1001"),
        ('[{"prompt_id": true, "Prompt": "a", "Explanation": "b"}]', "prompt_id True"),
        ('[{"prompt_id": 1, "Prompt": "a"}]', "'Explanation'"),
        ('[{"prompt_id": 1, "Prompt": "a", "Explanation": "b"},' * 2, "is no JSON"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, text, said):
    path = tmp_path / "wise.json"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        WiseSuite([str(path)], str(tmp_path / "p"))


def test_an_id_stands_once(tmp_path):
    twice = prompts(tmp_path, [1, 2]) + prompts(tmp_path, [2], "more.json")
    with pytest.raises(DataError, match="prompt_id 2 a second time"):
        WiseSuite(twice, str(tmp_path / "p"))
    with pytest.raises(ConfigError, match="attempts=0"):
        WiseSuite(twice[:1], str(tmp_path / "p"), attempts=0)
    with pytest.raises(ConfigError, match="prompt_limit=0"):
        WiseSuite(twice[:1], str(tmp_path / "p"), prompt_limit=0)
