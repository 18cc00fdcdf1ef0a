"""CLIP models of both layouts against their own definition."""

import math

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from safetensors.torch import save_file
from transformers import CLIPConfig

from tests.rewards.published_models import open_clip_cosine, open_clip_state
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.rewards.clip_model import Clip
from unified_rl.rewards.clip_score import ClipScoreReward
from unified_rl.rewards.hps import HpsReward
from unified_rl.rewards.pick_score import PickScoreReward
from unified_rl.rewards.specimens import clip_folder

TEXTS = ("a red circle", "a photo of a blue square and a circle", "three", "x" * 100)
RNG = np.random.default_rng(0)
PICTURES = [
    RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    for size in ((24, 24), (40, 20), (32, 80), (24, 24))
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def open_clip(tmp_path_factory):
    """A folder of the laion layout that has open_clip's weights only, as `state_dict`."""
    folder = clip_folder(tmp_path_factory.mktemp("open_clip"))
    (folder / "model.safetensors").unlink()
    config = CLIPConfig.from_pretrained(folder)
    config.text_config.hidden_act = config.vision_config.hidden_act = "gelu"
    config.save_pretrained(folder)
    state = open_clip_state(config.text_config.vocab_size, 48)
    torch.save({"state_dict": state, "epoch": 3}, folder / "HPS.pt")
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    return folder


def by_hand(model, square):
    """Cosines by the definition, of pictures that `square` has made 32 x 32."""
    config = model.model.config
    state = open_clip_state(config.text_config.vocab_size, 48)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    cosines = []
    for text, picture in zip(TEXTS, PICTURES, strict=True):
        ids = torch.tensor([model.tokenizer(text, truncation=True, max_length=48)["input_ids"]])
        pixels = torch.tensor(np.asarray(square(PillowImage.fromarray(picture)))) / 255
        pixels = (pixels.permute(2, 0, 1) - mean) / std
        cosines.append(open_clip_cosine(state, ids, pixels[None]).item())
    return cosines


def middle(picture):
    width, height = (32 * side // min(picture.size) for side in picture.size)
    scaled = picture.resize((width, height), PillowImage.Resampling.BICUBIC)
    left, top = (width - 32) // 2, (height - 32) // 2
    return scaled.crop((left, top, left + 32, top + 32))


def whole(picture):
    return picture.resize((32, 32), PillowImage.Resampling.BILINEAR)


@pytest.mark.parametrize(("framing", "square"), [("crop", middle), ("squeeze", whole)])
def test_weights_of_open_clip(open_clip, framing, square):
    model = Clip(str(open_clip / "HPS.pt"), "clip", framing=framing, batch_size=3)
    want = by_hand(model, square)
    assert model.cosines(TEXTS, PICTURES) == pytest.approx(want, abs=1e-5)
    assert max(want) - min(want) > 0.05, "else it could not fail"
    folder = Clip(str(open_clip), "clip", framing=framing)
    assert folder.cosines(TEXTS, PICTURES) == pytest.approx(want, abs=1e-5)


def test_rewards_of_one_model(open_clip):
    path = str(open_clip / "HPS.pt")
    cosines = by_hand(Clip(path, "clip"), middle)
    for reward, factor in (
        (HpsReward(path), 1),
        (PickScoreReward(path), math.exp(1.5)),
        (ClipScoreReward(path, scale=2), 2),
    ):
        want = [factor * cosine for cosine in cosines]
        assert reward.fits(TEXTS, PICTURES) == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("reward", [HpsReward, PickScoreReward])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_score_does_not_depend_on_the_others(open_clip, reward, batch_size):
    judge = reward(str(open_clip / "HPS.pt"), batch_size=batch_size)
    together = judge.fits(TEXTS, PICTURES)
    alone = [judge.fits([text], [p])[0] for text, p in zip(TEXTS, PICTURES, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 4) for score in alone}) == 4


def test_the_processor_may_lie_elsewhere(clip, open_clip, tmp_path):
    want = PickScoreReward(str(clip)).fits(TEXTS, PICTURES)
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((clip / name).read_bytes())
    with pytest.raises(CheckpointError, match="pick_score.checkpoint="):
        PickScoreReward(str(tmp_path))
    assert PickScoreReward(str(tmp_path), processor=str(open_clip)).fits(TEXTS, PICTURES) == want
    (tmp_path / "HPS.pt").write_bytes((open_clip / "HPS.pt").read_bytes())
    alone = HpsReward(str(tmp_path / "HPS.pt"), processor=str(open_clip))
    assert alone.fits(TEXTS, PICTURES) == HpsReward(str(open_clip / "HPS.pt")).fits(TEXTS, PICTURES)


def test_a_policy_cannot_end_its_text(clip):
    model = Clip(str(clip), "clip")
    (written,) = model.tokenizer(["<|endoftext|>"], add_special_tokens=False)["input_ids"]
    letters = model.tokenizer.convert_tokens_to_ids(list("endoftex"))
    assert [token for token in written if token in letters][:8] == letters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.head.weight": torch.zeros(1)}, r"1 unknown \(visual.head.weight\)"),
        ({"ln_final.bias": None}, r"1 missing \(text_model.final_layer_norm.bias\)"),
        ({"visual.proj": torch.zeros(16, 8)}, r"visual_projection.weight .*\(8, 16\).*\(16, 16\)"),
        (
            {"transformer.resblocks.0.attn.in_proj_weight": torch.zeros(47, 16)},
            r"v_proj.weight is torch.float32 of shape \(15, 16\)",
        ),
        ({"transformer.resblocks.1.ln_1.bias": torch.zeros(16)}, "1 unknown"),
        ({"visual.proj": "words"}, "does not hold tensors by name"),
    ],
)
def test_every_name_is_accounted_for(open_clip, tmp_path, change, message):
    state = {**torch.load(open_clip / "open_clip_pytorch_model.bin"), **change}
    path = tmp_path / "HPS.pt"
    torch.save({name: value for name, value in state.items() if value is not None}, path)
    with pytest.raises(CheckpointError, match=message):
        HpsReward(str(path), processor=str(open_clip))


def test_safetensors_of_open_clip(open_clip, tmp_path):
    state = torch.load(open_clip / "open_clip_pytorch_model.bin")
    save_file(state, tmp_path / "open_clip_model.safetensors")
    model = Clip(str(tmp_path), "clip", processor=str(open_clip))
    assert model.cosines(TEXTS, PICTURES) == Clip(str(open_clip), "clip").cosines(TEXTS, PICTURES)


def test_hps_needs_the_right_activation(open_clip, clip):
    with pytest.raises(CheckpointError, match="hps.processor .* hidden_act='quick_gelu'"):
        HpsReward(str(open_clip / "HPS.pt"), processor=str(clip))


def test_settings_are_checked(open_clip):
    with pytest.raises(ConfigError, match="framing='pad' is none of crop, squeeze"):
        ClipScoreReward("unread", framing="pad")
    with pytest.raises(ConfigError, match="batch_size=0"):
        HpsReward("unread", batch_size=0)
    with pytest.raises(ConfigError, match="dtype='int8'"):
        HpsReward(str(open_clip / "HPS.pt"), dtype="int8")
    with pytest.raises(ConfigError, match="device='abacus'"):
        HpsReward(str(open_clip / "HPS.pt"), device="abacus")
    with pytest.raises(CheckpointError, match="pick_score.checkpoint=nowhere is not a folder"):
        PickScoreReward("nowhere")
    with pytest.raises(CheckpointError, match="hps.checkpoint=nowhere.pt is not a file"):
        HpsReward("nowhere.pt")


def test_open_clips_own_module(open_clip):
    """Runs where open_clip is installed."""
    library = pytest.importorskip("open_clip")
    model = Clip(str(open_clip), "clip")
    config = model.model.config
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    vision["mlp_ratio"] = 1
    text = {"context_length": 48, "vocab_size": config.text_config.vocab_size, "width": 16}
    text |= {"heads": 2, "layers": 1, "mlp_ratio": 1}
    own = library.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()
    own.load_state_dict(torch.load(open_clip / "open_clip_pytorch_model.bin"))
    padded = model.tokenizer(
        list(TEXTS), padding="max_length", truncation=True, max_length=48, return_tensors="pt"
    )
    pixels = model._pixels(PICTURES)
    with torch.no_grad():
        seen = own.encode_image(pixels, normalize=True)
        read = own.encode_text(padded["input_ids"], normalize=True)
    want = (seen * read).sum(-1).tolist()
    assert model.cosines(TEXTS, PICTURES) == pytest.approx(want, abs=1e-5)
