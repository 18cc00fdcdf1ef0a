"""ImageReward against its own definition, on tiny random weights under the published names."""

import math
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from safetensors.torch import save_file

from tests.rewards.cases import (
    BOTH,
    DRAWING_SAMPLE,
    FIRST,
    GOLD,
    ONE,
    QUESTION_SAMPLE,
    SECOND,
    STORY_SAMPLE,
    rollout,
    told,
)
from tests.rewards.published_models import image_reward
from unified_rl.core.errors import CheckpointError, ConfigError, RewardError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.rewards.image_reward import ImageReward
from unified_rl.rewards.image_reward_specimen import image_reward_folder, image_reward_state

TEXTS = ("a red circle", "two circles left of a blue square and a circle", "a " * 50, "")
RNG = np.random.default_rng(0)
SIZES = ((32, 32), (70, 41), (33, 90), (20, 20))
PICTURES = [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
PICTURES[1][:20], PICTURES[2][:, -30:] = 255, 0  # what a crop leaves out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return image_reward_folder(tmp_path_factory.mktemp("image_reward"))


@pytest.fixture(scope="module")
def reward(folder):
    return ImageReward(str(folder))


def by_hand(reward, text, picture):
    """The steps of the release, one pair at a time."""
    words = reward._tokenizer(text, add_special_tokens=False)["input_ids"]
    start, end = (reward._tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]"))
    ids = [start, *words[:33], end]
    mask = torch.tensor([[1] * len(ids) + [0] * (35 - len(ids))])
    ids = torch.tensor([ids + [0] * (35 - len(ids))])
    height, width = picture.shape[:2]
    size = tuple(32 * side // min(height, width) for side in (width, height))
    scaled = PillowImage.fromarray(picture).resize(size, PillowImage.Resampling.BICUBIC)
    # torchvision rounds halves to even: of 87 px, 27.5 are 28
    left, top = round((size[0] - 32) / 2), round((size[1] - 32) / 2)
    square = np.asarray(scaled.crop((left, top, left + 32, top + 32)))
    pixels = (torch.tensor(square) / 255).permute(2, 0, 1)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return image_reward(image_reward_state(), ids, mask, ((pixels - mean) / std)[None]).item()


def test_scores_are_the_releases(reward):
    want = [by_hand(reward, *pair) for pair in zip(TEXTS, PICTURES, strict=True)]
    # Sums in float32 differ by 1e-5 here from one processor to another.
    assert reward.fits(TEXTS, PICTURES) == pytest.approx(want, abs=1e-4)
    assert min(want) < 0 < max(want) and max(want) - min(want) > 0.1, "else it could not fail"


def test_scores_that_the_authors_modules_gave(reward):
    """Recorded from the release's own ViT, BERT and layers, which loaded the same state dict."""
    ids = torch.tensor([[2, 6, 7, 9, 3] + [0] * 30, [2, 8, 3] + [0] * 32])
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = reward._model(ids, (ids > 0).long(), pixels).tolist()
    assert scores == pytest.approx([-0.7773261070251465, 1.4900424480438232], abs=1e-5)


def test_the_norms_epsilon_and_the_heads_matter(reward):
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids, mask = torch.tensor([[2, 6, 7, 3]]), torch.ones(1, 4).long()
    model = reward._model
    with torch.no_grad():
        (right,) = model(ids, mask, pixels).tolist()
        for module in model.vision.modules():
            if isinstance(module, torch.nn.LayerNorm):
                assert module.eps == 1e-6
                module.eps = 1e-5
        (wrong,) = model(ids, mask, pixels).tolist()
        for module in model.vision.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-6
    assert right == pytest.approx(
        image_reward(image_reward_state(), ids, mask, pixels).item(), abs=1e-5
    )
    assert abs(wrong - right) > 1e-3
    assert model.text.config.num_attention_heads == model.vision.config.num_attention_heads == 2


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_score_does_not_depend_on_the_others(folder, batch_size):
    reward = ImageReward(str(folder), batch_size=batch_size)
    alone = [
        reward.fits([text], [picture])[0] for text, picture in zip(TEXTS, PICTURES, strict=True)
    ]
    assert reward.fits(TEXTS, PICTURES) == pytest.approx(alone, abs=1e-4)
    assert len({round(score, 4) for score in alone}) == 4


def test_what_lies_beyond_the_limit_is_not_read(reward):
    # 33 words, and the two tokens around them
    short, long = "a " * 33, "a " * 33 + "red circle"
    other = "red " + "a " * 32
    found = reward.fits([short, long, other], [PICTURES[0]] * 3)
    assert found[0] == pytest.approx(found[1], abs=5e-5)
    assert abs(found[0] - found[2]) > 1e-3


def test_a_policy_cannot_place_special_tokens(reward):
    written = reward._tokenizer("red [SEP] [PAD] circle [CLS]")["input_ids"]
    special = reward._tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
    assert [token for token in written if token in special] == special
    assert 0 not in written


def test_bfloat16_is_near(folder, reward):
    low = ImageReward(str(folder), dtype="bfloat16")
    assert low._model.vision.dtype == torch.bfloat16
    assert low._model.head[0].weight.dtype == torch.float32
    # eight bits of precision through four layers and a head that multiplies what is off
    assert low.fits(TEXTS, PICTURES) == pytest.approx(reward.fits(TEXTS, PICTURES), abs=0.3)


def test_drawings(reward):
    scores = reward(rollout([told(ONE), told(BOTH), told(Text("no"))], DRAWING_SAMPLE))
    want = reward.fits([DRAWING_SAMPLE.prompt_text] * 2, [ONE.pixels, BOTH.pixels])
    assert scores.outcome.tolist() == pytest.approx([*want, -3.0], abs=1e-5)
    assert scores.steps[:2, 0].tolist() == pytest.approx(want, abs=1e-5)
    assert scores.judged.all()


def test_stories_step_by_step(reward):
    prompt = STORY_SAMPLE.prompt_text
    first, second = (
        text.text.removeprefix("<think> ").removesuffix(" <vis>") for text in (FIRST, SECOND)
    )
    a, b = reward.fits([first, second], [ONE.pixels, BOTH.pixels])
    (bare,) = reward.fits([prompt], [BOTH.pixels])
    scores = reward(rollout([told(*GOLD), told(FIRST, ONE, BOTH), told(FIRST)]))
    # a second picture in a row is held against the prompt; no picture is worth `undrawn`
    assert scores.outcome.tolist() == pytest.approx([(a + b) / 2, (a + bare) / 2, -3.0], abs=1e-5)
    assert scores.steps[0].tolist() == pytest.approx(
        [math.nan, a, math.nan, b], abs=1e-5, nan_ok=True
    )
    assert len({round(score, 4) for score in (a, b, bare)}) == 3


@pytest.mark.parametrize(("story_text", "text"), [("prompt", "{p}"), ("both", "{t}. {p}")])
def test_what_a_story_is_held_against(folder, story_text, text):
    reward = ImageReward(str(folder), story_text=story_text)
    prompt, thought = STORY_SAMPLE.prompt_text, "i draw a red circle"
    want = reward.fits([text.format(p=prompt, t=thought)], [ONE.pixels])
    assert reward(rollout([told(FIRST, ONE)])).outcome.tolist() == pytest.approx(want, abs=1e-5)


def test_pictures_that_the_target_has_are_missed(reward):
    sample = Sample("s", Task.INTERLEAVED, (Text("x"),), target=(FIRST, ONE, SECOND, BOTH, ONE))
    (score,) = reward.fits(["i draw a red circle"], [ONE.pixels])
    # one of three is there
    want = (score - 3 - 3) / 3
    assert reward(rollout([told(FIRST, ONE)], sample)).outcome.tolist() == pytest.approx(
        [want], abs=1e-5
    )


def test_other_tasks_are_not_judged(reward):
    scores = reward(rollout([told(Text("red"))], QUESTION_SAMPLE))
    assert scores.outcome.tolist() == [0] and not scores.judged.any()


def test_the_self_test_asks_which_picture_is_right(folder):
    reward = ImageReward(str(folder))
    passed = []
    for _ in range(2):
        try:
            reward.self_test()
            passed.append(True)
        except RewardError as error:
            assert "ImageReward cannot tell a right picture" in str(error)
            assert "image_reward.checkpoint" in str(error)
            passed.append(False)
        with torch.no_grad():
            reward._model.head[-1].weight.neg_()
    assert sorted(passed) == [False, True]


def test_what_is_not_finite_is_named(folder):
    reward = ImageReward(str(folder))
    with torch.no_grad():
        reward._model.head[0].weight.fill_(math.nan)
    with pytest.raises(RewardError, match="ImageReward gave nan for a picture of 'drawing'"):
        reward(rollout([told(ONE)], DRAWING_SAMPLE))


def test_safetensors_and_a_tokenizer_elsewhere(folder, reward, tmp_path):
    state = {name: value.contiguous() for name, value in image_reward_state().items()}
    save_file(state, tmp_path / "ImageReward.safetensors")
    other = ImageReward(str(tmp_path), tokenizer=str(folder))
    assert other.fits(TEXTS, PICTURES) == reward.fits(TEXTS, PICTURES)
    with pytest.raises(CheckpointError, match="has no tokenizer.json or vocabulary"):
        ImageReward(str(tmp_path))


class Runs:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_runs_nothing(tmp_path):
    folder = image_reward_folder(tmp_path / "hostile", {"mlp": Runs(tmp_path / "ran")})
    with pytest.raises(CheckpointError, match="ImageReward.pt was refused.*more than tensors"):
        ImageReward(str(folder))
    (folder / "ImageReward.pt").write_bytes(pickle.dumps({"mlp": Runs(tmp_path / "ran")}))
    with pytest.raises(CheckpointError, match="not an archive of torch"):
        ImageReward(str(folder))
    assert not (tmp_path / "ran").exists()


def test_an_archive_unpacks_to_no_more_than_it_holds(tmp_path):
    folder = image_reward_folder(tmp_path)
    path = folder / "ImageReward.pt"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data if "data.pkl" not in name else data + b"\0" * 10**8)
    with pytest.raises(CheckpointError, match="unpacks to more"):
        ImageReward(str(folder))
    for unstored in (torch.zeros(1).expand(10**12), torch.empty(10**12, device="meta")):
        torch.save({"mlp": unstored}, path)
        with pytest.raises(CheckpointError, match="does not hold tensors by name"):
            ImageReward(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp.layers.9.weight": torch.zeros(1)}, r"1 unknown \(head.9.weight\)"),
        ({"logit_scale": torch.zeros(1)}, r"1 unknown \(logit_scale\)"),
        ({"mlp.layers.7.bias": None}, r"1 missing \(head.7.bias\)"),
        (
            {"blip.visual_encoder.blocks.1.norm1.weight": None},
            r"1 missing \(vision.encoder.layers.1.layer_norm1.weight\)",
        ),
        ({"blip.visual_encoder.blocks.99999999999.norm1.weight": torch.zeros(128)}, "unknown"),
        ({"mlp.layers.7.bias": torch.zeros(2)}, r"head.7.bias .* shape \(2,\).* of \(1,\)"),
        ({"mlp.layers.7.bias": torch.zeros(1).int()}, "head.7.bias is torch.int32"),
        ({"blip.visual_encoder.pos_embed": torch.zeros(1, 4, 128)}, "4 positions"),
        ({"blip.visual_encoder.pos_embed": torch.zeros(4)}, "does not hold ImageReward's weights"),
        (
            {"blip.text_encoder.embeddings.word_embeddings.weight": None},
            "does not hold ImageReward",
        ),
        (
            {"blip.text_encoder.embeddings.word_embeddings.weight": torch.zeros(30, 65)},
            "text tower of width 65",
        ),
        (
            {"blip.text_encoder.embeddings.word_embeddings.weight": torch.zeros(3, 128)},
            "17 tokens are more than the 3",
        ),
    ],
)
def test_every_name_is_accounted_for(tmp_path, change, message):
    state = {**image_reward_state(), **change}
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        ImageReward(str(image_reward_folder(tmp_path, state)))


def test_the_unused_projections_may_be_missing(tmp_path, reward):
    state = {name: v for name, v in image_reward_state().items() if "_proj." not in name}
    assert len(image_reward_state()) - len(state) == 4
    lean = ImageReward(str(image_reward_folder(tmp_path, state)))
    assert lean.fits(TEXTS, PICTURES) == reward.fits(TEXTS, PICTURES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"undrawn": 0}, "undrawn=0"),
        ({"undrawn": -math.inf}, "undrawn=-inf"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"story_text": "words"}, "story_text='words' is none of thought, prompt, both"),
        ({"weight": -1}, "weight=-1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        ImageReward("unread", **settings)


def test_files_are_checked(tmp_path):
    with pytest.raises(CheckpointError, match="holds no ImageReward.pt"):
        ImageReward(str(tmp_path))
    with pytest.raises(CheckpointError, match="has no tokenizer.json"):
        ImageReward(str(tmp_path / "gone.pt"))
    folder = image_reward_folder(tmp_path / "whole")
    with pytest.raises(CheckpointError, match=r"gone.pt is not a file"):
        ImageReward(str(tmp_path / "gone.pt"), tokenizer=str(folder))
    data = (folder / "ImageReward.pt").read_bytes()
    (folder / "ImageReward.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        ImageReward(str(folder))
