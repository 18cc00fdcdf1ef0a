"""VILA-U behind the policy protocol: saved whole, refused clearly, faithful to its arithmetic."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.toys import MICRO_VILA_U, TEMPLATE, build
from tests.toys.samples import mixed, questions, stories
from unified_rl.core.behaviour import TEACHER, Behaviour, Sampling
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.core.trajectory import Modality
from unified_rl.decoding.sampling import log_distribution
from unified_rl.decoding.tape import Kind
from unified_rl.microworld.words import vocabulary
from unified_rl.models.vila_u.depth import DepthConfig, DepthReader, DepthTransformer
from unified_rl.models.vila_u.load import vila_u
from unified_rl.models.vila_u.model import VilaUConfig, VilaUModel
from unified_rl.models.vila_u.policy import VilaUPolicy

BEHAVIOUR = Behaviour(max_text_tokens=6, max_image_count=2, guidance_scale=2.0)
DEPTH, CODE_COUNT = MICRO_VILA_U["codec"]["depth"], MICRO_VILA_U["codec"]["codebook_size"]


@pytest.fixture(scope="module")
def policy():
    return build("vila_u")


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vila_u")
    policy.save(folder)
    return folder


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def codes_of(*shape):
    return torch.randint(CODE_COUNT, shape, generator=seeded())


# -- saving ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_policy_draws_and_scores_the_same_bits(policy, folder):
    loaded = vila_u(str(folder), template=TEMPLATE).eval()
    one, other = (p.sample(mixed(), BEHAVIOUR, seeded())[0] for p in (policy, loaded))
    assert torch.equal(one.tape["ids"], other.tape["ids"])
    assert torch.equal(loaded.logprobs(one), policy.logprobs(one))


def test_a_saved_policy_keeps_codec_and_tokenizer(policy, folder):
    loaded = vila_u(str(folder), template=TEMPLATE)
    kept = loaded.codec.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in policy.codec.state_dict().items())
    assert loaded.tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    assert not any(parameter.requires_grad for parameter in loaded.codec.parameters())


def test_a_folder_that_does_not_exist_is_named(folder):
    with pytest.raises(CheckpointError, match="is not a folder"):
        vila_u(str(folder / "nothing"))


def test_truncated_weights_are_named(policy, tmp_path):
    policy.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a readable"):
        vila_u(str(tmp_path))


# -- building --------------------------------------------------------------------------------------


def test_no_checkpoint_needs_sizes():
    with pytest.raises(ConfigError, match="model.architecture"):
        vila_u(None)


def test_a_template_word_the_tokenizer_lacks_is_named(folder):
    with pytest.raises(ConfigError, match="<nobody>"):
        vila_u(str(folder), template=replace(TEMPLATE, start="<nobody>"))


def test_grids_that_differ_are_refused():
    sizes = copy.deepcopy(MICRO_VILA_U)
    sizes["codec"]["channel_multiplier"] = [1, 1, 1]  # enlarges by 4, but patches are of 8 px
    with pytest.raises(ConfigError, match="enlarges by 4"):
        vila_u(None, sizes, words=vocabulary())


def test_heads_that_do_not_divide_the_width_are_named():
    sizes = copy.deepcopy(MICRO_VILA_U)
    sizes["depth"]["head_count"] = 5
    with pytest.raises(ConfigError, match="head_count=5 does not divide width=48"):
        vila_u(None, sizes, words=vocabulary())


def other_decoder(policy, **codec):
    """A policy with the same tokenizer, and a decoder of other sizes."""
    kept = policy.vila_u.config
    config = VilaUConfig(
        text_config=kept.text_config,
        vision_config=kept.vision_config,
        codec_config={**kept.codec_config, **codec},
        depth_config=kept.depth_config,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    return VilaUPolicy(VilaUModel(config), policy.tokenizer, policy.template).eval()


def test_the_declared_size_is_of_what_is_drawn(policy):
    assert policy.capabilities.image_size == 24  # 3 positions, each enlarged by 8
    assert other_decoder(policy, decoder_grid=(4, 4)).capabilities.image_size == 32
    small = other_decoder(policy, channel_multiplier=(1, 1))
    assert small.capabilities.image_size == 6
    assert small.capabilities.image_positions == 9


def test_a_grid_that_is_no_square_is_refused(policy):
    with pytest.raises(ConfigError, match=r"decoder_grid=\(4, 3\)"):
        other_decoder(policy, decoder_grid=(4, 3))


def test_what_is_drawn_smaller_than_seen_can_be_seen(policy):
    small = other_decoder(policy, channel_multiplier=(1, 1))
    sample = Sample("drawn", Task.TEXT_TO_IMAGE, (Text("the red circle"),))
    _, (completion,) = small.sample([sample], BEHAVIOUR, seeded())
    (drawn,) = completion.images
    assert drawn.shape == (6, 6, 3)
    question = Sample("asked", Task.UNDERSTANDING, (Image(drawn), Text("the circle")))
    _, (answer,) = small.sample([question], BEHAVIOUR, seeded())
    assert isinstance(answer.segments[0], Text)


# -- modes and parts -------------------------------------------------------------------------------


def test_the_codec_stays_in_eval_mode(policy):
    trained = copy.deepcopy(policy).train()
    assert trained.vila_u.language_model.training
    assert not any(module.training for module in trained.codec.modules())


def test_every_parameter_is_in_exactly_one_group(policy):
    grouped = [
        id(parameter)
        for modules in policy.parameter_groups().values()
        for module in modules
        for parameter in module.parameters()
    ]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in policy.parameters()}


def test_context_is_what_the_language_model_was_built_for(policy):
    assert policy.context_length == policy.vila_u.config.text_config.max_position_embeddings


# -- seeing ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_codes_are_embedded_as_their_projected_sum(policy):
    codes = codes_of(2, 5, DEPTH)
    table = policy.codec.quantizer.codebooks[0].weight
    summed = sum(table[codes[..., depth]] for depth in range(DEPTH))
    torch.testing.assert_close(policy.embed_codes(codes), policy.vila_u.projector(summed))


@torch.no_grad()
def test_what_is_seen_has_the_bits_of_what_is_drawn(policy):
    pixels = policy.pixels([sample.target[1] for sample in stories(3)])
    seen, drawn = policy.embed_pixels(pixels), policy.embed_codes(policy.encode_images(pixels))
    assert torch.equal(seen, drawn)


def test_what_is_seen_teaches_an_encoder_that_is_not_frozen(policy):
    pixels = policy.pixels([stories(1)[0].target[1]])
    assert policy.codec.encoder.embeddings.patch_embedding.weight.grad is None
    taught = copy.deepcopy(policy)
    taught.codec.encoder.requires_grad_(True)
    taught.embed_pixels(pixels).square().sum().backward()
    assert taught.codec.encoder.embeddings.patch_embedding.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in taught.codec.quantizer.parameters())


@torch.no_grad()
def test_images_decode_into_their_range(policy):
    pixels = policy.decode_images(codes_of(2, policy.image_positions, DEPTH))
    assert pixels.shape == (2, 3, 24, 24)
    sample = Sample("drawn", Task.TEXT_TO_IMAGE, (Text("the red circle"),))
    _, (completion,) = policy.sample([sample], BEHAVIOUR, seeded())
    assert completion.images[0].dtype == np.uint8


# -- the depth transformer -------------------------------------------------------------------------


@torch.no_grad()
def test_depth_by_depth_equals_one_pass(policy):
    states, codes = torch.randn(4, 32, generator=seeded()), codes_of(4, DEPTH)
    whole = policy.code_logits(states, None, codes[:, :-1], TEACHER)
    assert whole.shape == (4, DEPTH, CODE_COUNT)
    for depth in range(DEPTH):
        last = policy.code_logits(states, None, codes[:, :depth], TEACHER)[:, -1]
        torch.testing.assert_close(last, whole[:, depth])
    reader = DepthReader(policy.vila_u.depth_transformer, states)
    vectors = policy.codec.quantizer.vectors(codes)
    for depth in range(DEPTH):
        torch.testing.assert_close(reader.logits(), whole[:, depth])
        reader.push(vectors[:, depth])


@torch.no_grad()
def test_a_depth_reads_the_sum_of_the_vectors_before_it():
    torch.manual_seed(0)
    transformer = DepthTransformer(DepthConfig(8, 1, 2), 4, 3, 3, 5)
    for block in transformer.head_transformer["blocks"]:
        block.attn.proj.weight.zero_()  # then no depth hears of another
        block.attn.proj.bias.zero_()
    state, vectors = torch.randn(2, 4), torch.randn(2, 2, 3)
    logits = transformer(state, vectors)
    # Vectors in the other order have the same sum, and so have depths 0 and 2 the same inputs.
    swapped = transformer(state, vectors.flip(1))
    torch.testing.assert_close(logits[:, 0], swapped[:, 0])
    torch.testing.assert_close(logits[:, 2], swapped[:, 2])
    assert not torch.allclose(logits[:, 1], swapped[:, 1])
    assert torch.allclose(transformer(state, vectors + 1)[:, 0], logits[:, 0])
    assert not torch.allclose(transformer(state + 1, vectors)[:, 0], logits[:, 0])
    assert torch.allclose(transformer(state + 1, vectors)[:, 1:], logits[:, 1:])


@torch.no_grad()
def test_guidance_is_of_each_depths_logits(policy):
    states, twins = torch.randn(2, 3, 32, generator=seeded())
    codes = codes_of(3, DEPTH - 1)
    plain = policy.code_logits(states, None, codes, TEACHER)
    unconditional = policy.code_logits(twins, None, codes, TEACHER)
    guided = policy.code_logits(states, twins, codes, Behaviour(guidance_scale=3.0))
    torch.testing.assert_close(guided, 3 * plain - 2 * unconditional)


@torch.no_grad()
def test_drawn_codes_are_scored_alike(policy):
    states, twins = torch.randn(2, 5, 32, generator=seeded())
    behaviour = Behaviour(image=Sampling(0.7, top_k=5, top_p=0.9), guidance_scale=3.0)
    codes, logprobs, support = policy.draw_codes(states, twins, behaviour, seeded())
    assert codes.shape == logprobs.shape == (5, DEPTH)
    assert support.shape == (5, DEPTH, CODE_COUNT)
    assert (support.sum(-1) <= 5).all()
    assert support.gather(-1, codes[..., None]).all()
    scores = policy.score_codes(states, twins, codes, behaviour, support)
    torch.testing.assert_close(scores, logprobs)


@torch.no_grad()
def test_greedy_takes_the_most_likely_code_of_each_depth(policy):
    states = torch.randn(5, 32, generator=seeded())
    codes, logprobs, _ = policy.draw_codes(
        states, None, Behaviour(image=Sampling(temperature=0.0)), seeded()
    )
    logits = policy.code_logits(states, None, codes[:, :-1], TEACHER)
    assert torch.equal(codes, logits.argmax(-1))
    assert (logprobs == 0).all()


def test_top_k_comes_before_top_p():
    # Of .4, .3, .2, .1 the 2 likeliest are left, as 4/7 and 3/7; .5 of them is the first alone.
    # The other way round .5 would be .4 and .3, and both be left.
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    kept = log_distribution(logits, Sampling(top_k=2, top_p=0.5)).exp()
    assert kept.tolist() == [1, 0, 0, 0]
    # Temperature comes first of all: at .5 the squares, .16, .09, .04 and .01 of .3; .8 of them
    # are the first two, and without it .4 + .3 < .8 the first three.
    kept = log_distribution(logits, Sampling(0.5, top_p=0.8)).exp()
    torch.testing.assert_close(kept, torch.tensor([0.64, 0.36, 0.0, 0.0]))


# -- scoring ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_text_scores_equal_the_librarys(policy):
    gold = policy.encode(questions(1), seeded())
    ids, kind = gold.tape["ids"][..., 0], gold.tape["kind"]
    embeds = policy.vila_u.get_input_embeddings()(ids)
    embeds[kind == Kind.PIXEL] = policy.embed_pixels(gold.tape["shown"][0])[0]
    logits = policy.vila_u.language_model(inputs_embeds=embeds).logits.log_softmax(-1)
    scores = policy.logprobs(gold)[0, :, 0]
    for column in gold.action_mask[0, :, 0].nonzero().flatten().tolist():
        expected = logits[0, column - 1, ids[0, column]]
        assert scores[column] == pytest.approx(float(expected), abs=1e-5)


@torch.no_grad()
def test_a_position_is_scored_by_the_state_before_it(policy):
    gold = policy.encode(stories(1), seeded())
    ids, is_code = gold.tape["ids"], gold.tape["kind"] == Kind.CODE
    embeds = policy.vila_u.get_input_embeddings()(torch.where(is_code, 0, ids[..., 0]))
    embeds[is_code] = policy.embed_codes(ids[is_code])
    hidden = policy.vila_u.language_model.model(inputs_embeds=embeds).last_hidden_state
    scores = policy.logprobs(gold)
    for column in is_code[0].nonzero().flatten().tolist():
        vectors = policy.codec.quantizer.vectors(ids[0, column, :-1])[None]
        logits = policy.vila_u.depth_transformer(hidden[0, column - 1][None], vectors)
        expected = logits.log_softmax(-1)[0, range(DEPTH), ids[0, column]]
        torch.testing.assert_close(scores[0, column], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_image_has_a_score_for_each_of_its_codes(policy):
    gold = policy.encode(stories(1), seeded())
    images = sum(isinstance(segment, Image) for segment in stories(1)[0].target)
    count = int(gold.mask_of(Modality.IMAGE).sum())
    assert count == images * policy.image_positions * DEPTH
    scores = policy.logprobs(gold)[gold.mask_of(Modality.IMAGE)]
    assert (scores < 0).all()
