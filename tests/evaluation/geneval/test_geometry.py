"""Boxes by hand."""

import numpy as np
import pytest

from unified_rl.evaluation.geneval.geometry import overlap, relations


def box(*edges):
    return np.array(edges, np.float64)


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        (box(0, 0, 9, 9), box(0, 0, 9, 9), 1.0),
        # 5 x 10 pixels shared, of 100 + 100 - 50
        (box(0, 0, 9, 9), box(5, 0, 14, 9), 50 / 150),
        (box(0, 0, 9, 9), box(10, 0, 19, 9), 0.0),
        # side by side on one column: the last pixel is the box's own, so 10 are shared of 190
        (box(0, 0, 9, 9), box(9, 0, 18, 9), 10 / 190),
        (box(0, 0, 0, 0), box(0, 0, 0, 0), 1.0),
        (box(5, 5, 3, 3), box(9, 9, 7, 7), 0.0),  # turned inside out: no area at all
    ],
)
def test_overlap(first, second, want):
    assert overlap(first, second) == pytest.approx(want)
    assert overlap(second, first) == pytest.approx(want)


@pytest.mark.parametrize(
    ("first", "want"),
    [
        # 10 x 10 boxes against one centred at (100, 100): an axis is shortened by .1 * 20 = 2
        ((60, 100), {"left of"}),  # 38 / 40
        ((140, 100), {"right of"}),
        ((100, 60), {"above"}),
        ((100, 140), {"below"}),
        ((60, 60), {"left of", "above"}),  # 38 / 56.6 = .67 along both
        ((60, 140), {"left of", "below"}),
        ((100, 100), set()),  # no offset at all
        ((102, 100), set()),  # 2 - 2 = 0: swallowed
        ((103, 100), set()),  # 1 / 3 is under .5
        ((104, 100), set()),  # 2 / 4 is .5, not beyond it
        ((105, 100), {"right of"}),  # 3 / 5
        # 30 to the right, 20 down: 28 / 36.06 = .78 and 18 / 36.06 = .499
        ((130, 120), {"right of"}),
    ],
)
def test_relations(first, want):
    def around(x, y):
        return box(x - 5, y - 5, x + 5, y + 5)

    assert relations(around(*first), around(100, 100)) == want


def test_large_objects_have_a_large_dead_zone():
    # 100 wide both: 20 of the offset of 30 are swallowed, 10 / 30 is under .5
    assert relations(box(30, 0, 130, 10), box(0, 0, 100, 10)) == set()
    assert relations(box(30, 0, 130, 10), box(0, 0, 100, 10), dead_zone=0) == {"right of"}
