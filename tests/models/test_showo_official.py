"""Show-o from the authors' own folders: every tensor placed, ids as published, and back."""

import json

import pytest
import torch
from transformers import PhiConfig

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.models.key_map import Ignored, build_empty
from unified_rl.models.showo.codec import LfqCodecConfig
from unified_rl.models.showo.model import ShowoConfig, ShowoModel
from unified_rl.models.showo.official import (
    CODEC_KEY_MAP,
    KEY_MAP,
    export,
    official_showo,
)
from unified_rl.models.showo.official_prompt import TASK_TOKENS, official_template
from unified_rl.models.specimens.showo import (
    PUBLISHED_CODEC,
    PUBLISHED_PHI,
    SETTINGS,
    WORDS,
    codec_shapes,
    codec_state,
    language_shapes,
    language_state,
    load,
    write_folders,
    write_tokenizer,
)
from unified_rl.models.weights import FolderWeights


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("showo"))


@pytest.fixture(scope="module")
def policy(folders):
    return load(folders)


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [".safetensors", "shards"])
def test_every_layout_gives_the_same_model(policy, tmp_path, layout):
    found = load(write_folders(tmp_path, layout=layout)).showo.state_dict()
    expected = policy.showo.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_every_tensor_keeps_its_name_below_its_part(policy):
    found = policy.showo.state_dict()
    expected = {
        "language_model." + n.removeprefix("showo."): t.float() for n, t in language_state().items()
    }
    expected |= {f"codec.{name}": tensor for name, tensor in codec_state().items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_integers_stay_integers_in_bfloat16(folders):
    model = load(folders, dtype="bfloat16").showo
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.codec.quantize.power_vals.tolist() == [8, 4, 2, 1]


def test_frequencies_of_an_old_file_are_ignored_for_a_reason():
    entry, _ = KEY_MAP.find("showo.model.layers.3.self_attn.rotary_emb.inv_freq")
    assert isinstance(entry, Ignored) and "configuration" in entry.reason


def test_sizes_come_from_both_configurations(policy):
    text = policy.showo.config.text_config
    assert (text.hidden_size, text.vocab_size, text.qk_layernorm) == (32, 35, True)
    assert policy.capabilities.image_size == 6  # 3 x 3 positions of 2 x 2 px
    assert policy.code_offset == 18  # 8 words and 10 new tokens


def test_a_saved_policy_is_read_without_the_other_folders(policy, tmp_path):
    policy.save(tmp_path)
    again = official_showo(str(tmp_path))
    expected = policy.showo.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in again.showo.state_dict().items())
    assert again.template == policy.template


@torch.no_grad()
def test_an_official_policy_draws(policy):
    ask = Sample("0", Task.TEXT_TO_IMAGE, (Text("a red circle"),))
    generator = torch.Generator().manual_seed(0)
    _, (drawn,) = policy.sample([ask], Behaviour(guidance_scale=2.0), generator)
    assert drawn.segments[0].pixels.shape == (6, 6, 3)


# -- tokens ----------------------------------------------------------------------------------------


def test_new_tokens_take_the_published_order(policy):
    # published: [PAD] 50295, <|soi|> 50296 ... <|v2v|> 50303, and <|lvg|> 50304, here the trigger
    names = ["[PAD]", *TASK_TOKENS[:-1], "<vis>"]
    assert policy.tokenizer.convert_tokens_to_ids(names) == list(range(8, 18))
    assert (policy.pad_id, policy.begin_of_image_id, policy.end_of_image_id) == (8, 9, 10)
    assert policy.start_id == policy.end_of_text_id == 0


def test_a_prompt_is_laid_out_as_the_authors_do(policy):
    ask = Sample("0", Task.TEXT_TO_IMAGE, (Text("a red circle"),))
    # [t2i] 13, [bos] 0, words 2 3 4, [eos] 0; the sampler adds [soi] itself
    assert policy.prompt_ids(ask) == [13, 0, 2, 3, 4, 0]
    assert [piece.text for piece in official_template().twin_pieces()[::2]] == [
        "<|t2i|>",
        "<|endoftext|>",
    ]


def test_a_long_prompt_is_cut_on_demand(folders):
    # [t2i] 13, then four: [bos] 0, two words of five, [eos] 0
    ask = Sample("0", Task.TEXT_TO_IMAGE, (Text("a red circle a red"),))
    assert load(folders, text_limit=4).prompt_ids(ask) == [13, 0, 2, 3, 0]


# -- exporting -------------------------------------------------------------------------------------


def test_an_untrained_model_is_exported_bit_for_bit(policy, folders, tmp_path):
    assert export(policy.showo, folders["checkpoint"], tmp_path / "out") == ("codec",)
    assert export(policy.showo, folders["codec"], tmp_path / "codec") == ("language_model",)
    for folder, expected in (("out", language_state()), ("codec", codec_state())):
        weights = FolderWeights(tmp_path / folder)
        for name, tensor in expected.items():
            read = weights.read(name)
            assert read.dtype == tensor.dtype and torch.equal(read, tensor), name
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == SETTINGS


@torch.no_grad()
def test_a_trained_model_comes_back(folders, tmp_path):
    policy = load(folders)
    policy.showo.language_model.lm_head.bias.add_(0.5)
    export(policy.showo, folders["checkpoint"], tmp_path / "out")
    found = FolderWeights(tmp_path / "out").read("showo.lm_head.bias")
    assert torch.equal(found, (language_state()["showo.lm_head.bias"].float() + 0.5).bfloat16())


# -- bad input -------------------------------------------------------------------------------------


def refused(folders, *words):
    with pytest.raises(CheckpointError) as caught:
        load(folders)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def test_numbers_that_do_not_add_up_are_refused(tmp_path):
    folders = write_folders(tmp_path, {**SETTINGS, "vocab_size": 40})
    refused(folders, "vocabulary mismatch", "vocab_size=40", "llm_vocab_size=8", "make 35")


def test_a_head_of_another_size_names_both_numbers(tmp_path):
    settings = {**SETTINGS, "vocab_size": 36, "llm_vocab_size": 9}
    folders = write_folders(tmp_path, settings)
    write_tokenizer(folders["tokenizer"], (*WORDS, "green"))
    refused(folders, "pytorch_model.bin", "has 35 rows", "vocab_size=36", "set it to 35")


def test_the_tokenizer_of_another_model_is_refused(tmp_path):
    folders = write_folders(tmp_path)
    write_tokenizer(folders["tokenizer"], WORDS[:-1])
    refused(folders, folders["tokenizer"], "has 7 tokens", "llm_vocab_size=8", "phi-1_5")


def test_another_family_is_refused(tmp_path):
    folders = write_folders(tmp_path, {"model_type": "multi_modality"})
    refused(folders, folders["checkpoint"], "'multi_modality'", "not 'showo'", "the model=")


def test_a_codebook_of_another_size_is_refused(tmp_path):
    settings = {**SETTINGS, "codebook_size": 8, "vocab_size": 27}
    refused(write_folders(tmp_path, settings), "codebook_size=8", "the 16 codes")


def test_an_eye_that_is_not_used_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match=r"w_clip_vit=false, so model\.vision must be null"):
        load(folders, vision=str(tmp_path))


def test_folders_that_are_not_given_are_asked_for(folders):
    with pytest.raises(ConfigError, match=r"model\.codec .* and model\.tokenizer .* are needed"):
        official_showo(str(folders["checkpoint"]))


def test_swapped_folders_are_told(tmp_path):
    folders = write_folders(tmp_path)
    folders["codec"] = folders["checkpoint"]
    refused(folders, folders["codec"], "unknown (", "missing (codec.")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_lost_file_of_the_language_model_is_told(tmp_path, name):
    folders = write_folders(tmp_path)
    (folders["tokenizer"] / name).unlink()
    refused(folders, folders["tokenizer"])


# -- published sizes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    text = PhiConfig(vocab_size=58498, qk_layernorm=True, **PUBLISHED_PHI)
    return build_empty(lambda: ShowoModel(ShowoConfig(text_config=text)))


def test_a_full_model_has_the_published_parameter_count(published):
    # q, k, v, o with biases; two LayerNorms of 64; fc1 and fc2 with biases; one LayerNorm
    d, inner = 2048, 8192
    layer = 4 * (d * d + d) + 2 * 2 * 64 + (2 * d * inner + inner + d) + 2 * d
    expected = 24 * layer + 2 * 58498 * d + 58498 + 2 * d  # embeddings, head with bias, last norm
    found = sum(p.numel() for p in published.language_model.parameters())
    assert found == expected
    # with the projector of the variant with CLIP, 1024 -> 2048 -> 2048, the published float32 file
    # is listed with 5.4 GB of 2^30 bytes
    projector = 1024 * d + d + d * d + d
    assert round(4 * (found + projector) / 2**30, 1) == 5.4


def test_a_full_model_takes_exactly_the_official_names(published):
    names = {
        **dict.fromkeys(language_shapes(PUBLISHED_PHI, 58498), KEY_MAP),
        **dict.fromkeys(codec_shapes(PUBLISHED_CODEC), CODEC_KEY_MAP),
    }
    targets = [target for name, keys in names.items() for target in keys.find(name)[1]]
    assert sorted(targets) == sorted(published.state_dict())
    shapes = codec_shapes(PUBLISHED_CODEC)
    found = published.codec.state_dict()
    assert all(tuple(found[name].shape) == shape for name, shape in shapes.items())
    assert LfqCodecConfig().code_count == 8192
