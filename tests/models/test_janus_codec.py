"""Training of Janus's image tokenizer, on a toy world of 8 px canvases with 2 px patches."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import JanusVQVAE, JanusVQVAEConfig

from unified_rl.models.codec_training import reconstruction_error
from unified_rl.models.janus.codec import CodecObjective

GRID, PATCH = 4, 2
ROWS = 12
INKS = torch.tensor([[0.7, -0.8, -0.8], [-0.8, 0.3, -0.6], [-0.7, -0.5, 0.7], [0.9, 0.6, -0.8]])
KINDS = 1 + len(INKS)  # the ground and one patch of each ink


def toy_codec() -> JanusVQVAE:
    torch.manual_seed(0)
    config = JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=ROWS,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1, 1],
        num_res_blocks=1,
        num_patches=GRID,
    )
    return JanusVQVAE(config)


def canvases(count: int, seed: int = 0) -> Tensor:
    """(count, 3, 8, 8): white, one patch in four filled with an ink."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.cat([torch.ones(1, 3), INKS])
    inked = torch.rand(count, GRID, GRID, generator=generator) < 0.25
    kinds = torch.randint(1, KINDS, inked.shape, generator=generator) * inked
    patches = colors[kinds].permute(0, 3, 1, 2)
    return patches.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)


def train(objective: CodecObjective, step_count: int) -> list[float]:
    """The reconstruction loss of each step."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    losses = []
    for step in range(step_count):
        terms = objective(canvases(8, step))
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        losses.append(terms.reconstruction.item())
    return losses


@pytest.fixture(scope="module")
def trained() -> tuple[CodecObjective, list[float]]:
    objective = CodecObjective(toy_codec())
    return objective, train(objective, 40)


def test_training_reduces_the_error(trained: tuple[CodecObjective, list[float]]) -> None:
    _, losses = trained
    assert losses[-1] < 0.5 * losses[0]


def test_codes_are_a_function_of_the_patch(trained: tuple[CodecObjective, list[float]]) -> None:
    objective = copy.deepcopy(trained[0]).eval()
    pixels = canvases(32, seed=1000)
    codes = objective(pixels).codes.flatten()
    colors = pixels[:, :, ::PATCH, ::PATCH].permute(0, 2, 3, 1).reshape(-1, 3)
    _, kinds = colors.unique(dim=0, return_inverse=True)
    counts = torch.zeros(KINDS, ROWS).index_put_((kinds, codes), torch.ones(()), accumulate=True)
    share_of_top_code = counts.amax(1).sum() / counts.sum()
    assert share_of_top_code > 0.8  # .88 to .94; without the locality term .3 to .6
    assert counts.argmax(1).unique().numel() == KINDS


def test_rows_keep_unit_norm(trained: tuple[CodecObjective, list[float]]) -> None:
    codebook = trained[0].codec.quantize.embedding.weight
    torch.testing.assert_close(codebook.norm(dim=-1), torch.ones(ROWS))


@pytest.mark.parametrize("training", [True, False])
def test_library_agrees_with_the_training_path(
    trained: tuple[CodecObjective, list[float]], training: bool
) -> None:
    objective = copy.deepcopy(trained[0]).train(training)
    pixels = canvases(16, seed=2000)
    terms = objective(pixels)
    with torch.no_grad():
        codes = objective.codec.encode(pixels, return_dict=True).image_tokens.view(16, -1)
        decoded = objective.codec.decode(terms.codes)
    assert torch.equal(terms.codes, codes)
    torch.testing.assert_close(terms.decoded, decoded, atol=1e-5, rtol=1e-5)


def test_gradient_passes_the_search_but_not_the_codebook() -> None:
    objective = CodecObjective(toy_codec(), commitment_weight=0.0, locality_weight=0.0)
    codebook = objective.codebook
    objective(canvases(4)).loss.backward()
    assert not codebook.requires_grad
    assert codebook.grad is None
    assert objective.codec.encoder.conv_in.weight.grad.abs().max() > 0
    assert all(p.grad is not None for p in objective.parameters() if p is not codebook)


def test_only_training_mode_moves_the_codebook() -> None:
    objective = CodecObjective(toy_codec()).eval()
    before = objective.codebook.clone()
    objective(canvases(4))
    assert torch.equal(objective.codebook, before)
    objective.train()(canvases(4))
    assert not torch.equal(objective.codebook, before)


def test_ema_step_by_hand() -> None:
    objective = CodecObjective(toy_codec(), ema_decay=0.5)
    east, north, northeast = torch.eye(8)[0], torch.eye(8)[1], torch.tensor([0.6, 0.8] + [0.0] * 6)
    objective._update_codebook(torch.stack([east, -north]), torch.tensor([True, True]))
    # The farthest-point start: both latents get a row, the other ten rows stay dead.
    assert (objective.idle_step_counts == 0).sum() == 2
    objective.codebook[objective.idle_step_counts > 0] = -east  # out of the way
    row = (objective.codebook @ east).argmax()
    objective._update_codebook(northeast[None], torch.tensor([True]))
    # .5 (.5 east) + .5 (.6, .8) = (.55, .4), whose norm is sqrt(.4625)
    expected = torch.tensor([0.55, 0.4] + [0.0] * 6) / 0.4625**0.5
    torch.testing.assert_close(objective.codebook[row], expected)
    assert objective.idle_step_counts[row] == 0


def test_dead_codes_restart_from_distant_foreground() -> None:
    objective = CodecObjective(toy_codec(), restart_after=2)
    ground, ink, rare = torch.eye(8)[0], torch.eye(8)[1], torch.eye(8)[2]
    always = torch.stack([ground, ink])
    is_foreground = torch.tensor([False, True])
    for _ in range(4):
        objective._update_codebook(always, is_foreground)
    is_dead = objective.idle_step_counts >= 2
    assert is_dead.sum() == ROWS - 2  # what is near a living code starts no second one
    objective.codebook[is_dead] = -rare  # out of the way of the search
    objective._update_codebook(torch.stack([rare, ink]), torch.tensor([False, True]))
    assert (objective.codebook @ rare).max() < 0.9
    objective._update_codebook(torch.stack([ground, rare]), torch.tensor([False, True]))
    assert ((objective.codebook @ rare) == 1).sum() == 1


def test_locality_needs_patches_that_recur() -> None:
    objective = CodecObjective(toy_codec())
    noise = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert objective(noise).locality == 0
    assert objective(canvases(4)).locality > 0


def test_foreground_weight_is_a_weighted_mean() -> None:
    pixels = torch.ones(1, 3, 8, 8)
    pixels[:, :, 0, 0] = -1.0
    decoded = torch.ones_like(pixels)
    near = reconstruction_error(decoded, pixels, 1.0, foreground_weight=5.0, margin=1)
    exact = reconstruction_error(decoded, pixels, 1.0, foreground_weight=5.0, margin=0)
    # One pixel errs by 2: 2 + 4 = 6, times 5. Within 1 px of the corner lie 4 of 64 pixels.
    assert near.item() == pytest.approx(30 / (4 * 5 + 60))
    assert exact.item() == pytest.approx(30 / (1 * 5 + 63))


def test_statistics_resume_and_stay_out_of_the_model() -> None:
    first = CodecObjective(toy_codec())
    train(first, 2)
    second = CodecObjective(toy_codec())
    second.load_state_dict(first.state_dict())
    for objective in (first, second):
        objective(canvases(8, seed=7))
    assert torch.equal(first.codebook, second.codebook)
    assert not {"latent_sums", "idle_step_counts"} & set(first.codec.state_dict())


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"ema_decay=1\.0 must be in \[0, 1\)"):
        CodecObjective(toy_codec(), ema_decay=1.0)
