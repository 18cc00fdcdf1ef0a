"""Straight-through Gumbel-softmax against what it must equal."""

import math

import pytest
import torch

from unified_rl.objectives.straight_through import (
    Relaxation,
    gumbel_noise_given,
    straight_through,
)

LOGITS = torch.tensor([1.0, -0.5, 0.25, -2.0], dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("code", range(4))
def test_under_the_noise_the_given_code_wins(code):
    logits = LOGITS.float().expand(1000, 4)
    codes = torch.full((1000,), code)
    noise = gumbel_noise_given(logits, codes, seeded())
    assert bool(((logits + noise).argmax(-1) == codes).all())


def test_noise_given_drawn_codes_is_gumbel_noise():
    # Codes from the softmax, then noise given them: together plain Gumbel noise, whose mean is
    # Euler's constant .5772 and variance pi^2 / 6 = 1.6449, independent of the logits.
    logits = LOGITS.float().expand(200_000, 4)
    codes = torch.multinomial(logits[0].softmax(0), len(logits), True, generator=seeded(1))
    # the function measures logits from their logsumexp, so that its maximum is a standard Gumbel
    noise = (
        gumbel_noise_given(logits, codes, seeded(2))
        + logits
        - (logits - logits.logsumexp(-1, keepdim=True))
    )
    noise = noise - LOGITS.float().logsumexp(0)
    # standard errors: 1.28 / sqrt(200000) = .003 of the mean, about .008 of the variance
    assert noise.mean(0).tolist() == pytest.approx([0.5772] * 4, abs=0.012)
    assert noise.var(0).tolist() == pytest.approx([math.pi**2 / 6] * 4, abs=0.04)
    correlation = torch.corrcoef(noise.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 0.01


def test_noise_survives_extreme_logits():
    logits = torch.tensor([[0.0, -80.0, 60.0, -torch.inf]])
    for code in (0, 1, 2):
        noise = gumbel_noise_given(logits, torch.tensor([code]), seeded(code))
        assert int((logits + noise).nan_to_num(-torch.inf).argmax(-1)) == code


def test_the_value_is_the_hard_row_to_the_last_bit():
    table = torch.randn(4, 3, generator=seeded())
    codes = torch.tensor([2, 0, 3])
    logits = torch.randn(3, 4, generator=seeded(1))
    noise = gumbel_noise_given(logits, codes, seeded(2))
    assert torch.equal(straight_through(logits, noise, codes, table, 0.7), table[codes])


def test_the_gradient_is_that_of_finite_differences_of_the_soft_row():
    # Where what follows is linear, value and gradient of the soft row are what the estimator
    # promises: d/dlogits of w . (softmax((logits + g) / tau) @ table).
    table = torch.randn(4, 3, generator=seeded(), dtype=torch.float64)
    follows = torch.randn(3, generator=seeded(1), dtype=torch.float64)
    codes = torch.tensor(1)
    noise = gumbel_noise_given(LOGITS, codes, seeded(2)).double()
    logits = LOGITS.clone().requires_grad_()

    def soft(values):
        return ((values + noise) / 0.7).softmax(-1) @ table @ follows

    # float32 inside: 1e-6 of values near 1
    (straight_through(logits, noise, codes, table, 0.7) @ follows).backward()
    step = 1e-5
    differences = [
        float(soft(LOGITS + step * unit) - soft(LOGITS - step * unit)) / (2 * step)
        for unit in torch.eye(4, dtype=torch.float64)
    ]
    assert logits.grad.tolist() == pytest.approx(differences, abs=1e-6)
    assert max(map(abs, differences)) > 0.01  # so that a gradient of 0 would fail


def test_when_nearly_hard_its_mean_is_the_gradient_of_the_expectation():
    # E[w . table[code]] has the gradient p_k (v_k - sum_j p_j v_j) with v = table @ w. At a small
    # temperature the straight-through gradient has the same mean (and a great variance).
    values = torch.tensor([0.5, -1.0, 2.0, 0.0])
    logits = LOGITS.float().expand(400_000, 4).clone().requires_grad_()
    probabilities = LOGITS.float().softmax(0)
    codes = torch.multinomial(probabilities, len(logits), True, generator=seeded(3))
    noise = gumbel_noise_given(logits, codes, seeded(4))
    straight_through(logits, noise, codes, values[:, None], 0.1).sum().backward()
    exact = probabilities * (values - probabilities @ values)
    spread = logits.grad.std(0) / len(logits) ** 0.5
    assert bool(((logits.grad.mean(0) - exact).abs() < 4 * spread + 0.01).all())
    assert float(exact.abs().max()) > 0.2


def test_the_table_learns_from_the_hard_row_alone():
    table = torch.randn(4, 3, requires_grad=True)
    codes = torch.tensor([2, 2, 1])
    noise = gumbel_noise_given(torch.zeros(3, 4), codes, seeded())
    straight_through(torch.zeros(3, 4), noise, codes, table, 1.0).sum().backward()
    assert table.grad.tolist() == [[0.0] * 3, [1.0] * 3, [2.0] * 3, [0.0] * 3]


def test_temperatures_of_the_schedules():
    linear = Relaxation(2.0, 0.5, "linear")
    assert [linear.temperature(x) for x in (0, 0.5, 1)] == [2.0, 1.25, 0.5]
    exponential = Relaxation(2.0, 0.5, "exponential")
    assert [exponential.temperature(x) for x in (0, 0.5, 1)] == pytest.approx([2.0, 1.0, 0.5])
    assert Relaxation(0.7, 9.0).temperature(1.0) == 0.7


@pytest.mark.parametrize(
    "wrong", [{"start": 0.0}, {"end": -1.0}, {"schedule": "cosine"}, {"mask_draws": 0}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Relaxation(**wrong)
