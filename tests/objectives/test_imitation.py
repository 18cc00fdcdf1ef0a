"""Likelihood of targets by hand, absent modalities, and accumulation."""

import math

import pytest
import torch

from tests.objectives.reference import invent
from unified_rl.objectives.imitation import action_counts, modality_nll

# text 1 and 3 (mean 2), image codes 4, 5, 6 (mean 5); the NaN is forced
LOGPROBS = torch.tensor([[[-1.0, math.nan], [-4.0, -5.0]], [[-3.0, math.nan], [math.nan, -6.0]]])
MASK = torch.tensor([[[1, 0], [1, 1]], [[1, 0], [0, 1]]]).bool()
MODALITY = torch.tensor([[0, 1], [0, 1]])


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        ({}, 2 + 5),
        ({"text_weight": 0.5, "image_weight": 2.0}, 1 + 10),
        ({"normalisation": "token"}, 19 / 5),
        # (0.5 x 4 + 2 x 15) / (0.5 x 2 + 2 x 3)
        ({"normalisation": "token", "text_weight": 0.5, "image_weight": 2.0}, 32 / 7),
        ({"image_weight": 0.0}, 2),
        ({"normalisation": "token", "text_weight": 0.0}, 5),
    ],
)
def test_by_hand(settings, want):
    logprobs = LOGPROBS.clone().requires_grad_()
    terms = modality_nll(logprobs, MASK, MODALITY, **settings)
    torch.testing.assert_close(
        torch.stack(terms), torch.tensor([want, 2.0, 5.0]), check_dtype=False
    )
    terms.loss.backward()
    assert torch.equal(logprobs.grad[~MASK], torch.zeros(3))


def test_gradient_by_hand():
    logprobs = LOGPROBS.clone().requires_grad_()
    modality_nll(logprobs, MASK, MODALITY, image_weight=2.0).loss.backward()
    of_image = MODALITY.bool().unsqueeze(-1)
    want = -torch.where(of_image, 2 / 3, 1 / 2) * MASK
    torch.testing.assert_close(logprobs.grad, want)


@pytest.mark.parametrize("normalisation", ["modality", "token"])
@pytest.mark.parametrize(
    ("modality", "want"), [(0, [2.0, 2.0, 0.0]), (1, [5.0, 0.0, 5.0]), (2, [0.0, 0.0, 0.0])]
)
def test_absent_modalities_are_zero(modality, want, normalisation):
    mask = MASK & MODALITY.eq(modality).unsqueeze(-1)
    logprobs = LOGPROBS.clone().requires_grad_()
    terms = modality_nll(logprobs, mask, MODALITY, normalisation=normalisation)
    assert torch.equal(torch.stack(terms).detach(), torch.tensor(want))
    terms.loss.backward()
    assert torch.equal(logprobs.grad != 0, mask)


@pytest.mark.parametrize("normalisation", ["modality", "token"])
@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_accumulation_changes_nothing(micro_batch_size, normalisation):
    batch = invent(0, rows=8)
    fields = batch["logprobs"], batch["action_mask"], batch["modality"]
    settings = {"image_weight": 0.3, "normalisation": normalisation}
    whole = fields[0].clone().requires_grad_()
    want = modality_nll(whole, *fields[1:], **settings)
    want.loss.backward()

    logprobs, parts = fields[0].clone().requires_grad_(), []
    counts = action_counts(*fields[1:])
    for start in range(0, 8, micro_batch_size):
        rows = slice(start, start + micro_batch_size)
        part = (field[rows] for field in (logprobs, *fields[1:]))
        parts.append(torch.stack(modality_nll(*part, **settings, counts=counts)))
        parts[-1][0].backward()
    torch.testing.assert_close(sum(parts), torch.stack(want), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logprobs.grad, whole.grad, rtol=0, atol=0)


def test_settings_that_cannot_hold():
    with pytest.raises(ValueError, match="image_weight=-2"):
        modality_nll(LOGPROBS, MASK, MODALITY, image_weight=-2)
    with pytest.raises(ValueError, match="normalisation='row'"):
        modality_nll(LOGPROBS, MASK, MODALITY, normalisation="row")
