"""Advantages against hand arithmetic, and what constant rewards must do (D13)."""

import math

import pytest
import torch

from unified_rl.objectives.advantages import (
    group_advantages,
    process_advantages,
    zero_variance_fraction,
)

NAN = math.nan


def test_two_groups_by_hand():
    # group 1: mean 2, squares 1 + 1, sample variance 2 / 1, so -1 / sqrt 2 and 1 / sqrt 2
    # group 2: mean 15, squares 25 + 25, sample variance 50, so again 5 / sqrt 50 = 1 / sqrt 2
    got = group_advantages(torch.tensor([1.0, 3.0, 20.0, 10.0]), 2)
    torch.testing.assert_close(got, torch.tensor([-1.0, 1.0, 1.0, -1.0]) / math.sqrt(2))
    assert got.dtype == torch.float32


def test_population_std_by_hand():
    # mean 2, squares 1 + 1 over G = 2 gives a std of 1
    got = group_advantages(torch.tensor([1.0, 3.0]), 2, unbiased=False)
    torch.testing.assert_close(got, torch.tensor([-1.0, 1.0]))


def test_centred_only_by_hand():
    got = group_advantages(torch.tensor([1.0, 3.0, 8.0]), 3, scale="none")  # mean 4
    torch.testing.assert_close(got, torch.tensor([-3.0, -1.0, 4.0]))


def test_epsilon_joins_the_std():
    got = group_advantages(torch.tensor([1.0, 3.0]), 2, unbiased=False, epsilon=0.25)
    torch.testing.assert_close(got, torch.tensor([-0.8, 0.8]))  # 1 / (1 + 0.25)


@pytest.mark.parametrize("scale", ["std", "none"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 + 0.1])
def test_constant_rewards_give_exactly_zero(value, scale):
    got = group_advantages(torch.full((7,), value), 7, scale=scale)
    assert torch.equal(got, torch.zeros(7))


def test_spread_below_the_floor_is_zero_and_above_is_not():
    rewards = torch.tensor([0.0, 1e-5, 0.0, 1e-2])
    assert torch.equal(group_advantages(rewards, 2)[:2], torch.zeros(2))
    torch.testing.assert_close(group_advantages(rewards, 2)[3], torch.tensor(1 / math.sqrt(2)))
    assert zero_variance_fraction(rewards, 2) == 0.5


def test_process_advantages_by_hand():
    # one group of two rows; steps 1, 3 | 5, none. Mean of {1, 3, 5} is 3, sample std is 2:
    # normalised -1, 0 | 1, none. Step 0 collects itself and step 1: -1 + 0 | 1 + nothing.
    steps = torch.tensor([[1.0, 3.0], [5.0, NAN]])
    segment = torch.tensor([[-1, 0, 0, 1], [-1, 0, 1, -1]])
    want = torch.tensor([[0.0, -1.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(process_advantages(steps, segment, 2), want)


def test_later_steps_reach_earlier_tokens_by_hand():
    # mean of {0, 2, 4, 6} is 3, population std sqrt(5): (-3, 1) and (-1, 3) over sqrt 5
    steps = torch.tensor([[0.0, 4.0], [2.0, 6.0]])
    segment = torch.tensor([[0, 1], [0, 1]])
    want = torch.tensor([[-2.0, 1.0], [2.0, 3.0]]) / math.sqrt(5)
    torch.testing.assert_close(process_advantages(steps, segment, 2, unbiased=False), want)


def test_each_step_on_its_own_by_hand():
    # the same rewards: step 0 {0, 2} and step 1 {4, 6} both normalise to -1, 1
    steps = torch.tensor([[0.0, 4.0], [2.0, 6.0]])
    segment = torch.tensor([[0, 1], [0, 1]])
    got = process_advantages(steps, segment, 2, normalise="step", unbiased=False)
    torch.testing.assert_close(got, torch.tensor([[-2.0, -1.0], [2.0, 1.0]]))


def test_groups_do_not_mix():
    steps = torch.tensor([[0.0], [2.0], [100.0], [104.0]])
    segment = torch.zeros(4, 1, dtype=torch.int64)
    for normalise in ("group", "step"):
        got = process_advantages(steps, segment, 2, normalise=normalise, unbiased=False)
        torch.testing.assert_close(got[:, 0], torch.tensor([-1.0, 1.0, -1.0, 1.0]))


@pytest.mark.parametrize("normalise", ["group", "step"])
@pytest.mark.parametrize("row", [[0.3, 0.3], [NAN, NAN], [0.3, NAN]])
def test_constant_or_absent_steps_give_exactly_zero(row, normalise):
    segment = torch.tensor([[0, 1, -1]]).expand(3, 3)
    got = process_advantages(torch.tensor([row] * 3), segment, 3, normalise=normalise)
    assert torch.equal(got, torch.zeros(3, 3))


def test_a_step_only_one_completion_reached_is_compared_with_nothing():
    steps = torch.tensor([[0.0, 9.0], [2.0, NAN]])
    segment = torch.tensor([[0, 1], [0, -1]])
    got = process_advantages(steps, segment, 2, normalise="step", unbiased=False)
    torch.testing.assert_close(got, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))


def test_a_step_behind_the_last_reward_gets_nothing():
    got = process_advantages(torch.tensor([[0.0], [2.0]]), torch.tensor([[0, 1], [0, 5]]), 2)
    assert torch.equal(got[:, 1], torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_advantages(torch.zeros(6), 4), "group_size=4 does not divide the 6"),
        (lambda: group_advantages(torch.zeros(6), 1), "group_size=1 leaves nothing"),
        (lambda: group_advantages(torch.tensor([0.0, NAN]), 2), r"not finite in rows \[1\]"),
        (lambda: group_advantages(torch.zeros(2), 2, scale="sd"), "scale='sd'"),
        (
            lambda: process_advantages(torch.zeros(2, 1), torch.zeros(2, 1).long(), 2, "batch"),
            "normalise='batch'",
        ),
        (
            lambda: process_advantages(torch.full((2, 1), math.inf), torch.zeros(2, 1).long(), 2),
            r"infinite in rows \[0, 1\]",
        ),
        (
            lambda: process_advantages(torch.zeros(2, 1), torch.zeros(3, 1).long(), 2),
            "are not",
        ),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
