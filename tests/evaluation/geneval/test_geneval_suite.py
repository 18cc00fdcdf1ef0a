"""GenEval end to end: pictures in its layout, verdicts, summary; stopped and gone on."""

import json

import pytest

from tests.evaluation.drawers import SIDE, Drawer, files, lines
from tests.toys import build
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.evaluation.geneval.metadata import TAGS
from unified_rl.evaluation.geneval.scoring import Verdict
from unified_rl.evaluation.geneval.suite import GenEvalSuite


def row(tag, prompt):
    return {"tag": tag, "include": [{"class": "dog", "count": 1}], "prompt": prompt}


ROWS = [row("single_object", "a dog"), row("single_object", "a cat"), row("colors", "a red dog")]


class Table:
    """Says what is written in a table of pictures; all others are wrong."""

    def __init__(self, right=(), differences=()):
        self.right, self.differences = set(right), list(differences)

    def __call__(self, name, pixels, request):
        assert pixels.shape == (SIDE, SIDE, 3)
        return Verdict(True, "") if name in self.right else Verdict(False, "expected dog>=1")

    def describe(self):
        return {"scorer": "table", "differences": self.differences}


def suite(tmp_path, scorer=None, rows=ROWS, name="pictures", **settings):
    metadata = lines(tmp_path / "evaluation_metadata.jsonl", rows)
    settings = {"images_per_prompt": 2, "batch_size": 4, **settings}
    return GenEvalSuite(metadata, str(tmp_path / name), scorer, **settings)


def test_the_summary_by_hand(tmp_path):
    """Single: pictures 0 and 1 right, 2 and 3 wrong; colors: 4 right, 5 wrong."""
    right = ["00000/samples/00000.png", "00000/samples/00001.png", "00002/samples/00000.png"]
    evaluation = suite(tmp_path, Table(right)).run(Drawer())
    values = evaluation.values()
    assert values["geneval/single_object"] == 0.5
    assert values["geneval/colors"] == 0.5
    assert values["geneval"] == 0.5
    assert values["images_correct"] == 0.5
    assert values["prompts_correct"] == pytest.approx(2 / 3)
    assert evaluation.metrics["images_correct"].n == 6


def test_overall_is_the_mean_of_tasks_not_of_pictures(tmp_path):
    right = [f"{p:05}/samples/{k:05}.png" for p in (0, 1) for k in (0, 1)]
    values = suite(tmp_path, Table(right)).run(Drawer()).values()
    assert values["geneval"] == 0.5  # (1 + 0) / 2
    assert values["images_correct"] == pytest.approx(4 / 6)


def test_pictures_lie_as_genevals_own_tool_reads_them(tmp_path):
    drawer = Drawer()
    suite(tmp_path, Table()).run(drawer)
    assert drawer.prompts == ["a dog", "a dog", "a cat", "a cat", "a red dog", "a red dog"]
    found = files(tmp_path / "pictures")
    assert set(found) == {
        "protocol.json",
        "verdicts.jsonl",
        *(f"0000{p}/metadata.jsonl" for p in range(3)),
        *(f"0000{p}/samples/0000{k}.png" for p in range(3) for k in range(2)),
    }
    assert json.loads(found["00001/metadata.jsonl"]) == ROWS[1]
    verdict = json.loads(found["verdicts.jsonl"].splitlines()[2])
    assert verdict["filename"] == "00001/samples/00000.png"
    assert (verdict["correct"], verdict["tag"]) == (False, "single_object")
    assert json.loads(verdict["metadata"]) == ROWS[1]


def test_a_stopped_run_goes_on_to_the_same_pictures(tmp_path):
    suite(tmp_path, Table()).run(Drawer())
    whole = files(tmp_path / "pictures")
    for name in ("00001/samples/00001.png", "00002/samples/00000.png"):
        (tmp_path / "pictures" / name).unlink()
    drawer = Drawer()
    suite(tmp_path, Table()).run(drawer)
    assert files(tmp_path / "pictures") == whole
    assert len(drawer.prompts) == 6  # both batches had one missing
    again = Drawer()
    suite(tmp_path, Table()).run(again)
    assert again.prompts == []


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"behaviour": Behaviour(guidance_scale=5.0)},
        {"batch_size": 3},
        {"images_per_prompt": 1},
        {"rows": ROWS[:2]},
    ],
)
def test_pictures_drawn_otherwise_are_not_mixed(tmp_path, change):
    suite(tmp_path, Table()).run(Drawer())
    with pytest.raises(ConfigError, match="drawn with another"):
        suite(tmp_path, Table(), **change).run(Drawer())


def test_pictures_of_another_policy_are_not_mixed(tmp_path):
    suite(tmp_path, Table()).run(Drawer())
    with pytest.raises(ConfigError, match="another policy"):
        suite(tmp_path, Table()).run(Drawer(weight=2.0))


def test_without_a_scorer_it_only_draws(tmp_path):
    evaluation = suite(tmp_path).run(Drawer())
    assert evaluation.metrics == {}
    assert "pictures only" in evaluation.labels["geneval"]
    assert (tmp_path / "pictures" / "00002" / "samples" / "00001.png").is_file()


def test_what_differs_from_the_benchmark_is_said(tmp_path):
    label = suite(tmp_path, Table(differences=["a detector of clay"])).run(Drawer()).labels
    assert label["geneval"] == (
        "not comparable with published numbers: 3 prompts, published 553; 2 pictures of a prompt, "
        "published 4; a detector of clay; no prompts of two_object, counting, position, color_attr"
    )


def test_the_whole_benchmark_is_by_the_protocol(tmp_path):
    rows = [row(TAGS[i % 6], f"p{i}") for i in range(553)]
    evaluation = suite(tmp_path, Table(), rows, images_per_prompt=4, batch_size=553).run(Drawer())
    assert evaluation.labels["geneval"] == "by the published protocol"
    assert evaluation.metrics["geneval"].n == 2212


def test_a_real_policy_draws_and_the_protocol_is_written(tmp_path):
    metadata = lines(tmp_path / "m.jsonl", [row("single_object", "a red circle")])

    class AnySize(Table):
        def __call__(self, name, pixels, request):
            assert pixels.ndim == 3
            return Verdict(True, "")

    behaviour = Behaviour(guidance_scale=2.0)
    evaluation = GenEvalSuite(
        metadata, str(tmp_path / "p"), AnySize(), images_per_prompt=2, behaviour=behaviour
    ).run(build("micro_janus"))
    assert evaluation.values()["geneval"] == 1
    evaluation.write(tmp_path / "out", {})
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["settings"]["drawing"]["behaviour"]["guidance_scale"] == 2.0
    assert written["settings"]["scorer"] == {"scorer": "table"}
    assert evaluation.gallery[0].images[0].dtype == "uint8"


@pytest.mark.parametrize(
    "setting", [{"images_per_prompt": 0}, {"prompt_limit": 0}, {"batch_size": 0}]
)
def test_numbers_below_one_are_refused(tmp_path, setting):
    with pytest.raises(ConfigError, match="at least"):
        suite(tmp_path, **setting)
