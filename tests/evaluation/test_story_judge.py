"""Verdicts on one told story, by hand."""

import pytest

from tests.rewards.cases import (
    BOTH,
    END,
    FIRST,
    GOLD,
    GREEN_CIRCLE,
    ONE,
    SECOND,
    STORY_SAMPLE,
    image,
    told,
)
from unified_rl.evaluation.story_judge import judge_story


def judge(*segments, finished=True):
    return judge_story(STORY_SAMPLE, told(*segments, finished=finished))


def test_gold():
    verdict = judge(*GOLD, END)
    assert verdict.joint
    assert verdict.rubric == 6
    assert set(verdict.aspects.values()) == {1.0}


def test_nothing():
    verdict = judge()
    assert not verdict.joint
    assert verdict.rubric == 0
    assert set(verdict.aspects.values()) == {0.0}


def test_a_story_that_stops_early():
    verdict = judge(FIRST, ONE, END)
    assert verdict.well_formed
    assert verdict.strict == (True, False)
    assert verdict.consistent == (True, False)
    assert not verdict.joint
    # grammar and first picture
    assert verdict.rubric == 2
    # half of the thoughts, half of the pictures, no transition, half of the agreement, no end
    assert list(verdict.aspects.values()) == [0.5, 0.5, 0, 0.5, 0]


def test_a_superfluous_picture_is_not_joint():
    verdict = judge(*GOLD, FIRST, BOTH)
    assert verdict.strict == (True, True)
    assert verdict.well_formed
    assert not verdict.joint
    assert verdict.text == pytest.approx(2 / 3)
    # grammar, first picture, agreement of the required pictures, final picture
    assert verdict.rubric == 4


def test_a_wrong_first_picture():
    # A green circle for a red one: 2 of 3 facts hold. The second picture drops it.
    verdict = judge(FIRST, image(GREEN_CIRCLE), SECOND, BOTH)
    assert verdict.strict == (False, True)
    assert verdict.soft == pytest.approx((2 / 3, 1))
    assert verdict.agreement == pytest.approx((2 / 3, 1))
    assert verdict.coherence == 0
    assert list(verdict.aspects.values()) == pytest.approx([1, 1, 0, 5 / 6, 1])
    # grammar, thoughts, number of pictures, final picture
    assert verdict.rubric == 4


def test_unfinished_is_not_joint():
    assert not judge(*GOLD, finished=False).joint
