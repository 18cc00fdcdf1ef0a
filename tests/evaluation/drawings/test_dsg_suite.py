"""DSG-1K: numbers by hand."""

import pytest

from tests.evaluation.drawers import Drawer
from tests.evaluation.drawings.answering import TableAnswerer
from tests.evaluation.drawings.test_question_graphs import table
from tests.toys import build
from unified_rl.core.errors import ConfigError
from unified_rl.evaluation.drawings.dsg_suite import DsgSuite, source_of

ROWS = [
    ("tifa160_3", 1, "0"),
    ("tifa160_3", 2, "1"),
    ("tifa160_3", 3, "2"),
    ("vrd_7", 1, "0"),
]


def test_numbers_by_hand(tmp_path):
    answerer = TableAnswerer(lambda number, text: text != "tifa160_3, 1?")
    path = str(table(tmp_path, ROWS))
    evaluation = DsgSuite(path, str(tmp_path / "p"), answerer).run(Drawer())
    values = evaluation.values()
    # tifa: 1 no, 2 falls with it, 3 stays as 2 was answered yes: 1 / 3. vrd: 1.
    assert values["dsg"] == pytest.approx((1 / 3 + 1) / 2)
    assert values["dsg/tifa"] == pytest.approx(1 / 3)
    assert values["dsg/relation"] == 1
    assert values["dsg_without_dependency"] == pytest.approx((2 / 3 + 1) / 2)
    assert evaluation.metrics["dsg"].n == 2
    assert evaluation.labels["dsg"].startswith("not comparable with published numbers: 2 prompts")


def test_a_real_policy_draws(tmp_path):
    path = str(table(tmp_path, ROWS[:3]))
    answerer = TableAnswerer(lambda number, text: True, official=["dsg"])
    evaluation = DsgSuite(path, str(tmp_path / "p"), answerer).run(build("micro_vila_u"))
    assert evaluation.values()["dsg"] == 1
    assert evaluation.settings["differences"] == ["1 prompts, published 1060"]


def test_fewer_than_one_prompt_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="prompt_limit=-1"):
        DsgSuite(str(table(tmp_path, ROWS)), str(tmp_path / "p"), prompt_limit=-1)


@pytest.mark.parametrize(
    ("item", "want"),
    [
        ("tifa160_0", "tifa"),
        ("stanford_paragraph_4", "paragraph"),
        ("localized_narratives_95", "paragraph"),
        ("countbench_1", "count"),
        ("vrd_2", "relation"),
        ("diffusiondb_9", "real_user"),
        ("midjourney_8", "real_user"),
        ("posescript_69", "pose"),
        ("whoops_5", "defying"),
        ("drawtext_1", "text"),
        ("mine_1", "other"),
    ],
)
def test_sources(item, want):
    assert source_of(item) == want
