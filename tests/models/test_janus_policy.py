"""Janus behind the policy protocol: saved whole, refused clearly, faithful to the library."""

import copy
from dataclasses import replace

import pytest
import torch

from tests.toys import MICRO_JANUS, TEMPLATE, build
from tests.toys.samples import mixed, questions, stories
from unified_rl.core.behaviour import TEACHER, Behaviour
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.decoding.tape import Kind
from unified_rl.microworld.words import vocabulary
from unified_rl.models.janus.load import janus

BEHAVIOUR = Behaviour(max_text_tokens=6, max_image_count=2, guidance_scale=2.0)


@pytest.fixture(scope="module")
def policy():
    return build("janus")


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("janus")
    policy.save(folder)
    return folder


def seeded():
    return torch.Generator().manual_seed(0)


# -- saving ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_policy_scores_the_same_bits(policy, folder):
    loaded = janus(str(folder), template=TEMPLATE).eval()
    trajectory, _ = policy.sample(mixed(), BEHAVIOUR, seeded())
    assert torch.equal(loaded.logprobs(trajectory), policy.logprobs(trajectory))


@torch.no_grad()
def test_a_saved_policy_draws_the_same_tokens(policy, folder):
    loaded = janus(str(folder), template=TEMPLATE).eval()
    one, other = (p.sample(mixed(), BEHAVIOUR, seeded())[0] for p in (policy, loaded))
    assert torch.equal(one.tape["ids"], other.tape["ids"])


def test_a_saved_policy_keeps_codec_and_tokenizer(policy, folder):
    loaded = janus(str(folder), template=TEMPLATE)
    kept = loaded.codec.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in policy.codec.state_dict().items())
    assert loaded.tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    assert not any(parameter.requires_grad for parameter in loaded.codec.parameters())


def test_a_folder_that_does_not_exist_is_named(folder):
    with pytest.raises(CheckpointError, match="is not a folder"):
        janus(str(folder / "nothing"))


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="holds none of"):
        janus(str(tmp_path))


def test_truncated_weights_are_named(policy, tmp_path):
    policy.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a readable Janus checkpoint"):
        janus(str(tmp_path))


# -- building --------------------------------------------------------------------------------------


def test_a_template_word_the_tokenizer_lacks_is_named(folder):
    with pytest.raises(ConfigError, match="<nobody>"):
        janus(str(folder), template=replace(TEMPLATE, start="<nobody>"))


def test_grids_that_differ_are_refused():
    sizes = copy.deepcopy(MICRO_JANUS)
    sizes["codec"]["channel_multiplier"] = [1, 1, 1]  # reduces by 4, not by 8
    with pytest.raises(ConfigError, match="reduces by 4"):
        janus(None, sizes, words=vocabulary())


def test_no_checkpoint_needs_sizes():
    with pytest.raises(ConfigError, match="model.architecture"):
        janus(None)


def test_codebook_rows_have_unit_norm(policy):
    norms = policy.codec.quantize.embedding.weight.norm(dim=-1)
    assert (norms - 1).abs().max() < 1e-6


@torch.no_grad()
def test_the_codec_finds_the_code_of_greatest_cosine(policy):
    pixels = policy.pixels([sample.target[1] for sample in stories(3)])
    latents = policy.codec.quant_conv(policy.codec.encoder(pixels)).flatten(2).transpose(1, 2)
    codebook = policy.codec.quantize.embedding.weight
    cosines = torch.nn.functional.normalize(latents, dim=-1) @ codebook.T
    assert torch.equal(policy.encode_images(pixels)[..., 0], cosines.argmax(-1))


# -- faithful to the library -----------------------------------------------------------------------


@torch.no_grad()
def test_text_scores_equal_the_librarys(policy):
    gold = policy.encode(questions(1), seeded())
    ids, kind = gold.tape["ids"][..., 0], gold.tape["kind"]
    embeds = policy.janus.get_input_embeddings()(ids)
    shown = policy.janus.model.get_image_features(gold.tape["shown"][0], return_dict=True)
    embeds[kind == Kind.PIXEL] = shown.pooler_output[0]
    logits = policy.janus(inputs_embeds=embeds).logits.log_softmax(-1)
    for column in gold.action_mask[0, :, 0].nonzero().flatten().tolist():
        expected = logits[0, column - 1, ids[0, column]]
        assert policy.logprobs(gold)[0, column, 0] == pytest.approx(float(expected), abs=1e-5)


@torch.no_grad()
def test_image_scores_equal_the_librarys(policy):
    gold = policy.encode(stories(1), seeded())
    assert gold.behaviour == TEACHER
    ids, is_code = gold.tape["ids"][..., 0], gold.tape["kind"] == Kind.CODE
    embeds = policy.janus.get_input_embeddings()(ids)
    embeds[is_code] = policy.janus.prepare_embeddings_for_image_generation(ids[is_code])
    hidden = policy.janus.model.language_model(inputs_embeds=embeds).last_hidden_state
    logits = policy.janus.model.generation_head(hidden).log_softmax(-1)
    scores = policy.logprobs(gold)[0, :, 0]
    for column in is_code[0].nonzero().flatten().tolist():
        expected = logits[0, column - 1, ids[0, column]]
        assert scores[column] == pytest.approx(float(expected), abs=1e-5)


def test_seeing_does_not_go_through_the_codec(policy):
    blind = build("janus")
    with torch.no_grad():
        for parameter in blind.codec.parameters():
            parameter.zero_()
        gold = policy.encode(questions(1), seeded())
        assert torch.equal(blind.logprobs(gold), policy.logprobs(gold))
