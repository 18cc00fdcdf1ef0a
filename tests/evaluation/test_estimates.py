import math

import numpy as np
import pytest

from unified_rl.evaluation.estimates import Z, estimate, macro_estimate


def test_binomial_interval():
    # 30 of 100: normal approximation .3 +- 1.96 * sqrt(.3 * .7 / 100) = .3 +- .0898
    got = estimate([1.0] * 30 + [0.0] * 70)
    assert got.value == 0.3
    assert got.n == 100
    assert got.low == pytest.approx(0.3 - 0.0898, abs=0.015)
    assert got.high == pytest.approx(0.3 + 0.0898, abs=0.015)


def test_clusters_widen_the_interval():
    # 20 prompts of 5 equal answers are 20 measurements: sqrt(5) as wide as 100 would be.
    values = np.repeat([1.0] * 8 + [0.0] * 12, 5)
    clusters = np.repeat(np.arange(20), 5).tolist()
    alone, clustered = estimate(values), estimate(values, clusters)
    assert alone.value == clustered.value == pytest.approx(0.4)
    ratio = (clustered.high - clustered.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(math.sqrt(5), rel=0.15)


def test_the_mean_is_of_values_not_of_clusters():
    assert estimate([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]).value == 0.75


@pytest.mark.parametrize(("value", "n"), [(0.0, 10), (1.0, 10), (0.0, 1)])
def test_no_spread_is_not_certainty(value, n):
    # Wilson at the ends: z^2 / (n + z^2) away; about 3.84 / 13.84 = .278 for n = 10
    got = estimate([value] * n)
    reach = Z**2 / (n + Z**2)
    assert (got.low, got.high) == pytest.approx((0, reach) if value == 0 else (1 - reach, 1))


def test_no_spread_counts_clusters():
    assert estimate([1.0] * 100, ["one prompt"] * 100).low == pytest.approx(
        1 - 3.8415 / 4.8415, abs=1e-4
    )


def test_macro_weighs_groups_alike():
    # (1 + 1/4) / 2, though five of eight values are from the first group
    got = macro_estimate({"a": ([1.0] * 5, None), "b": ([1.0, 0, 0, 0], None)})
    assert got.value == 0.625
    assert got.n == 9
    assert 0.5 <= got.low < 0.625 < got.high <= 1


def test_same_seed_same_interval():
    values = np.random.default_rng(3).random(50).tolist()
    assert estimate(values) == estimate(values)
    assert estimate(values) != estimate(values, seed=1)


def test_scaled_and_json():
    got = estimate([0.0, 1.0] * 50).scaled(5)
    assert got.value == 2.5
    assert got.to_json() == {"value": 2.5, "low": got.low, "high": got.high, "n": 100}


@pytest.mark.parametrize(
    ("values", "clusters"), [([], None), ([0.5], ["a", "b"]), ([1.5], None), ([math.nan], None)]
)
def test_refused(values, clusters):
    with pytest.raises(ValueError):
        estimate(values, clusters)


def test_macro_needs_a_group():
    with pytest.raises(ValueError, match="at least one group"):
        macro_estimate({})


def test_weighted_groups_by_hand():
    """Means of 1, 0 and .5 weigh 2, 1 and 1 parts of 4: .5 + 0 + .125."""
    groups = {"a": ([1.0, 1.0], None), "b": ([0.0, 0.0], None), "c": ([1.0, 0.0], None)}
    found = macro_estimate(groups, weights={"a": 2, "b": 1, "c": 1})
    assert found.value == pytest.approx(0.625)
    assert found.low == pytest.approx(0.5)  # the third group's mean is 0 to 1
    assert found.high == pytest.approx(0.75)
    assert macro_estimate(groups).value == pytest.approx(0.5)
