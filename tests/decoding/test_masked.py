"""Mask schedules by hand: what stays masked, what is masked again, what is masked to learn."""

import math

import pytest
import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.decoding.masked import (
    SCHEDULES,
    gumbel,
    masked_again,
    masked_counts,
    masked_share,
    nested_masks,
    noise_temperatures,
    training_mask,
)

QUARTERS = torch.tensor([0.0, 0.25, 0.5, 1.0])
EVEN = math.exp(-1)
"""Uniform draw whose Gumbel noise, -log(-log u), is 0."""


def flags(text):
    """(1, N) bool: "x" is True."""
    return torch.tensor([[letter == "x" for letter in text]])


# -- schedules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("cosine", [1, 0.923880, 0.707107, 0]),  # cos of 0, 22.5, 45 and 90 degrees
        ("linear", [1, 0.75, 0.5, 0]),
        ("pow", [1, 0.9375, 0.75, 0]),  # 1 - 1/16, 1 - 1/4
        # s(x) = 1 / (1 + e^-x): (s(3) - s(-1.5)) / (s(3) - s(-3))
        # = (0.952574 - 0.182426) / (0.952574 - 0.047426) = 0.770148 / 0.905148
        ("sigmoid", [1, 0.850854, 0.5, 0]),
    ],
)
def test_shares(method, expected):
    assert masked_share(method, QUARTERS).tolist() == pytest.approx(expected, abs=2e-6)


def test_the_sigmoid_ends_just_above_nothing():
    assert masked_share("sigmoid", torch.tensor([1.0])).item() == pytest.approx(1e-6, rel=1e-4)


def test_shares_are_float32():
    assert masked_share("cosine", QUARTERS.double()).dtype == torch.float32


def test_a_misspelt_schedule_is_told_the_nearest():
    with pytest.raises(ValueError, match="'cosin' is unknown; did you mean 'cosine'"):
        masked_share("cosin", QUARTERS)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("cosine", [15, 12, 6, 0]),  # 15.71, 12.02, 6.51
        ("linear", [12, 8, 4, 0]),  # 12.75, 8.5, 4.25
        ("pow", [15, 12, 7, 0]),  # 17 * 15/16 = 15.94, 17 * 12/16 = 12.75, 17 * 7/16 = 7.44
        ("sigmoid", [14, 8, 2, 0]),  # 14.46, 8.5, 2.54
    ],
)
def test_counts_of_17_positions_in_four_steps(method, expected):
    assert masked_counts(method, 17, 4) == expected


def test_counts_are_floored_in_float32():
    # The twelfth of 18 steps is at 60 degrees: 256 / 2 = 128, but 127.99999 in float32.
    assert masked_counts("cosine", 256, 18)[11] == 127


@pytest.mark.parametrize("method", SCHEDULES)
@pytest.mark.parametrize(("positions", "steps"), [(9, 1), (9, 4), (36, 8), (1024, 50)])
def test_counts_only_fall_and_end_at_none(method, positions, steps):
    counts = masked_counts(method, positions, steps)
    assert len(counts) == steps
    assert counts == sorted(counts, reverse=True)
    assert counts[0] < positions
    assert counts[-1] == 0


# -- noise -----------------------------------------------------------------------------------------


def test_the_noise_cools_by_the_product_of_what_is_left():
    # 2 * 3/4 = 1.5, * 2/4 = 0.75, * 1/4 = 0.1875, * 0
    assert noise_temperatures(2.0, 4) == pytest.approx([1.5, 0.75, 0.1875, 0.0])


def test_no_noise_stays_none():
    assert noise_temperatures(0.0, 3) == [0.0, 0.0, 0.0]


def test_gumbel_noise():
    # -log(log 2) = 0.366513; at 0 the logarithm is cut at 1e-20: -log(46.0517) = -3.829764;
    # at 1 the outer one is: -log(1e-20) = 46.0517
    noise = gumbel(torch.tensor([0.5, EVEN, 0.0, 1.0]))
    assert noise.tolist() == pytest.approx([0.366513, 0.0, -3.829764, 46.0517], abs=1e-5)


# -- what a step masks again -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("masked", "count", "again"),
    [
        ("xxxx", 2, "x..x"),  # the least confident are 0.1 and 0.2
        ("xxxx", 0, "x..."),  # at least one
        ("xxxx", 4, "x.xx"),  # one is uncovered all the same
        (".xxx", 2, "..xx"),  # what was uncovered stays so, though it is less likely than all
        (".xxx", 3, "..xx"),
        ("...x", 0, "...x"),  # the only one waits for the last step
    ],
)
def test_the_least_confident_are_masked_again(masked, count, again):
    probabilities = torch.tensor([[0.1, 0.4, 0.3, 0.2]])
    found = masked_again(probabilities, flags(masked), count, 0.0, torch.full((1, 4), 0.5))
    assert torch.equal(found, flags(again))


@pytest.mark.parametrize(("temperature", "again"), [(1.0, "..xx"), (0.25, "x..x")])
def test_noise_lends_confidence(temperature, again):
    # log of 0.1, 0.4, 0.3, 0.2 = -2.303, -0.916, -1.204, -1.609; the first draw adds
    # -log(-log 0.9) = 2.250 in full: -0.052, or a quarter of it: -1.740
    probabilities = torch.tensor([[0.1, 0.4, 0.3, 0.2]])
    uniform = torch.tensor([[0.9, EVEN, EVEN, EVEN]])
    found = masked_again(probabilities, flags("xxxx"), 2, temperature, uniform)
    assert torch.equal(found, flags(again))


def test_rows_are_masked_by_themselves():
    probabilities = torch.tensor([[0.1, 0.4, 0.3], [0.5, 0.2, 0.6]])
    masked = torch.cat([flags("xxx"), flags("xx.")])
    found = masked_again(probabilities, masked, 2, 0.0, torch.full((2, 3), 0.5))
    assert torch.equal(found, torch.cat([flags("x.x"), flags(".x.")]))


@pytest.mark.parametrize("method", SCHEDULES)
@pytest.mark.parametrize("steps", [2, 4, 9, 20])
def test_every_step_uncovers_until_one_is_left(method, steps):
    # 9 positions, also in more steps than that; nothing uncovered is masked again.
    generator = torch.Generator().manual_seed(0)
    masked, temperatures = flags("xxxxxxxxx"), noise_temperatures(1.0, steps)
    for count, temperature in zip(masked_counts(method, 9, steps)[:-1], temperatures, strict=False):
        probabilities, uniform = torch.rand(2, 1, 9, generator=generator)
        again = masked_again(probabilities, masked, count, temperature, uniform)
        assert not bool((again & ~masked).any())
        assert again.sum() == max(1, min(int(masked.sum()) - 1, count))
        masked = again
    assert masked.any()  # what the last step is for


# -- what is masked to learn -----------------------------------------------------------------------

SCORES = torch.tensor([[0.3, 0.1, 0.4, 0.2]])
"""In order: positions 1, 3, 0, 2."""


@pytest.mark.parametrize(
    ("method", "noise", "expected"),
    [
        ("cosine", 0.0, "xxxx"),
        ("cosine", 0.5, "x.xx"),  # 4 * 0.7071 = 2.83, so the three of the order that are below 3
        ("cosine", 0.999, "..x."),  # 4 * 0.0016 = 0.006, but at least one
        ("linear", 0.375, "x.x."),  # 2.5 rounds to the even 2
        ("linear", 0.125, "xxxx"),  # 3.5 to the even 4
    ],
)
def test_training_masks(method, noise, expected):
    mask = training_mask(method, torch.tensor([noise]), SCORES)
    assert torch.equal(mask, flags(expected))


def test_every_image_has_its_own_share():
    mask = training_mask("linear", torch.tensor([0.0, 0.75]), SCORES.expand(2, -1))
    assert mask.sum(1).tolist() == [4, 1]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, [0, 0, 0, 0]),
        (2, [1, 0, 1, 0]),  # ranks 2, 0, 3, 1; halves of them
        (4, [2, 0, 3, 1]),
    ],
)
def test_nested_masks_uncover_in_equal_steps(steps, expected):
    assert nested_masks(SCORES, steps).tolist() == [expected]


def test_nested_masks_share_out_every_position_once():
    steps = nested_masks(torch.rand(3, 36, generator=torch.Generator().manual_seed(0)), 8)
    # 36 = 4 * 5 + 4 * 4
    counts = torch.stack([row.bincount(minlength=8) for row in steps])
    assert counts.sum(1).tolist() == [36, 36, 36]
    assert set(counts.flatten().tolist()) == {4, 5}


def test_frozen_masks_have_no_steps_to_choose_from():
    with pytest.raises(ValueError, match="needs mask_likelihood='steps'"):
        Behaviour(replayed_step_count=1, mask_likelihood="frozen")


@pytest.mark.parametrize(("count", "some"), [(0, False), (3, True), (4, False), (9, False)])
def test_as_many_steps_as_there_are_is_all_of_them(count, some):
    assert Behaviour(replayed_step_count=count, image_step_count=4).replays_some_steps == some
