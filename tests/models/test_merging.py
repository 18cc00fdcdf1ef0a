"""Merging rules on tensors small enough to merge by hand."""

import functools

import pytest
import torch

from unified_rl.core.errors import ConfigError
from unified_rl.models.merging import gaussian, linear, task_arithmetic

BASE = torch.tensor([1.0, 2.0, 3.0, 4.0])
# changes of one model: 1, -1, 1, -1; of the other: 2, -2, 2, -2
ONE = BASE + torch.tensor([1.0, -1.0, 1.0, -1.0])
OTHER = BASE + torch.tensor([2.0, -2.0, 2.0, -2.0])
RULES = {"linear": linear, "task_arithmetic": task_arithmetic, "gaussian": gaussian}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())


def exactly(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=0, atol=0)


# -- linear ----------------------------------------------------------------------------------------


def test_linear_is_the_mean():
    # (2 + 3) / 2, (1 + 0) / 2, (4 + 5) / 2, (3 + 2) / 2
    exactly(linear([ONE, OTHER]), [2.5, 0.5, 4.5, 2.5])


def test_linear_weights_are_relative():
    # a quarter of the way from the first to the other: 2 + 1/4, 1 - 1/4, 4 + 1/4, 3 - 1/4
    exactly(linear([ONE, OTHER], weights=[3, 1]), [2.25, 0.75, 4.25, 2.75])


def test_linear_takes_no_notice_of_the_base():
    exactly(linear([ONE, OTHER], BASE), linear([ONE, OTHER]))


def test_linear_of_equal_models_is_that_model_whatever_the_weights():
    model = torch.randn(100, generator=torch.Generator().manual_seed(0)).bfloat16()
    exactly(linear([model] * 3, weights=[0.1, 0.7, 0.3]), model)


def test_a_model_of_weight_0_is_left_out():
    exactly(linear([ONE, OTHER], weights=[0, 2]), OTHER)


# -- task arithmetic -------------------------------------------------------------------------------


def test_task_arithmetic_adds_the_changes():
    # 1 + 1 + 2, 2 - 1 - 2, 3 + 1 + 2, 4 - 1 - 2
    exactly(task_arithmetic([ONE, OTHER], BASE), [4.0, -1.0, 6.0, 1.0])


def test_task_arithmetic_scales_each_change():
    # 1 + 1/2 - 2, 2 - 1/2 + 2, 3 + 1/2 - 2, 4 - 1/2 + 2
    exactly(task_arithmetic([ONE, OTHER], BASE, scales=[0.5, -1]), [-0.5, 3.5, 1.5, 5.5])


def test_one_model_of_scale_1_is_that_model():
    exactly(task_arithmetic([ONE], BASE), ONE)


def test_equal_models_whose_scales_add_up_to_1_are_that_model():
    exactly(task_arithmetic([ONE, ONE], BASE, scales=[0.25, 0.75]), ONE)


# -- gaussian --------------------------------------------------------------------------------------


def test_small_changes_are_averaged():
    # mu = 0; std of 1, -1, 1, -1 over N - 1: sqrt(4 / 3) = 1.155, the smaller one; twice that is
    # 2.309, so all changes are small: 1 + (1 + 2) / 2, 2 - (1 + 2) / 2, ...
    exactly(gaussian([ONE, OTHER], BASE), [2.5, 0.5, 4.5, 2.5])


def test_large_changes_are_added_in_full():
    # within 1.5 * 1.155 = 1.732 are the changes of 1, but not those of 2: 1 + 1/2 + 2, ...
    exactly(gaussian([ONE, OTHER], BASE, spread=1.5), [3.5, -0.5, 5.5, 1.5])


def test_the_std_divides_by_one_less_than_the_count():
    # 1.155 * 1.74 = 2.009 exceeds 2; the std over N would be 1, and 1.74 would not
    exactly(gaussian([ONE, OTHER], BASE, spread=1.74), [2.5, 0.5, 4.5, 2.5])


def test_the_bounds_are_around_the_mean_of_both():
    # changes 3, 1, 3, 1 (mean 2) and 4, 0, 4, 0 (mean 2), std 1.155 and 2.309: with spread 1,
    # small is what lies within 0.845 and 3.155: all of the first, none of the other
    one = BASE + torch.tensor([3.0, 1.0, 3.0, 1.0])
    other = BASE + torch.tensor([4.0, 0.0, 4.0, 0.0])
    # 1 + 3/2 + 4, 2 + 1/2 + 0, 3 + 3/2 + 4, 4 + 1/2 + 0
    exactly(gaussian([one, other], BASE, spread=1), [6.5, 2.5, 8.5, 4.5])


def test_a_sparse_outlier_is_added_in_full():
    # 99 changes of +-1 and one of 30 against 100 of +-1: mu = (30 + 1) / 200 = 0.155 (one
    # -1 is gone), sigma = sqrt(100 / 99) = 1.005: 30 is outside of mu +- 2.01, each +-1 inside
    signs = torch.tensor([1.0, -1.0]).repeat(50)
    spiked = signs.clone()
    spiked[7] = 30.0
    found = gaussian([spiked, signs], torch.zeros(100))
    expected = signs.clone()
    expected[7] = 30 - 0.5  # in full, and half of the other model's -1
    exactly(found, expected)


def test_three_models_are_averaged_by_a_third():
    # changes +-1, +-2, +-3; sigma 1.155, three times that is 3.464: all small, 1 + (1 + 2 + 3) / 3
    third = BASE + torch.tensor([3.0, -3.0, 3.0, -3.0])
    found = gaussian([ONE, OTHER, third], BASE, spread=3)
    torch.testing.assert_close(found, torch.tensor([3.0, 0.0, 5.0, 2.0]), rtol=1e-6, atol=1e-6)


def test_equal_models_without_outliers_are_that_model():
    exactly(gaussian([ONE, ONE], BASE), ONE)


def test_an_outlier_that_models_share_counts_twice():
    change = torch.tensor([1.0, -1.0]).repeat(50)
    change[7] = 30.0  # std 3.2
    expected = change.clone()
    expected[7] = 60.0
    exactly(gaussian([change, change], torch.zeros(100)), expected)


def test_without_a_spread_all_is_large():
    exactly(gaussian([ONE, OTHER], BASE, spread=0), task_arithmetic([ONE, OTHER], BASE))


def test_with_a_great_spread_all_is_small():
    exactly(gaussian([ONE, OTHER], BASE, spread=1e30), linear([ONE, OTHER]))


def test_what_one_model_left_alone_is_taken_in_full():
    # sigma is 0, that of no changes at all
    exactly(gaussian([BASE, OTHER], BASE), OTHER)


def test_a_tensor_of_one_entry_has_no_spread():
    one, other, base = torch.tensor([1.5]), torch.tensor([3.0]), torch.tensor([1.0])
    exactly(gaussian([one, other], base), [3.5])  # 1 + 0.5 + 2


# -- all rules -------------------------------------------------------------------------------------


@rules
def test_the_order_of_models_does_not_matter(rule):
    draw = torch.Generator().manual_seed(1)
    base, one, other = torch.randn(3, 50, 4, generator=draw)
    found, swapped = rule([one, other], base), rule([other, one], base)
    # linear starts at its first model, which rounds by the last of 24 bits
    torch.testing.assert_close(found, swapped, rtol=0, atol=0 if rule is not linear else 2**-22)


@rules
def test_no_change_is_the_base_bit_for_bit(rule):
    base = torch.randn(100, generator=torch.Generator().manual_seed(2)).bfloat16()
    exactly(rule([base, base.clone()], base), base)


@rules
def test_models_in_bfloat16(rule):
    # bfloat16 has 8 bits: near 1 its step is 1/128
    base = torch.ones(4, dtype=torch.bfloat16)
    one, other = base + 1 / 128, base + 3 / 128
    one[1::2] = 1 - 1 / 128
    other[1::2] = 1 - 3 / 128
    found = rule([one, other], base)
    assert found.dtype == torch.bfloat16
    # gaussian: sigma is 1.155/128, twice that 2.309/128, so that 1/128 is small and 3/128 large
    up = {linear: 2, task_arithmetic: 4, gaussian: 3.5}[rule] / 128
    exactly(found, torch.tensor([1 + up, 1 - up, 1 + up, 1 - up]).bfloat16())


def test_arithmetic_is_wider_than_bfloat16():
    # 1 + 1/256 is 1 in bfloat16 (ties to even), but three such changes are 1 + 3/256, halfway
    # between 1 + 1/128 and 1 + 2/128, of which the latter is even
    base = torch.ones(1, dtype=torch.bfloat16)
    model = torch.tensor([1 + 1 / 256])
    found = task_arithmetic([base, model, model, model], base)
    exactly(found, torch.tensor([1 + 2 / 128]).bfloat16())


@rules
def test_the_first_model_gives_the_dtype(rule):
    assert rule([ONE.half(), OTHER], BASE).dtype == torch.float16
    assert rule([ONE.double(), OTHER], BASE).dtype == torch.float64


@rules
def test_inputs_stay_as_they_are(rule):
    before = [ONE.clone(), OTHER.clone(), BASE.clone()]
    rule([ONE, OTHER], BASE)
    for tensor, old in zip((ONE, OTHER, BASE), before, strict=True):
        exactly(tensor, old)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (functools.partial(linear, [ONE]), "rule=linear merges two models or more"),
        (functools.partial(gaussian, [ONE], BASE), "rule=gaussian merges two models or more"),
        (functools.partial(gaussian, [ONE, OTHER], None), "rule=gaussian needs base="),
        (functools.partial(task_arithmetic, [ONE], None), "rule=task_arithmetic needs base="),
        (functools.partial(gaussian, [ONE, OTHER], BASE, -1), "rule.spread=-1 must be"),
        (functools.partial(gaussian, [ONE, OTHER], BASE, float("inf")), "rule.spread=inf must be"),
        (functools.partial(linear, [ONE, OTHER], weights=[1]), "must be a list of 2 finite"),
        (functools.partial(linear, [ONE, OTHER], weights=0.5), "must be a list of 2 finite"),
        (functools.partial(linear, [ONE, OTHER], weights=["a", "b"]), "a list of 2 finite"),
        (functools.partial(linear, [ONE, OTHER], weights=[2, -1]), "none may be negative"),
        (functools.partial(linear, [ONE, OTHER], weights=[0, 0]), "nor all be 0"),
        (functools.partial(task_arithmetic, [ONE], BASE, [float("nan")]), "list of 1 finite"),
    ],
)
def test_settings_that_do_not_fit_are_refused(rule, words):
    with pytest.raises(ConfigError) as caught:
        rule()
    assert words in str(caught.value)
