"""Captions of pictures: the micro-world's by hand, BLIP's and a policy's by what must hold."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.rewards.cases import BLUE_SQUARE, BOTH, GREEN_CIRCLE, ONE, image
from tests.toys import MICRO_VILA_U, TEMPLATE, build
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.errors import CheckpointError, ConfigError, RewardError
from unified_rl.core.sample import Completion, Image, Sample, Task, Text
from unified_rl.microworld.scene import Placed
from unified_rl.microworld.words import vocabulary
from unified_rl.models.vila_u.load import vila_u
from unified_rl.rewards.caption_scores import SceneGraphScore
from unified_rl.rewards.captioners import BlipCaptioner, PolicyCaptioner, WorldCaptioner
from unified_rl.rewards.cycle import CycleReward
from unified_rl.rewards.perceptual import WorldDistance
from unified_rl.rewards.pictures import resized
from unified_rl.rewards.specimens import bert_folder, blip_folder

RNG = np.random.default_rng(0)
NOISE = [RNG.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(5)]
CORNERS = ((0, 0), (12, 0), (0, 12))


def circles(*colors):
    places = zip(colors, CORNERS, strict=False)
    return [Placed("circle", color, x, y) for color, (x, y) in places]


@pytest.mark.parametrize(
    ("shown", "caption"),
    [
        ((), ""),
        ((GREEN_CIRCLE,), "a green circle"),
        ((GREEN_CIRCLE, BLUE_SQUARE), "a green circle left of a blue square"),
        # objects are read from the top; on the diagonal neither axis dominates
        (
            (Placed("square", "blue", 12, 12), Placed("cross", "red", 0, 0)),
            "a red cross and a blue square",
        ),
        (circles("red", "red"), "two red circles"),
        (circles("red", "blue"), "two circles"),
        (circles("red", "blue", "green"), "three circles"),
        # beside one circle and above the other: no relation holds between all
        (
            (*circles("red", "red"), Placed("cross", "red", 0, 12)),
            "two red circles and a red cross",
        ),
        (
            (*circles("red", "red"), Placed("cross", "blue", 8, 16)),
            "two red circles above a blue cross",
        ),
        (
            (*circles("red"), Placed("cross", "blue", 0, 12), Placed("square", "blue", 12, 12)),
            "a red circle and a blue cross and a blue square",
        ),
    ],
)
def test_the_world_says_what_it_sees(shown, caption):
    assert WorldCaptioner()([image(*shown).pixels]) == [caption]


def test_more_objects_than_there_are_words_for():
    crowded = np.full((24, 24, 3), 255, np.uint8)
    for row in range(3):
        for column in range(3):
            crowded[row * 8 : row * 8 + 7, column * 8 : column * 8 + 7] = (220, 30, 30)
    assert WorldCaptioner()([crowded]) == ["9 red squares"]


def test_the_world_reads_its_own_pictures_only():
    with pytest.raises(RewardError, match=r"image of shape \(32, 32, 3\).*BlipCaptioner"):
        WorldCaptioner()([np.zeros((32, 32, 3), np.uint8)])


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return str(blip_folder(tmp_path_factory.mktemp("blip")))


def test_blip_describes_each_picture_alone(blip):
    captioner = BlipCaptioner(blip, max_new_tokens=7, batch_size=2)
    pictures = [*NOISE, np.zeros((30, 60, 3), np.uint8)]
    captions = captioner(pictures)
    assert captions == [captioner([picture])[0] for picture in pictures]
    assert len(set(captions)) > 1, "what it says does not depend on what it sees"
    assert not all(caption.startswith("[DEC]") for caption in captions), "this begins its prompt"
    assert max(len(caption.split()) for caption in captions) == 7
    assert captioner([]) == []


def test_blip_is_frozen(blip):
    model = BlipCaptioner(blip)._model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_blip_refuses_other_models(tmp_path):
    with pytest.raises(CheckpointError, match="captioner.checkpoint=.*gone is not a folder"):
        BlipCaptioner(str(tmp_path / "gone"))
    with pytest.raises(CheckpointError, match="model_type 'bert', not blip"):
        BlipCaptioner(str(bert_folder(tmp_path / "bert")))
    folder = blip_folder(tmp_path / "blip")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        BlipCaptioner(str(folder))


@pytest.mark.parametrize("setting", ["max_new_tokens", "batch_size"])
def test_counts_are_checked(setting):
    with pytest.raises(ConfigError, match=f"{setting}=0"):
        BlipCaptioner("unread", **{setting: 0})


QUESTION = "what are the two objects and their colors"


@pytest.mark.parametrize("family", ["micro_janus", "micro_showo", "micro_vila_u"])
def test_a_policy_describes_its_pictures(family):
    policy = build(family)
    captioner = PolicyCaptioner(QUESTION, max_text_tokens=4, batch_size=2)
    captioner.bind(policy, lambda: pytest.fail("a live judge needs no copy"))
    pictures = [ONE.pixels, BOTH.pixels, NOISE[0]]
    policy.train()
    next(module for module in policy.modules() if isinstance(module, torch.nn.Linear)).eval()
    modes = [module.training for module in policy.modules()]
    captions = captioner(pictures)
    assert [module.training for module in policy.modules()] == modes
    assert policy.training
    assert captions == [captioner([picture])[0] for picture in pictures] == captioner(pictures)
    policy.eval()
    behaviour = Behaviour(text=Sampling(temperature=0), max_text_tokens=4)
    prompt = (Image(pictures[1]), Text(QUESTION))
    sample = Sample("asked", Task.UNDERSTANDING, prompt)
    _, (answer,) = policy.sample([sample], behaviour, torch.Generator())
    assert captions[1] == " ".join("".join(answer.texts).split())


@pytest.fixture(scope="module")
def larger():
    """A policy of 32 px."""
    settings = deepcopy(MICRO_VILA_U)
    settings["vision"]["image_size"] = settings["codec"]["resolution"] = 32
    return vila_u(None, settings, words=vocabulary(), template=TEMPLATE).eval()


def test_a_policy_is_shown_pictures_of_its_own_size(larger, monkeypatch):
    captioner = PolicyCaptioner(QUESTION, max_text_tokens=4)
    captioner.bind(larger, lambda: None)
    own = resized(ONE.pixels, 32)
    shown, sample = [], larger.sample

    def watched(samples, behaviour, generator):
        shown.extend(one.prompt[0].pixels for one in samples)
        return sample(samples, behaviour, generator)

    monkeypatch.setattr(larger, "sample", watched)
    captions = captioner([ONE.pixels, own, NOISE[0][:12]])
    assert captions[0] == captions[1]
    assert np.array_equal(shown[0], own)
    assert np.array_equal(shown[1], own)
    assert shown[2].shape == (32, 32, 3)


def test_a_policy_of_another_size_passes_the_self_test(larger):
    captioner = PolicyCaptioner(QUESTION, max_text_tokens=4)
    reward = CycleReward(WorldDistance(), captioner, SceneGraphScore())
    reward.bind(larger, lambda: None)
    reward.self_test()


class Speaker(torch.nn.Linear):
    """A policy that says what it is told to."""

    def __init__(self, *texts):
        super().__init__(1, 1)
        self.texts, self.capabilities = texts, SimpleNamespace(image_size=24)

    def sample(self, samples, behaviour, generator):
        assert not self.training
        assert behaviour.text.temperature == 0
        return None, tuple(Completion((Text(text),), True) for text in self.texts)


def test_the_frozen_judge_is_asked():
    captioner = PolicyCaptioner(QUESTION, judge="frozen")
    captioner.bind(Speaker("now"), lambda: Speaker("at the start"))
    assert captioner([ONE.pixels]) == ["at the start"]


def test_of_a_reasoned_answer_the_answer_counts():
    reasoned = "<think>is it red</think><answer>a blue circle</answer>"
    captioner = PolicyCaptioner(QUESTION)
    captioner.bind(Speaker(reasoned, "a  red\ncircle"), lambda: None)
    assert captioner([ONE.pixels, ONE.pixels]) == ["a blue circle", "a red circle"]


def test_a_policy_must_be_bound():
    with pytest.raises(RewardError, match="no policy is bound"):
        PolicyCaptioner(QUESTION)([ONE.pixels])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"question": " "}, "question is empty"),
        ({"question": QUESTION, "judge": "dead"}, "judge='dead'"),
        ({"question": QUESTION, "max_text_tokens": 0}, "max_text_tokens=0"),
    ],
)
def test_settings_of_a_policy_captioner(settings, message):
    with pytest.raises(ConfigError, match=message):
        PolicyCaptioner(**settings)
