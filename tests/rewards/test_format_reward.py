import math

import pytest

from tests.rewards.cases import (
    BOTH,
    DRAWING_SAMPLE,
    END,
    FIRST,
    GOLD,
    ONE,
    QUESTION_SAMPLE,
    SECOND,
    STORY_SAMPLE,
    rollout,
    thought,
    told,
)
from unified_rl.core.sample import Text
from unified_rl.rewards.format import FormatReward, is_well_formed

NAN = math.nan


@pytest.mark.parametrize("end", [(), (END,)])
def test_gold_is_well_formed_with_or_without_an_empty_end(end):
    assert is_well_formed(told(*GOLD, *end))


@pytest.mark.parametrize(
    "segments",
    [
        (),
        (END,),
        (FIRST,),
        (ONE,),
        (FIRST, ONE, SECOND),
        (FIRST, ONE, BOTH),
        (*GOLD, Text("the end")),
        (Text("i draw <vis>"), ONE),
        (Text("<think> i draw"), ONE),
        (Text("<think> <vis>"), ONE),
        (Text("<think> <think> i draw <vis>"), ONE),
        (Text("i <think> draw <vis>"), ONE),
        (Text("<think> i draw <vis> <vis>"), ONE),
    ],
)
def test_broken_grammar(segments):
    assert not is_well_formed(told(*segments))


def test_unfinished_is_not_well_formed():
    assert not is_well_formed(told(*GOLD, finished=False))


def test_steps_judge_texts_only():
    # The first thought is whole, the second lacks its opening tag, the third its image.
    segments = (FIRST, ONE, Text("a circle <vis>"), BOTH, thought("more"))
    score = FormatReward().score(STORY_SAMPLE, told(*segments))
    assert score.outcome == 0
    assert score.steps == pytest.approx((1, NAN, 0, NAN, 0), nan_ok=True)


def test_an_empty_end_has_no_step():
    score = FormatReward().score(STORY_SAMPLE, told(*GOLD, END))
    assert score.outcome == 1
    assert score.steps == pytest.approx((1, NAN, 1, NAN, NAN), nan_ok=True)


@pytest.mark.parametrize("finished", [True, False])
def test_other_tasks_only_have_to_finish(finished):
    reward = FormatReward()
    answer = reward.score(QUESTION_SAMPLE, told(Text("red"), finished=finished))
    picture = reward.score(DRAWING_SAMPLE, told(ONE, finished=finished))
    assert answer == (float(finished), (float(finished),))
    assert picture.outcome == finished
    assert math.isnan(picture.steps[0])


def test_a_rollout_pads_steps_with_nan():
    scores = FormatReward()(rollout([told(*GOLD), told(FIRST)]))
    assert scores.outcome.tolist() == [1, 0]
    # a lone thought has no image behind it
    want = [1, NAN, 1, NAN, 0, NAN, NAN, NAN]
    assert scores.steps.flatten().tolist() == pytest.approx(want, nan_ok=True)
