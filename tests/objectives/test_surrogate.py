"""The clipped surrogate (D9) and the unit of its ratio (D4), by hand."""

import math

import pytest
import torch

from unified_rl.objectives.surrogate import (
    clipped_surrogate,
    log_ratio,
    per_position,
    ratio_clip_fraction,
)

RATIOS = torch.tensor([0.5, 0.5, 1.5, 1.5])
ADVANTAGES = torch.tensor([2.0, -2.0, 2.0, -2.0])


def test_the_minimum_is_taken_element_by_element():
    # unclipped 1, -1, 3, -3; clipped to [0.8, 1.3]: 1.6, -1.6, 2.6, -2.6; minima 1, -1.6, 2.6, -3.
    # The minimum of the two means would be min(0, 0) = 0, the mean of the minima is -0.25.
    logprobs = RATIOS.log().requires_grad_()
    got = clipped_surrogate(logprobs, torch.zeros(4), ADVANTAGES, 0.2, 0.3)
    torch.testing.assert_close(got, torch.tensor([1.0, -1.6, 2.6, -3.0]))
    # gradient: ratio * A where the unclipped branch won, 0 where the clip did
    (gradient,) = torch.autograd.grad(got.sum(), logprobs)
    torch.testing.assert_close(gradient, torch.tensor([1.0, 0.0, 0.0, -3.0]))


def test_clip_fraction_counts_cut_gradients_among_actions():
    mask = torch.tensor([True, True, True, True])
    logprobs, old = RATIOS.log(), torch.zeros(4)
    assert ratio_clip_fraction(logprobs, old, ADVANTAGES, 0.2, 0.3, mask) == 0.5  # 2nd and 3rd
    mask[1] = False
    got = ratio_clip_fraction(logprobs, old, ADVANTAGES, 0.2, 0.3, mask)
    torch.testing.assert_close(got, torch.tensor(1 / 3))
    assert ratio_clip_fraction(logprobs, old, ADVANTAGES, 0.2, 0.3, torch.zeros(4).bool()) == 0


def test_nothing_is_clipped_by_one_and_infinity():
    got = clipped_surrogate(RATIOS.log(), torch.zeros(4), ADVANTAGES, 1.0, math.inf)
    torch.testing.assert_close(got, RATIOS * ADVANTAGES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_equal_policies_have_a_ratio_of_exactly_one(dtype):
    logprobs = (-10 * torch.rand(1000)).to(dtype).requires_grad_()
    advantages = torch.randn(1000)
    got = clipped_surrogate(logprobs, logprobs.detach(), advantages, 0.2, 0.2)
    assert torch.equal(got.float(), advantages)
    (gradient,) = torch.autograd.grad(got.sum(), logprobs)
    torch.testing.assert_close(gradient, advantages.to(dtype))


def test_behaviour_gets_no_gradient():
    logprobs, old = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    clipped_surrogate(logprobs, old, torch.ones(3), 0.2, 0.2).sum().backward()
    assert old.grad is None


def test_log_ratio_subtracts_in_float32():
    # -3 and -2^-9 are bfloat16 numbers; their difference is not, and would round to -3
    got = log_ratio(torch.tensor(-3.0).bfloat16(), torch.tensor(-(2.0**-9)).bfloat16())
    assert got.dtype == torch.float32
    assert got == -3 + 2.0**-9


def test_per_position_sums_the_chosen_codes_by_hand():
    # 2 x 2: position 0 chose both codes, -1 - 2; position 1 only the second, the NaN is not read
    logprobs = torch.tensor([[[-1.0, -2.0], [math.nan, -4.0]]], requires_grad=True)
    mask = torch.tensor([[[True, True], [False, True]]])
    got = per_position(logprobs, mask)
    torch.testing.assert_close(got, torch.tensor([[-3.0, -4.0]]))
    (gradient,) = torch.autograd.grad(got.sum(), logprobs)
    assert torch.equal(gradient, mask.float())


def test_ratio_units_clip_differently_by_hand():
    # two codes of ratios 1.5 and 1 / 1.5: as a position the ratio is 1 and nothing is clipped;
    # code by code with A = 1 and clip 0.2: min(1.5, 1.2) = 1.2 and min(0.667, 0.8) = 0.667
    logprobs = torch.tensor([[[math.log(1.5), -math.log(1.5)]]])
    mask, old = torch.ones(1, 1, 2).bool(), torch.zeros(1, 1, 2)
    together = clipped_surrogate(
        per_position(logprobs, mask), per_position(old, mask), torch.ones(1), 0.2, 0.2
    )
    torch.testing.assert_close(together, torch.tensor([[1.0]]))
    apart = clipped_surrogate(logprobs, old, torch.ones(1), 0.2, 0.2)
    torch.testing.assert_close(apart, torch.tensor([[[1.2, 2 / 3]]]))
