"""CLIP score against CLIP's own parts; its stand-in by hand."""

import math

import numpy as np
import pytest
import torch

from tests.rewards.cases import (
    BLUE_SQUARE,
    BOTH,
    DRAWING_SAMPLE,
    GREEN_CIRCLE,
    ONE,
    QUESTION_SAMPLE,
    RED_CIRCLE,
    image,
    rollout,
    told,
)
from unified_rl.core.errors import CheckpointError, ConfigError, RewardError
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.core.trajectory import Rollout
from unified_rl.microworld.scene import Placed
from unified_rl.rewards import world_clip
from unified_rl.rewards.clip_score import ClipScoreReward
from unified_rl.rewards.specimens import blip_folder, clip_folder
from unified_rl.rewards.world_clip import WorldClipReward

PROMPTS = ("a red circle", "a photo of a blue square and a circle", "three", "x" * 100_000)
RNG = np.random.default_rng(0)
SIZES = ((24, 24), (40, 20), (32, 32), (24, 24))
PICTURES = tuple(Image(RNG.integers(0, 256, (*s, 3), dtype=np.uint8)) for s in SIZES)


def drawing(prompt):
    return Sample(f"drawing {prompt[:9]}", Task.TEXT_TO_IMAGE, (Text(prompt),))


def scores(reward, prompts, pictures):
    answers = tuple(told(picture) for picture in pictures)
    samples = tuple(map(drawing, prompts))
    return reward(Rollout(samples, answers, rollout(answers).trajectory, 1)).outcome.tolist()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(clip_folder(tmp_path_factory.mktemp("clip")))


def test_clip_score_is_the_cosine(clip):
    reward = ClipScoreReward(clip, batch_size=3)
    model = reward._clip.model
    want = []
    for prompt, picture in zip(PROMPTS[:3], PICTURES[:3], strict=True):
        words = reward._clip.tokenizer(prompt, return_tensors="pt")
        pixels = reward._clip.processor(images=picture.pixels, return_tensors="pt")
        text = model.text_projection(model.text_model(**words).pooler_output)
        seen = model.visual_projection(model.vision_model(**pixels).pooler_output)
        want.append(torch.cosine_similarity(text, seen).item())
    found = scores(reward, PROMPTS, PICTURES)
    assert found[:3] == pytest.approx(want, abs=1e-5)
    assert min(want) < 0, "clamping would not be noticed"
    twice = scores(ClipScoreReward(clip, scale=2), PROMPTS, PICTURES)
    assert twice == pytest.approx([2 * cosine for cosine in found], abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_score_does_not_depend_on_the_others(clip, batch_size):
    reward = ClipScoreReward(clip, batch_size=batch_size)
    together = scores(reward, PROMPTS, PICTURES)
    pairs = zip(PROMPTS, PICTURES, strict=True)
    alone = [scores(reward, [prompt], [picture])[0] for prompt, picture in pairs]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len({round(value, 4) for value in together}) == 4


def test_other_tasks_get_no_clip_score(clip):
    reward = ClipScoreReward(clip)
    assert reward(rollout([told(Text("red"))], QUESTION_SAMPLE)).outcome.tolist() == [0]


def test_what_is_not_finite_is_named(clip):
    reward = ClipScoreReward(clip)
    with torch.no_grad():
        reward._clip.model.visual_projection.weight.fill_(math.nan)
    with pytest.raises(RewardError, match="ClipScoreReward gave nan for a picture of 'drawing'"):
        reward(rollout([told(ONE)], DRAWING_SAMPLE))
    with pytest.raises(RewardError, match="nan"):
        reward.self_test()


def test_the_self_test_asks_which_picture_is_right(clip):
    reward = ClipScoreReward(clip)
    passed = []
    for _ in range(2):
        try:
            reward.self_test()
            passed.append(True)
        except RewardError as error:
            assert "cannot tell a right picture of 'a red circle and" in str(error)
            passed.append(False)
        with torch.no_grad():
            reward._clip.model.text_projection.weight.neg_()  # what was alike is now unlike
    assert sorted(passed) == [False, True]


def test_folders_are_checked(tmp_path):
    with pytest.raises(CheckpointError, match="clip_score.checkpoint=.*gone is not a folder"):
        ClipScoreReward(str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match="model_type 'blip', not clip"):
        ClipScoreReward(str(blip_folder(tmp_path / "blip")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0}, "scale=0"),
        ({"scale": math.nan}, "scale=nan"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"weight": -1}, "weight=-1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        ClipScoreReward("unread", **settings)


SWAPPED = image(Placed("circle", "blue", 0, 8), Placed("square", "red", 12, 8))
MIRRORED = image(Placed("circle", "red", 12, 8), Placed("square", "blue", 0, 8))
PAIR = "a photo of a red circle left of a blue square"
TWO_CIRCLES = image(RED_CIRCLE, Placed("circle", "green", 12, 8))


@pytest.mark.parametrize(
    ("prompt", "picture", "score"),
    [
        (PAIR, BOTH, 1),
        # the limits for which it is there: neither binding nor place is seen
        (PAIR, SWAPPED, 1),
        (PAIR, MIRRORED, 1),
        # bags {red, circle, blue, square} and {red, circle}
        (PAIR, ONE, 2 / 4),
        # {green, circle, blue, square}: 3 shared of 5
        (PAIR, image(GREEN_CIRCLE, BLUE_SQUARE), 3 / 5),
        # colours count only if the prompt names one
        ("a circle", image(GREEN_CIRCLE), 1),
        ("two circles", TWO_CIRCLES, 1),
        ("three circles", TWO_CIRCLES, 2 / 3),
        ("99 circles", TWO_CIRCLES, 2 / 10),
        ("zero circles", TWO_CIRCLES, 0),
        (PAIR, image(), 0),
        ("a dog", ONE, 0),
        ("a dog", image(), 0),
    ],
)
def test_bags_of_words(prompt, picture, score):
    assert scores(WorldClipReward(), [prompt], [picture]) == [pytest.approx(score)]


def test_stand_in_by_rows():
    prompts, pictures = (PAIR, PAIR, "a circle"), (ONE, BOTH, TWO_CIRCLES)
    together = scores(WorldClipReward(), prompts, pictures)
    pairs = zip(prompts, pictures, strict=True)
    assert together == [scores(WorldClipReward(), [a], [b])[0] for a, b in pairs]


def test_stand_in_reads_the_micro_world_only():
    with pytest.raises(RewardError, match=r"'drawing a red cir'.*\(40, 20, 3\)"):
        scores(WorldClipReward(), PROMPTS[:1], PICTURES[1:2])


def test_a_blind_stand_in_fails_its_self_test(monkeypatch):
    WorldClipReward().self_test()
    monkeypatch.setattr(world_clip, "objects", lambda sample, pixels: ())
    with pytest.raises(RewardError, match="WorldClipReward cannot tell a good answer"):
        WorldClipReward().self_test()
