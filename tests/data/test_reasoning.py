"""Pairs of the micro-world: a picture of the caption, and a question that its rewards can score."""

import itertools

import numpy as np
import pytest

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Completion, Image, Pair, Task, Text
from unified_rl.data.reasoning import ReasonedSource
from unified_rl.microworld.facts import Facts
from unified_rl.microworld.verify import verify
from unified_rl.rewards.accuracy import AccuracyReward
from unified_rl.rewards.reasoning_format import ReasoningFormatReward


def drawn(count=40, **settings):
    source = ReasonedSource("train", **settings)
    return [source.draw(np.random.default_rng(seed)) for seed in range(count)]


def test_the_real_picture_shows_the_caption_and_is_asked_about():
    for pair in drawn():
        (real,) = pair.drawing.target
        assert verify(real.pixels, Facts.from_json(pair.drawing.facts["facts"])).correct
        assert np.array_equal(pair.question.prompt[0].pixels, real.pixels)


@pytest.mark.parametrize("kind", ["choice", "open"])
def test_gold_answers_have_full_marks_and_others_none(kind):
    for pair in drawn(kinds=[kind], gold=True):
        (gold,) = pair.question.target
        wrong = gold.text.partition("<answer>")[0] + "<answer> none </answer>"
        for reward, of_wrong in ((AccuracyReward(), 0), (ReasoningFormatReward(), 1)):
            assert reward.score(pair.question, Completion((gold,), True)).outcome == 1
            told = Completion((Text(wrong),), True)
            assert reward.score(pair.question, told).outcome == of_wrong


def test_questions_have_no_target_unless_asked():
    assert all(pair.question.target == () for pair in drawn(5))


def test_kinds_are_as_asked():
    assert {pair.question.facts["kind"] for pair in drawn(kinds=["open"])} == {"open"}
    assert {pair.question.facts["kind"] for pair in drawn()} == {"choice", "open"}


@pytest.mark.parametrize(
    ("unit", "tasks"),
    [
        ("drawing", {Task.TEXT_TO_IMAGE}),
        ("question", {Task.UNDERSTANDING}),
        ("either", {Task.TEXT_TO_IMAGE, Task.UNDERSTANDING}),
    ],
)
def test_halves(unit, tasks):
    assert {sample.task for sample in drawn(unit=unit)} == tasks


def test_a_limit_rations_what_exists():
    limited = {pair.id + str(pair.question.facts) for pair in drawn(200, gold_limit=7)}
    assert 5 <= len(limited) <= 7  # 200 draws of 7 miss one with a chance of 7 (6/7)^200 = 3e-13
    assert len({pair.id + str(pair.question.facts) for pair in drawn(200)}) > 150


def test_the_same_randomness_gives_the_same_pair():
    for first, second in itertools.pairwise([drawn(3), drawn(3)]):
        assert [p.id for p in first] == [p.id for p in second]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit": "half"}, "unit='half'"),
        ({"kinds": ["mixed"]}, "kinds="),
        ({"kinds": []}, "kinds="),
        ({"gold_limit": 0}, "gold_limit=0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ReasonedSource("train", **settings)


def test_a_pair_of_two_drawings_is_refused():
    pair = drawn(1)[0]
    with pytest.raises(ValueError, match="takes a drawing and a question"):
        Pair(pair.drawing, pair.drawing)
    assert isinstance(pair.drawing.target[0], Image)
