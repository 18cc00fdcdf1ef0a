"""VILA-U's image tokenizer and its training, on 8 px canvases with 2 px patches."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import JanusVQVAEConfig, SiglipVisionConfig, SiglipVisionModel
from transformers.models.janus.modeling_janus import JanusVQVAEResnetBlock

from unified_rl.models.vila_u.codec import (
    Codebook,
    ResidualQuantizer,
    RqCodec,
    RqCodecConfig,
    RqResnetBlock,
)
from unified_rl.models.vila_u.codec_training import RqObjective

GRID, PATCH, DEPTH, SIZE = 4, 2, 3, 12
CONFIG = RqCodecConfig(SIZE, DEPTH, True, 16, 32, (1, 1), 1, (), GRID * PATCH)
VISION = SiglipVisionConfig(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=GRID * PATCH,
    patch_size=PATCH,
    hidden_act="gelu_pytorch_tanh",
)
INKS = torch.tensor([[0.7, -0.8, -0.8], [-0.8, 0.3, -0.6], [-0.7, -0.5, 0.7], [0.9, 0.6, -0.8]])


def toy_codec(config: RqCodecConfig = CONFIG) -> RqCodec:
    torch.manual_seed(0)
    return RqCodec(VISION, config).eval()


def canvases(count: int, seed: int = 0) -> Tensor:
    """(count, 3, 8, 8): white, one patch in four filled with an ink."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.cat([torch.ones(1, 3), INKS])
    inked = torch.rand(count, GRID, GRID, generator=generator) < 0.25
    kinds = torch.randint(1, len(colors), inked.shape, generator=generator) * inked
    patches = colors[kinds].permute(0, 3, 1, 2)
    return patches.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


def random_codes(*shape: int) -> Tensor:
    return torch.randint(SIZE, shape, generator=torch.Generator().manual_seed(1))


def by_hand(shared: bool = True) -> ResidualQuantizer:
    """Three codes in the plane; the row that pads would fit the last residual below exactly."""
    quantizer = ResidualQuantizer(3, 2, DEPTH, shared)
    rows = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0], [-0.5, -0.2]])
    for book in quantizer.codebooks:
        book.weight.data.copy_(rows)
    return quantizer


# (3.5, .8) is .89 from (4, 0), which leaves (-.5, .8); that is .29 from (0, 1), which leaves
# (-.5, -.2); that is .29 from (0, 0) and 1.69 from (0, 1).
LATENT = torch.tensor([[3.5, 0.8]])
CODES = [[1, 2, 0]]


# -- quantisation ----------------------------------------------------------------------------------


def test_each_depth_quantises_what_is_left() -> None:
    quantizer = by_hand()
    codes = quantizer.codes(LATENT)
    assert codes.tolist() == CODES
    assert quantizer.vectors(codes).tolist() == [[[4, 0], [0, 1], [0, 0]]]


def test_the_row_that_pads_is_never_chosen() -> None:
    book = Codebook(2, 2)
    book.weight.data.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]]))
    assert book.nearest(torch.tensor([[0.1, 0.1], [-0.1, -0.1]])).tolist() == [0, 1]


def test_depths_that_share_nothing_have_books_of_their_own() -> None:
    quantizer = by_hand(shared=False)
    assert len(quantizer.codebooks) == DEPTH
    quantizer.codebooks[1].weight.data[0] = torch.tensor([-0.5, 0.7])  # nearer than (0, 1)
    codes = quantizer.codes(LATENT)
    # (-.5, .8) - (-.5, .7) leaves (0, .1)
    assert codes.tolist() == [[1, 0, 0]]
    torch.testing.assert_close(quantizer.vectors(codes).sum(-2), torch.tensor([[3.5, 0.7]]))


def test_vectors_of_the_first_depths_need_no_others() -> None:
    quantizer = by_hand()
    assert torch.equal(
        quantizer.vectors(torch.tensor([[1, 2]])), quantizer.vectors(torch.tensor(CODES))[:, :2]
    )


def test_straight_through_gives_the_sum_and_passes_the_gradient() -> None:
    quantizer, latent = by_hand(), LATENT.clone().requires_grad_()
    seen = quantizer.straight_through(latent)
    assert seen.tolist() == [[4, 1]]
    (seen * torch.tensor([2.0, 3.0])).sum().backward()
    assert latent.grad.tolist() == [[2, 3]]


def test_distances_by_hand() -> None:
    # The residuals are (-.5, .8), (-.5, -.2) and again (-.5, -.2): the means over both channels
    # .445, .145 and .145, and their mean .245.
    distances = by_hand().distances(LATENT, torch.tensor(CODES))
    assert distances.tolist() == [pytest.approx(0.245)]


# -- encoder and decoder ---------------------------------------------------------------------------


@torch.no_grad()
def test_features_are_those_before_the_last_layer() -> None:
    codec, whole = toy_codec(), SiglipVisionModel(VISION).eval()
    wanted = codec.encoder.state_dict()
    held = {name.removeprefix("vision_model."): w for name, w in whole.state_dict().items()}
    codec.encoder.load_state_dict({name: held[name] for name in wanted})
    pixels = canvases(2)
    hidden = whole(pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(codec.latents(pixels), hidden[-2])


@torch.no_grad()
def test_a_batch_encodes_like_each_image_alone() -> None:
    codec, pixels = toy_codec(), canvases(3)
    codes = codec.encode(pixels)
    assert codes.shape == (3, GRID**2, DEPTH)
    assert torch.equal(codes, torch.cat([codec.encode(image[None]) for image in pixels]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_of_another_size_are_stretched(dtype: torch.dtype) -> None:
    codec = toy_codec()
    codec.encoder = nn.Identity()
    wide = torch.ones(1, 3, 12, 32, dtype=dtype)
    wide[..., 16:] = -1  # the right half
    seen = codec.latents(wide)
    assert seen.shape == (1, 3, 8, 8)
    torch.testing.assert_close(seen[..., :3], torch.ones(1, 3, 8, 3, dtype=dtype))
    torch.testing.assert_close(seen[..., 5:], -torch.ones(1, 3, 8, 3, dtype=dtype))


def test_images_of_its_own_size_are_left_alone() -> None:
    codec = toy_codec()
    codec.encoder = nn.Identity()
    pixels = canvases(1)
    assert codec.latents(pixels) is pixels


@torch.no_grad()
def test_decoder_makes_a_patch_of_each_position() -> None:
    codec, codes = toy_codec(), random_codes(2, GRID**2, DEPTH)
    assert codec.config.enlargement == PATCH
    assert codec.decode(codes).shape == (2, 3, GRID * PATCH, GRID * PATCH)


@torch.no_grad()
def test_decoding_takes_the_sum_of_the_depths() -> None:
    codec, codes = toy_codec(), random_codes(1, GRID**2, DEPTH)
    table = codec.quantizer.codebooks[0].weight
    summed = table[codes[..., 0]] + table[codes[..., 1]] + table[codes[..., 2]]
    torch.testing.assert_close(codec.decode(codes), codec.decode_vectors(summed))


@torch.no_grad()
def test_positions_fill_the_grid_row_by_row() -> None:
    codec = toy_codec()
    codec.post_quant_conv, codec.decoder = nn.Identity(), nn.Identity()
    vectors = torch.arange(4.0).view(1, 4, 1)
    assert codec.decode_vectors(vectors).tolist() == [[[[0, 1], [2, 3]]]]


@torch.no_grad()
def test_latents_are_resized_to_the_grid_of_the_decoder() -> None:
    codec = toy_codec(replace(CONFIG, decoder_grid=(6, 5)))
    codes = random_codes(1, GRID**2, DEPTH)
    assert codec.decode(codes).shape == (1, 3, 6 * PATCH, 5 * PATCH)
    codec.post_quant_conv, codec.decoder = nn.Identity(), nn.Identity()
    codec.config = replace(CONFIG, decoder_grid=(1, 4))
    # The middles of 4 columns over 2 are at -.25, .25, .75 and 1.25 of the way from 0 to 1, and
    # what lies outside keeps the border's value.
    row = codec.decode_vectors(torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 4, 1))
    assert row.flatten().tolist() == [0, 0.25, 0.75, 1]


def test_state_has_the_published_names_and_sizes() -> None:
    vision = SiglipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=256,
        patch_size=16,
    )
    with torch.device("meta"):
        codec = RqCodec(vision, RqCodecConfig())
    shapes = {name: tuple(value.shape) for name, value in codec.state_dict().items()}
    assert shapes["quantizer.codebooks.0.weight"] == (16385, 1024)
    assert "quantizer.codebooks.1.weight" not in shapes  # one for all depths
    assert shapes["encoder.embeddings.position_embedding.weight"] == (256, 1024)
    assert "encoder.encoder.layers.22.mlp.fc1.weight" in shapes
    assert "encoder.encoder.layers.23.mlp.fc1.weight" not in shapes  # never run
    assert shapes["post_quant_conv.weight"] == (256, 1024, 1, 1)
    assert shapes["decoder.conv_in.weight"] == (512, 256, 3, 3)
    assert shapes["decoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)
    assert shapes["decoder.up.4.attn.2.q.weight"] == (512, 512, 1, 1)  # 256 / 2**4 = 16
    assert "decoder.up.3.attn.0.q.weight" not in shapes
    assert "decoder.up.4.block.2.conv2.weight" in shapes  # one block more than the encoder's 2
    assert "decoder.up.4.block.3.conv2.weight" not in shapes
    assert shapes["decoder.up.3.block.0.nin_shortcut.weight"] == (256, 512, 1, 1)
    assert "decoder.up.0.upsample.conv.weight" not in shapes


@torch.no_grad()
def test_residual_block_is_the_librarys_with_one_rounding_less() -> None:
    torch.manual_seed(0)
    ours, library = RqResnetBlock(32, 64), JanusVQVAEResnetBlock(JanusVQVAEConfig(), 32, 64)
    library.load_state_dict(ours.state_dict())
    hidden = torch.randn(4, 32, 8, 8)
    torch.testing.assert_close(ours(hidden), library(hidden))
    hidden, ours, library = hidden.bfloat16(), ours.bfloat16(), library.bfloat16()
    exact = copy.deepcopy(ours).double()(hidden.double())
    error, other = ((block(hidden).double() - exact).square().mean() for block in (ours, library))
    assert error < 0.97 * other  # .91 to .96 by seed


@torch.no_grad()
def test_bfloat16_goes_there_and_back() -> None:
    codec = toy_codec().bfloat16()
    codes = codec.encode(canvases(2).bfloat16())
    assert codes.dtype == torch.int64
    assert codec.decode(codes).dtype == torch.bfloat16


def test_config_reads_json() -> None:
    text = json.dumps({"channel_multiplier": [1, 2, 4], "decoder_grid": [24, 24]})
    config = RqCodecConfig(**json.loads(text))
    assert config.channel_multiplier == (1, 2, 4)
    assert config.decoder_grid == (24, 24)
    assert config.enlargement == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_channels": 48}, "base_channels=48 is not a multiple of 32"),
        ({"depth": 0}, "depth=0"),
        ({"codebook_size": 1}, "codebook_size=1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RqCodecConfig(**settings)


# -- training --------------------------------------------------------------------------------------


def train(objective: RqObjective, step_count: int, start: int = 0) -> list[float]:
    """The reconstruction loss of each step."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    losses = []
    objective.train()
    for step in range(start, start + step_count):
        terms = objective(canvases(8, step))
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        losses.append(terms.reconstruction.item())
    return losses


@pytest.fixture(scope="module")
def trained() -> tuple[RqObjective, list[float]]:
    objective = RqObjective(toy_codec())
    losses = train(objective, 100)
    return objective.eval(), losses


def test_training_reduces_the_error(trained: tuple[RqObjective, list[float]]) -> None:
    _, losses = trained
    assert losses[-1] < 0.5 * losses[0]


@torch.no_grad()
def test_codec_agrees_with_the_training_path(trained: tuple[RqObjective, list[float]]) -> None:
    objective, pixels = trained[0], canvases(4, seed=2000)
    terms = objective(pixels)
    assert torch.equal(terms.codes, objective.codec.encode(pixels))
    torch.testing.assert_close(terms.decoded, objective.codec.decode(terms.codes))


def test_all_but_the_codebooks_learn_by_gradient() -> None:
    objective = RqObjective(toy_codec())
    objective.train()(canvases(4)).loss.backward()
    for name, parameter in objective.named_parameters():
        if "quantizer" in name:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name


def test_codebooks_learn_by_averaging_alone() -> None:
    objective = RqObjective(toy_codec())
    before = objective.codec.quantizer.codebooks[0].weight.clone()
    with torch.no_grad():
        objective.eval()(canvases(4))
        assert torch.equal(objective.codec.quantizer.codebooks[0].weight, before)
        objective.train()(canvases(4))
    assert not torch.equal(objective.codec.quantizer.codebooks[0].weight, before)


def test_training_resumes_from_the_codec_alone() -> None:
    first = RqObjective(toy_codec())
    train(first, 2)
    second = RqObjective(copy.deepcopy(first.codec))
    second.load_state_dict(first.state_dict())
    assert train(first, 2, start=2) == train(second, 2, start=2)


def test_a_decay_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"ema_decay=1\.0 must be in \[0, 1\)"):
        RqObjective(toy_codec(), ema_decay=1.0)
