"""Show-o's image tokenizer and its training, on 8 px canvases with 2 px patches."""

import json
from math import log

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unified_rl.models.showo.codec import LfqCodec, LfqCodecConfig
from unified_rl.models.showo.codec_training import LfqObjective, entropy_penalty

BITS, GRID, PATCH = 6, 4, 2
INKS = torch.tensor([[0.7, -0.8, -0.8], [-0.8, 0.3, -0.6], [-0.7, -0.5, 0.7], [0.9, 0.6, -0.8]])
KINDS = 1 + len(INKS)  # the ground and one patch of each ink


def toy_codec(bits: int = BITS) -> LfqCodec:
    torch.manual_seed(0)
    ones = [1, 1]
    return LfqCodec(LfqCodecConfig(bits, 32, ones, ones, ones, ones, image_size=GRID * PATCH))


def canvases(count: int, seed: int = 0) -> Tensor:
    """(count, 3, 8, 8): white, one patch in four filled with an ink."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.cat([torch.ones(1, 3), INKS])
    inked = torch.rand(count, GRID, GRID, generator=generator) < 0.25
    kinds = torch.randint(1, KINDS, inked.shape, generator=generator) * inked
    patches = colors[kinds].permute(0, 3, 1, 2)
    return patches.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


def random_codes(*shape: int) -> Tensor:
    return torch.randint(2**BITS, shape, generator=torch.Generator().manual_seed(1))


def train(objective: LfqObjective, step_count: int, start: int = 0) -> list[float]:
    """The reconstruction loss of each step."""
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3)
    losses = []
    for step in range(start, start + step_count):
        terms = objective(canvases(8, step))
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        losses.append(terms.reconstruction.item())
    return losses


@pytest.fixture(scope="module")
def trained() -> tuple[LfqObjective, list[float]]:
    objective = LfqObjective(toy_codec())
    losses = train(objective, 100)
    return objective.eval(), losses


def test_signs_make_codes_with_the_first_channel_highest() -> None:
    latents = torch.tensor([[0.1, -5.0, 2.0, 0.0], [-1.0, -1.0, -1.0, 3.0]])  # (2 positions, bits)
    codes = toy_codec(bits=4).codes(latents.T.view(1, 4, 1, 2))
    assert codes.tolist() == [[8 + 2, 1]]  # + - + (0 is no +) and - - - +


def test_codes_fill_the_grid_row_by_row() -> None:
    vectors = toy_codec(bits=4).codes_to_vectors(torch.tensor([[10, 0, 15, 1, 2, 4]]), (2, 3))
    assert vectors.shape == (1, 4, 2, 3)
    assert vectors[0, :, 0, 0].tolist() == [1, -1, 1, -1]  # 10 = 1010
    assert vectors[0, :, 0, 2].tolist() == [1, 1, 1, 1]
    assert vectors[0, :, 1, 0].tolist() == [-1, -1, -1, 1]


def test_codes_survive_their_vectors() -> None:
    codec = toy_codec()
    codes = torch.arange(2**BITS)[None]
    assert torch.equal(codec.codes(codec.codes_to_vectors(codes)), codes)


def test_state_has_the_published_names_and_the_published_sizes() -> None:
    with torch.device("meta"):
        codec = LfqCodec(LfqCodecConfig())
    shapes = {name: tuple(value.shape) for name, value in codec.state_dict().items()}
    assert shapes["quantize.embedding"] == (8192, 13)
    assert shapes["quantize.power_vals"] == (13,)
    assert shapes["encoder.quant_conv.weight"] == shapes["decoder.post_quant_conv.weight"]
    assert shapes["encoder.down.1.block.0.nin_shortcut.weight"] == (256, 128, 1, 1)
    assert shapes["encoder.down.3.downsample.conv.weight"] == (512, 512, 3, 3)
    assert "encoder.down.4.block.3.conv2.weight" in shapes  # blocks 4 3 4 3 4
    assert "encoder.down.4.downsample.conv.weight" not in shapes
    assert shapes["decoder.conv_in.weight"] == (512, 13, 3, 3)
    assert shapes["decoder.up.4.upsample.conv.weight"] == (512, 512, 3, 3)
    assert shapes["decoder.up.3.block.0.conv1.weight"] == (256, 512, 3, 3)
    assert "decoder.up.3.block.4.conv1.weight" not in shapes  # blocks 4 4 3 4 3
    assert "decoder.up.0.upsample.conv.weight" not in shapes


def test_decoder_runs_from_the_last_level_to_the_first() -> None:
    config = LfqCodecConfig(3, 32, (1, 2, 2), (1, 1, 1), (1, 1, 2), (2, 1, 1), image_size=16)
    codec = LfqCodec(config).eval()
    pixels = torch.rand(1, 3, 8, 24)
    codes = codec.encode(pixels)
    assert codes.shape == (1, 2 * 6)
    assert codec.decode(codes, (2, 6)).shape == pixels.shape


def test_codes_that_make_no_square_need_a_shape() -> None:
    with pytest.raises(ValueError, match="12 codes do not fill 3 x 3"):
        toy_codec().decode(random_codes(1, 12))


def test_batch_encodes_like_each_image_alone() -> None:
    codec, pixels = toy_codec().eval(), canvases(3)
    alone = torch.cat([codec.encode(image[None]) for image in pixels])
    assert torch.equal(codec.encode(pixels), alone)


def test_soft_decode_of_certainty_is_decode() -> None:
    codec, codes = toy_codec().eval(), random_codes(2, 6)
    weights = functional.one_hot(codes, 2**BITS).float()
    torch.testing.assert_close(codec.decode_soft(weights, (2, 3)), codec.decode(codes, (2, 3)))


def test_soft_decode_takes_the_expected_vector() -> None:
    codec = toy_codec(bits=2).eval()
    weights = torch.zeros(1, 4, 4)
    weights[..., 0b01], weights[..., 0b11] = 0.25, 0.75
    # - + and + +: the first bit averages .75 - .25 = .5
    vectors = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    torch.testing.assert_close(codec.decode_soft(weights), codec.decode_vectors(vectors))


def test_pixels_have_a_gradient_in_soft_weights() -> None:
    codec = toy_codec().eval()
    weights = torch.full((1, 4, 2**BITS), 2.0**-BITS, requires_grad=True)
    codec.decode_soft(weights).square().sum().backward()
    assert (weights.grad.abs().amax(-1) > 0).all()


def test_straight_through_gives_signs_and_passes_the_gradient() -> None:
    latents = torch.tensor([0.5, -0.25, 0.0]).requires_grad_()
    signs = toy_codec().straight_through(latents)
    assert signs.tolist() == [1.0, -1.0, -1.0]
    (signs * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert latents.grad.tolist() == [1.0, 2.0, 3.0]


def test_published_losses_by_hand() -> None:
    codec = toy_codec(bits=1)
    # sigmoid(4 z) is .8 and .4 at these latents; the mean over positions is .6.
    latents = torch.tensor([log(0.8 / 0.2), log(0.4 / 0.6)]).view(1, 1, 1, 2) / 4
    losses = codec.lfq_losses(latents)

    def entropy(p: float) -> float:
        return -p * log(p) - (1 - p) * log(1 - p)

    sure = (entropy(0.8) + entropy(0.4)) / 2
    assert losses.entropy.item() == pytest.approx(0.1 * (sure - entropy(0.6)), rel=1e-5)
    # Distances 1 - .34657 and 1 - .10137; the weight is .1 (1 + .25).
    assert losses.quantizer.item() == pytest.approx(0.125 * (0.65343**2 + 0.89863**2) / 2, rel=1e-4)


def test_published_losses_of_extreme_latents_are_finite() -> None:
    latents = torch.tensor([-200.0, -150.0]).view(1, 1, 1, 2).requires_grad_()
    losses = toy_codec(bits=1).lfq_losses(latents)
    sum(losses).backward()
    assert losses.entropy.item() == pytest.approx(0.0, abs=1e-5)
    assert latents.grad.isfinite().all()


def test_bfloat16_keeps_tables_exact() -> None:
    codec = toy_codec().bfloat16().eval()
    codes = codec.encode(canvases(2).bfloat16())
    assert codes.dtype == torch.int64
    assert codec.decode(codes).dtype == torch.bfloat16
    weights = functional.one_hot(codes, 2**BITS).float()
    assert torch.equal(codec.decode_soft(weights), codec.decode(codes))
    assert torch.equal(codec.codes(codec.codes_to_vectors(codes)), codes)


def test_config_reads_json() -> None:
    text = json.dumps({"bits": 6, "image_size": 32, "encoder_block_counts": [1, 1, 1, 1, 1]})
    config = LfqCodecConfig(**json.loads(text))
    assert config.encoder_block_counts == (1, 1, 1, 1, 1)
    assert (config.code_count, config.reduction) == (64, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_block_counts": [1, 1]}, "one entry per level"),
        ({"bits": 0}, "must be 1 or more"),
        ({"base_channels": 48}, "base_channels=48 is not a multiple of 32"),
        ({"image_size": 24}, "image_size=24 is not a multiple of 16"),
    ],
)
def test_sizes_that_do_not_fit_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LfqCodecConfig(**settings)


def test_training_reduces_the_error(trained: tuple[LfqObjective, list[float]]) -> None:
    _, losses = trained
    assert losses[-1] < 0.5 * losses[0]


def test_codes_are_a_function_of_the_patch(trained: tuple[LfqObjective, list[float]]) -> None:
    pixels = canvases(32, seed=1000)
    codes = trained[0](pixels).codes.flatten()
    colors = pixels[:, :, ::PATCH, ::PATCH].permute(0, 2, 3, 1).reshape(-1, 3)
    _, kinds = colors.unique(dim=0, return_inverse=True)
    counts = torch.zeros(KINDS, 2**BITS).index_put_((kinds, codes), torch.ones(()), accumulate=True)
    share_of_top_code = counts.amax(1).sum() / counts.sum()
    assert share_of_top_code > 0.95  # .99 to 1.0 by seed; with a commitment weight of .1 .74 to .92
    assert counts.argmax(1).unique().numel() == KINDS  # without the entropy term often 4 of 5


def test_codec_agrees_with_the_training_path(trained: tuple[LfqObjective, list[float]]) -> None:
    objective, pixels = trained[0], canvases(4, seed=2000)
    terms = objective(pixels)
    assert torch.equal(terms.codes, objective.codec.encode(pixels))
    torch.testing.assert_close(terms.decoded, objective.codec.decode(terms.codes))


def test_identical_patches_commit_to_one_code() -> None:
    objective = LfqObjective(toy_codec(bits=1))
    pixels = torch.ones(1, 3, 4, 4)  # four white patches, one kind
    latents = torch.tensor([0.5, 0.5, 0.5, -0.3]).view(1, 1, 2, 2)
    objective.codec.latents = lambda _: latents
    # Their mean is .3, so all commit to 1, even the last: (3 (.5)^2 + 1.3^2) / 4 = 2.44 / 4
    assert objective(pixels).commitment.item() == pytest.approx(0.61)


def test_entropy_penalty_by_hand() -> None:
    table = torch.tensor([[-1.0], [1.0]])
    sure = torch.tensor([[-20.0], [20.0]])
    assert entropy_penalty(sure, table).item() == pytest.approx(-log(2))  # 0 - log 2
    assert entropy_penalty(sure[:1], table).item() == pytest.approx(0.0, abs=1e-6)
    # sigmoid(4 z) = .8 and .4 as above: the mean entropy minus that of .6
    pair = torch.tensor([[log(4)], [log(2 / 3)]]) / 4
    expected = (0.50040 + 0.67301) / 2 - 0.67301
    assert entropy_penalty(pair, table).item() == pytest.approx(expected, abs=1e-5)


def test_locality_needs_patches_that_recur() -> None:
    objective = LfqObjective(toy_codec())
    noise = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert objective(noise).locality == 0
    assert objective(canvases(4)).locality > 0


def test_training_resumes_from_the_codec_alone() -> None:
    first = LfqObjective(toy_codec())
    train(first, 2)
    second = LfqObjective(toy_codec())
    second.load_state_dict(first.state_dict())
    assert train(first, 2, start=2) == train(second, 2, start=2)


def test_all_but_the_tables_learn() -> None:
    objective = LfqObjective(toy_codec().requires_grad_(False))
    objective(canvases(4)).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in objective.parameters())
    tables = {"codec.quantize.embedding", "codec.quantize.power_vals"}
    assert tables == set(objective.state_dict()) - {n for n, _ in objective.named_parameters()}


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"entropy_weight=-0\.1 must be 0 or more"):
        LfqObjective(toy_codec(), entropy_weight=-0.1)
