"""The judge by rules is full marks of the keyword reward, nothing less."""

import numpy as np
import pytest

from unified_rl.core.errors import RewardError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.data.self_questions import ask_about
from unified_rl.evaluation.answer_judge import RuleJudge
from unified_rl.evaluation.foreign_pictures import rendered_pictures
from unified_rl.evaluation.picture_verifier import MicroWorldVerifier
from unified_rl.evaluation.self_questions import self_question
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.scene import SHAPES
from unified_rl.rewards.keywords import KeywordReward

INCLUDE = [{"class": "chair", "count": 1, "color": "blue"}, {"class": "cup", "color": "red"}]
SAMPLE = Sample(
    "asked",
    Task.UNDERSTANDING,
    (Text("what?"),),
    facts={"category": "attribution", "include": INCLUDE},
)


@pytest.mark.parametrize("normalise", [True, False])
def test_full_marks_alone_are_right(normalise):
    judge = RuleJudge(KeywordReward(normalise=normalise))
    assert judge(SAMPLE, "a blue chair and a red cup")
    assert not judge(SAMPLE, "a blue chair and a cup")  # 3 of 4
    assert judge.failure_count == 0


def test_a_sample_without_facts_is_refused():
    with pytest.raises(RewardError, match="'bare'"):
        RuleJudge()(Sample("bare", Task.UNDERSTANDING, ()), "a cup")


@pytest.mark.parametrize("category", CATEGORIES)
def test_gold_answers_about_rendered_pictures_are_right(category):
    samples = [self_question(prompt) for prompt in prompts(category, "test")]
    judge, verifier = RuleJudge(KeywordReward(rivals=SHAPES)), MicroWorldVerifier()
    pairs = rendered_pictures(samples, seed=0)
    for pair in pairs:
        picture, question = pair.question.prompt
        assert pair.question.id == f"own/{pair.drawing.id}"
        assert question.text == pair.drawing.facts["question"]
        assert judge(pair.question, pair.question.target[0].text)
        assert not judge(pair.question, "a star")
        assert verifier(pair.drawing, picture.pixels)
        assert verifier(pair.question, picture.pixels)
        assert not verifier(pair.drawing, np.full((24, 24, 3), 255, np.uint8))


def test_the_verifier_is_strict():
    red, *others = [self_question(prompt) for prompt in prompts("colors", "test")]
    (pair,) = rendered_pictures([red], seed=0)
    picture = pair.question.prompt[0]
    unlike = [sample for sample in others if sample.facts["include"] != red.facts["include"]]
    assert unlike and not any(MicroWorldVerifier()(s, picture.pixels) for s in unlike)
    assert ask_about(red, picture).facts == red.facts
