"""CLIP score over benchmark prompts."""

import pytest

from tests.evaluation.drawers import Drawer, lines
from tests.evaluation.drawings.test_question_graphs import table
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.evaluation.drawings.clip_suite import ClipScoreSuite, metrics
from unified_rl.rewards.clip_score import ClipScoreReward
from unified_rl.rewards.specimens import clip_folder

ROW = {"tag": "colors", "include": [{"class": "dog", "count": 1}], "prompt": "a dog"}


class Cosines:
    scale = 1

    def __init__(self, value):
        self.value = value

    def judge(self, samples, pictures):
        return [self.value(sample.prompt_text) for sample in samples]


def files(tmp_path):
    return {
        "geneval": lines(tmp_path / "m.jsonl", [ROW, {**ROW, "prompt": "a cat"}]),
        "dsg": str(table(tmp_path, [("a", 1, "0")])),
    }


def test_every_prompt_is_drawn_before_any_is_drawn_again(tmp_path):
    scorer = Cosines(lambda prompt: {"a dog": 0.5, "a cat": -0.1, "prompt a": 0.2}[prompt])
    drawer = Drawer()
    pictures = str(tmp_path / "p")
    made = ClipScoreSuite(pictures, **files(tmp_path), scorer=scorer, picture_count=6)
    evaluation = made.run(drawer)
    assert (
        sorted(drawer.prompts[:3]) == sorted(drawer.prompts[3:]) == ["a cat", "a dog", "prompt a"]
    )
    assert evaluation.values()["clip_score"] == pytest.approx(0.2)  # (.5 - .1 + .2) / 3
    found = evaluation.metrics["clip_score"]
    assert -0.1 <= found.low < found.value < found.high <= 0.5
    assert found.n == 6
    assert evaluation.labels["clip_score"].startswith("not comparable")


def test_a_real_clip(tmp_path):
    scorer = ClipScoreReward(str(clip_folder(tmp_path / "clip")))
    made = ClipScoreSuite(
        str(tmp_path / "p"), **files(tmp_path), scorer=scorer, clip="tiny", picture_count=3
    )
    value = made.run(Drawer()).values()["clip_score"]
    assert -1 <= value <= 1
    assert made.settings["clip"] == "tiny"


def test_what_is_no_cosine_is_refused(tmp_path):
    with pytest.raises(DataError, match="no cosines"):
        metrics([33.1], ["a"])
    scaled = Cosines(None)
    scaled.scale = 2
    with pytest.raises(ConfigError, match="scale=2 must be 1"):
        ClipScoreSuite(str(tmp_path), **files(tmp_path), scorer=scaled)
    with pytest.raises(ConfigError, match="both null"):
        ClipScoreSuite(str(tmp_path))
    with pytest.raises(ConfigError, match="picture_count=0"):
        ClipScoreSuite(str(tmp_path), **files(tmp_path), picture_count=0)
