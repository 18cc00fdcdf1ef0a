"""R_cycle by hand, from halves that say what they are told and from the micro-world's."""

import dataclasses
import math

import pytest
import torch

from tests.rewards.cases import (
    BLUE_SQUARE,
    BOTH,
    DRAWING_SAMPLE,
    GREEN_CIRCLE,
    ONE,
    QUESTION_SAMPLE,
    STORY_SAMPLE,
    image,
    rollout,
    told,
)
from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.core.trajectory import Rollout
from unified_rl.rewards.caption_scores import BertScore, SceneGraphScore
from unified_rl.rewards.captioners import BlipCaptioner, PolicyCaptioner, WorldCaptioner
from unified_rl.rewards.cycle import CycleReward
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.rewards.perceptual import WorldDistance
from unified_rl.rewards.specimens import bert_folder, blip_folder

PROMPT = "a photo of a red circle left of a blue square"
SAMPLE = Sample("pair", Task.TEXT_TO_IMAGE, (Text(PROMPT),), target=(BOTH,))
GREEN = image(GREEN_CIRCLE, BLUE_SQUARE)
BLANK = image()


class Fixed:
    """A distance or caption score that gives one value."""

    def __init__(self, value):
        self.value = value

    def __call__(self, first, second):
        return [self.value] * len(first)


class Mute:
    sees_micro_world = True

    def __call__(self, pictures):
        return [""] * len(pictures)


def world(**settings):
    return CycleReward(WorldDistance(), WorldCaptioner(), SceneGraphScore(), **settings)


def fixed(distance, score, **settings):
    return CycleReward(Fixed(distance), Mute(), Fixed(score), **settings)


def outcomes(reward, *completions, sample=SAMPLE):
    return reward(rollout(completions, sample)).outcome.tolist()


@pytest.mark.parametrize(
    ("reward", "value"),
    [
        # (1 - .25) + .5
        (fixed(0.25, 0.5), 1.25),
        # 2 * .75 + .1 * .5
        (fixed(0.25, 0.5, visual_weight=2, textual_weight=0.1), 1.55),
        (fixed(0.25, 0.5, visual_weight=0), 0.5),
        (fixed(0.25, 0.5, textual_weight=0), 0.75),
        # a distance may exceed 1
        (fixed(1.5, 0), -0.5),
        # the weight in a hybrid reward is not applied here
        (fixed(0.25, 0.5, weight=3), 1.25),
    ],
)
def test_equation_3(reward, value):
    assert outcomes(reward, told(ONE)) == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("drawn", "value"),
    [
        # the real picture itself: 1 - 0, and the caption says what the prompt says
        (BOTH, 1 + 1),
        # nothing: 1 - 1, no caption
        (BLANK, 0),
        # the circle alone: caption "a red circle", 2 of 5 tuples, 2 * 2 / (2 + 5). Its 36 pixels
        # of ink 35 + 225 + 225 = 485, the square's 64 of 215 + 185 + 35 = 435: the square's share
        # 27840 / (2 * 17460 + 27840) is the difference at every scale
        (ONE, 1 - 27840 / 62760 + 4 / 7),
    ],
)
def test_micro_world(drawn, value):
    assert outcomes(world(), told(drawn)) == [pytest.approx(value)]


def test_a_wrong_colour_costs_in_both_halves():
    good, bad = outcomes(world(), told(BOTH), told(GREEN))
    only_seen, only_said = world(textual_weight=0), world(visual_weight=0)
    # "a green circle left of a blue square": 4 of 5 and 5 tuples
    assert outcomes(only_said, told(GREEN)) == [pytest.approx(0.8)]
    (seen,) = outcomes(only_seen, told(GREEN))
    assert 0.5 < seen < 1
    assert bad == pytest.approx(seen + 0.8)
    assert good == 2


def test_a_score_does_not_depend_on_the_others():
    drawn = [told(picture) for picture in (BOTH, GREEN, BLANK, ONE, BOTH)]
    together = outcomes(world(), *drawn)
    assert together == [outcomes(world(), one)[0] for one in drawn]
    assert together == outcomes(world(), *drawn[::-1])[::-1]
    assert len(set(together)) == 4


def test_steps_and_other_tasks():
    samples = (SAMPLE, STORY_SAMPLE, QUESTION_SAMPLE, SAMPLE, SAMPLE)
    answers = (told(BOTH), told(Text("so"), BOTH), told(Text("red")), told(Text("a"), ONE), told())
    trajectory = rollout(answers).trajectory
    scores = fixed(0.25, 0.5)(Rollout(samples, answers, trajectory, 1))
    nan = math.nan
    assert scores.outcome.tolist() == [1.25, 0, 0, 1.25, 0]
    want = torch.tensor([[1.25, nan], [nan, nan], [nan, nan], [nan, 1.25], [nan, nan]])
    torch.testing.assert_close(scores.steps, want, equal_nan=True)
    assert scores.outcome.dtype == scores.steps.dtype == torch.float32


def test_nothing_to_judge():
    scores = fixed(math.nan, math.nan)(rollout([told(Text("red"))], QUESTION_SAMPLE))
    assert scores.outcome.tolist() == [0]


def test_a_missing_real_picture_is_named():
    with pytest.raises(RewardError, match="'drawing' has no real picture.*visual_weight=0"):
        world()(rollout([told(ONE)], DRAWING_SAMPLE))
    assert outcomes(world(visual_weight=0), told(ONE), sample=DRAWING_SAMPLE) == [1]
    words = dataclasses.replace(DRAWING_SAMPLE, target=(Text("red"),))
    with pytest.raises(RewardError, match="'drawing' has no real picture"):
        world()(rollout([told(ONE)], words))


@pytest.mark.parametrize(("distance", "score"), [(math.nan, 0.5), (0.5, math.inf)])
def test_what_is_not_finite_is_named(distance, score):
    with pytest.raises(RewardError, match=r"Fixed gave (nan|inf) for a picture of 'pair'"):
        outcomes(fixed(distance, score), told(ONE))


def test_a_judge_that_drops_pictures_is_named():
    class Short(Fixed):
        def __call__(self, first, second):
            return [0.5]

    reward = CycleReward(Short(0), Mute(), Fixed(0))
    with pytest.raises(RewardError, match="Short gave 1 scores for 2 pictures"):
        outcomes(reward, told(ONE), told(ONE))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visual_weight": 0, "textual_weight": 0}, "nothing to score"),
        ({"visual_weight": -1}, "visual_weight=-1"),
        ({"textual_weight": math.nan}, "textual_weight=nan"),
        ({"weight": -2}, "weight=-2"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        world(**settings)


@pytest.mark.parametrize("off", [{}, {"visual_weight": 0}, {"textual_weight": 0}])
def test_sound_halves_pass_their_self_test(off):
    world(**off).self_test()


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ((Fixed(0.5), WorldCaptioner(), SceneGraphScore()), "Fixed"),
        ((WorldDistance(), Mute(), SceneGraphScore()), "Mute"),
        ((WorldDistance(), WorldCaptioner(), Fixed(0.7)), "WorldCaptioner"),
        ((WorldDistance(), WorldCaptioner(), Fixed(math.nan)), "Fixed gave nan"),
    ],
)
def test_broken_halves_fail_their_self_test(parts, named):
    with pytest.raises(RewardError, match=named):
        CycleReward(*parts).self_test()


def test_with_published_models(tmp_path):
    captioner = BlipCaptioner(str(blip_folder(tmp_path / "blip")), max_new_tokens=5, batch_size=2)
    score = BertScore(str(bert_folder(tmp_path / "bert")))
    reward = CycleReward(WorldDistance(), captioner, score)
    drawn = [told(picture) for picture in (BOTH, GREEN, BLANK, ONE)]
    together = outcomes(reward, *drawn)
    assert together == pytest.approx([outcomes(reward, one)[0] for one in drawn], abs=1e-5)
    assert len(set(together)) == 4
    reward.self_test()  # whatever an untrained captioner says

    with torch.no_grad():
        next(iter(score._model.parameters())).fill_(math.nan)
    with pytest.raises(RewardError, match="BertScore gave nan for a picture of 'pair'"):
        outcomes(reward, told(BOTH))


def test_the_policy_is_passed_on():
    captioner = PolicyCaptioner("what is it", judge="frozen")
    reward = CycleReward(WorldDistance(), captioner, SceneGraphScore())
    policy, copy = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    HybridReward({"cycle": reward, "other": world()}).bind(policy, lambda: copy)
    assert captioner._own.policy is copy
