"""DPO by hand: the loss, its gradient, and values at which a naive form would overflow."""

import math

import pytest
import torch

from unified_rl.objectives.preference import preference_terms, summed

BETA = 0.2


def terms(win, lose, reference_win, reference_lose, beta=BETA):
    parts = [torch.tensor(v, dtype=torch.float64) for v in (win, lose)]
    parts = [part.requires_grad_() for part in parts]
    references = [torch.tensor(v, dtype=torch.float64) for v in (reference_win, reference_lose)]
    return preference_terms(*parts, *references, beta), parts


def test_by_hand():
    # margins: .2 ((-10 + 15) - (-20 + 20)) = 1; .2 ((-9 + 4) - (-3 + 8)) = -2; equal: 0
    found, _ = terms([-10, -9, -5], [-20, -3, -7], [-15, -4, -5], [-20, -8, -7])
    assert found.win_reward.tolist() == pytest.approx([1, -1, 0])
    assert found.lose_reward.tolist() == pytest.approx([0, 1, 0])
    assert found.margin.tolist() == pytest.approx([1, -2, 0])
    assert found.is_right.tolist() == [1, 0, 0]
    want = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(2)), math.log(2)]
    assert found.loss.tolist() == pytest.approx(want, rel=1e-12)


def test_gradient_by_hand():
    found, (win, lose) = terms([-10, -9], [-20, -3], [-15, -4], [-20, -8])
    found.loss.sum().backward()
    pull = [BETA / (1 + math.exp(1)), BETA / (1 + math.exp(-2))]  # beta sigmoid(-margin)
    assert win.grad.tolist() == pytest.approx([-p for p in pull], rel=1e-12)
    assert lose.grad.tolist() == pytest.approx(pull, rel=1e-12)


def test_far_apart_is_finite():
    # margins of -2000 and 2000: exp overflows in float32 and float64 alike
    win = torch.tensor([-1e4, 0.0], requires_grad=True)
    lose = torch.tensor([0.0, -1e4], requires_grad=True)
    found = preference_terms(win, lose, torch.zeros(2), torch.zeros(2), BETA)
    assert found.loss.tolist() == [2000, 0]
    found.loss.sum().backward()
    assert win.grad.tolist() == pytest.approx([-BETA, 0])


def test_the_reference_gets_no_gradient():
    values = [torch.zeros(1, requires_grad=True) for _ in range(4)]
    preference_terms(*values, BETA).loss.sum().backward()
    assert [value.grad is None for value in values] == [False, False, True, True]


def test_only_actions_are_summed():
    logprobs = torch.tensor([[[-1.0, -2.0], [-4.0, math.nan]], [[-math.inf, 0.0], [-0.5, -8.0]]])
    logprobs.requires_grad_()
    mask = torch.tensor([[[1, 1], [1, 0]], [[0, 0], [1, 1]]]).bool()
    found = summed(logprobs, mask)
    assert found.tolist() == [-7, -8.5]
    found.sum().backward()
    assert torch.equal(logprobs.grad, mask.float())


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_a_beta_that_teaches_nothing_is_refused(beta):
    with pytest.raises(ValueError, match="beta="):
        preference_terms(*(torch.zeros(1) for _ in range(4)), beta)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(1,\), \(2,\)"):
        preference_terms(torch.zeros(2), torch.zeros(1), torch.zeros(2), torch.zeros(2), BETA)
