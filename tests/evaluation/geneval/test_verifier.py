"""UniRL's metric over GenEval's prompts and verdicts."""

import json

import numpy as np
import pytest
import torch

from tests.evaluation.drawers import lines
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Completion, Image, Sample, Task, Text
from unified_rl.data.self_questions import SelfQuestionSource
from unified_rl.evaluation.answer_judge import RuleJudge
from unified_rl.evaluation.geneval.detections import Found
from unified_rl.evaluation.geneval.metadata import CLASSES
from unified_rl.evaluation.geneval.scorer import DetectionScorer
from unified_rl.evaluation.geneval.verifier import (
    GenEvalQuestions,
    GenEvalVerifier,
    request_about,
)
from unified_rl.evaluation.imbalance_suite import ImbalanceSuite
from unified_rl.prompting.everyday import object_names
from unified_rl.rewards.keywords import KeywordReward

QUESTIONS = {
    "single_object": ("a photo of a bench", [{"class": "bench", "count": 1}], "bench"),
    "two_object": (
        "a photo of a dog and a cat",
        [{"class": "dog", "count": 1}, {"class": "cat", "count": 1}],
        "There is a dog and a cat",
    ),
    "counting": ("a photo of two clocks", [{"class": "clock", "count": 2}], "two clocks"),
    "colors": ("a photo of a blue dog", [{"class": "dog", "count": 1, "color": "blue"}], "blue"),
    "position": (
        "a photo of a dog left of a cat",
        [
            {"class": "cat", "count": 1},
            {"class": "dog", "count": 1, "position": ["left of", 0]},
        ],
        "The dog is left of the cat",
    ),
    "color_attr": (
        "a photo of a red dog and a blue cat",
        [
            {"class": "dog", "count": 1, "color": "red"},
            {"class": "cat", "count": 1, "color": "blue"},
        ],
        "The dog is red and the cat is blue",
    ),
}
ROWS = [
    {"tag": tag, "include": include, "prompt": prompt, "question": "what?", "answer": answer}
    for tag, (prompt, include, answer) in QUESTIONS.items()
]


def sample(tag):
    path = ROWS[list(QUESTIONS).index(tag)]
    return Sample(
        "x",
        Task.TEXT_TO_IMAGE,
        (Text(path["prompt"]),),
        facts={"category": {"counting": "counting"}.get(tag, "two"), "include": path["include"]},
    )


class Counting:
    """Finds as many clocks as the picture's first value says."""

    def detect(self, name, pixels):
        return {"clock": [Found(np.array([0.0, 0, 5, 5]), 0.95)] * int(pixels[0, 0, 0])}

    def describe(self):
        return {"detector": "counting", "official": False}


@pytest.mark.parametrize(("count", "want"), [(1, False), (2, True), (3, False)])
def test_counting_is_exact_even_where_the_facts_exclude_nothing(count, want):
    verify = GenEvalVerifier(DetectionScorer(Counting()))
    pixels = np.full((4, 4, 3), count, np.uint8)
    assert verify(sample("counting"), pixels) is want


def test_training_prompts_can_be_judged_but_for_objects_that_coco_lacks():
    source = SelfQuestionSource()
    rng = np.random.default_rng(0)
    for drawn in (source.draw(rng) for _ in range(60)):
        if all(entry["class"] in CLASSES for entry in drawn.facts["include"]):
            request = request_about(drawn)
            assert request.prompt == drawn.prompt_text
            assert bool(request.exclude) == (drawn.facts["category"] == "counting")
        else:
            with pytest.raises(DataError, match="none of COCO's 80"):
                request_about(drawn)


def test_samples_without_facts_are_refused():
    bare = Sample("bare", Task.TEXT_TO_IMAGE, (Text("a dog"),))
    with pytest.raises(DataError, match="'bare' has no facts 'category' and 'include'"):
        request_about(bare)


class Scene:
    """Finds what a picture's first pixel numbers: the scene of a row of ROWS, or nothing."""

    def detect(self, name, pixels):
        number = int(pixels[0, 0, 0])
        if number >= len(ROWS):
            return {}
        places = {"left of": (0, 40, 9, 49)}
        found = {}
        for entry in ROWS[number]["include"]:
            relation = entry.get("position", [None])[0]
            box = np.array(places.get(relation, (90, 40, 99, 49)), np.float64)
            found[entry["class"]] = [Found(box, 0.95)] * entry["count"]
        return found

    def describe(self):
        return {"detector": "scene", "model": "none", "official": False}


class Painted:
    """Colours as asked for in the last row, else blue."""

    def __call__(self, pixels, objects, name):
        red = int(pixels[0, 0, 0]) == 5 and name == "dog"
        return ["red" if red else "blue"] * len(objects)

    def describe(self):
        return {"colours": "painted"}


class Model(torch.nn.Module):
    """Draws a number as its picture and answers as the rows say, but for those it does not know."""

    def __init__(self, known=range(6)):
        super().__init__()
        self.known = known

    def sample(self, samples, behaviour, generator):
        return None, tuple(Completion((self._segment(one),), True) for one in samples)

    def _segment(self, one):
        prompts = [row["prompt"] for row in ROWS]
        if one.task is Task.TEXT_TO_IMAGE:
            number = prompts.index(one.prompt_text)
            pixels = np.full((4, 4, 3), number if number in self.known else 99, np.uint8)
            return Image(pixels)
        return Text(one.facts["answer"])

    def own_pictures(self, trajectory, completions):
        return tuple(Image(completion.images[0]) for completion in completions)


def suite(tmp_path, **settings):
    path = lines(tmp_path / "qa.jsonl", ROWS)
    return ImbalanceSuite(
        **{
            "prompts_per_category": None,
            "images_per_prompt": 2,
            "foreign_per_category": 2,
            "source": GenEvalQuestions(path),
            "verifier": GenEvalVerifier(DetectionScorer(Scene(), Painted())),
            "judge": RuleJudge(KeywordReward(rivals=object_names())),
            "other": Model,
            **settings,
        }
    )


def test_the_imbalance_suite_runs_on_genevals_prompts_and_verdicts(tmp_path):
    evaluation = suite(tmp_path).run(Model())
    values = evaluation.values()
    assert evaluation.suite == "unirl"
    assert values["generation_accuracy"] == values["t2i_to_mmu"] == values["mmu_to_t2i"] == 1
    assert evaluation.metrics["generation_accuracy"].n == 12  # 6 prompts, 2 pictures each
    label = evaluation.labels["unirl"]
    assert label.startswith("not comparable with published numbers: the detector is scene (none)")
    assert "6 prompts, published 553" in label
    assert "2 pictures of a prompt, published 4" in label
    assert "rules judge the answers" in label
    assert json.dumps(dict(evaluation.settings))


def test_wrong_pictures_are_found_by_the_detector(tmp_path):
    values = suite(tmp_path).run(Model(known=(0, 2, 4))).values()
    assert values["generation_accuracy"] == 0.5
    assert values["generation_accuracy/position"] == 1
    assert values["generation_accuracy/colors"] == 0
    assert values["mmu_to_t2i"] == 0.5


def test_the_micro_worlds_own_parts_do_not_know_everyday_objects(tmp_path):
    for part in ("other", "judge", "verifier"):
        with pytest.raises(ConfigError, match="source needs other, judge and verifier"):
            suite(tmp_path, **{part: None})
    with pytest.raises(ConfigError, match="did you mean 'bench'"):
        suite(tmp_path, unseen_classes=["bensh"])
    with pytest.raises(ConfigError, match="prompts_per_category=null"):
        ImbalanceSuite(prompts_per_category=None)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{**ROWS[0], "question": " "}], "prompt 1 has no 'question'"),
        (ROWS[:5], "no prompts of category 'attribution'"),
    ],
)
def test_files_without_questions_are_refused(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        GenEvalQuestions(lines(tmp_path / "qa.jsonl", rows))
