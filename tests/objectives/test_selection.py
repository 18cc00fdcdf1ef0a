"""The completions of a group whose rewards vary most, against every subset."""

import itertools

import pytest
import torch

from unified_rl.objectives.selection import most_spread


def test_the_best_and_the_worst_by_hand():
    # group 1: 0 .5 .5 1 -> worst and best; group 2: any of three alike and the other
    rows = most_spread(torch.tensor([0.5, 0.0, 1.0, 0.5, 2.0, 2.0, 2.0, 7.0]), 4, 2)
    assert rows.tolist() == [1, 2, 6, 7]


def test_a_lone_success_is_kept_with_as_many_failures_as_there_is_room():
    rows = most_spread(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]), 5, 3)
    assert 2 in rows.tolist() and len(set(rows.tolist())) == 3


@pytest.mark.parametrize("kept", [2, 3, 4, 5, 6])
def test_no_other_subset_varies_more(kept):
    outcome = torch.rand(40 * 6, generator=torch.Generator().manual_seed(0)).mul(4).round()
    rows = most_spread(outcome, 6, kept).view(40, kept)
    for group in range(40):
        rewards = outcome[group * 6 : group * 6 + 6].tolist()
        best = max(_variance(subset) for subset in itertools.combinations(rewards, kept))
        found = outcome[rows[group]].tolist()
        assert _variance(found) == pytest.approx(best, abs=1e-12)
        assert rows[group].tolist() == sorted(set(rows[group].tolist()))
        assert set((rows[group] // 6).tolist()) == {group}


@pytest.mark.parametrize(("count", "size", "kept"), [(8, 4, 1), (8, 4, 5), (7, 4, 2)])
def test_sizes_that_do_not_fit_are_refused(count, size, kept):
    with pytest.raises(ValueError, match="must be from 2"):
        most_spread(torch.zeros(count), size, kept)


def _variance(values):
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)
