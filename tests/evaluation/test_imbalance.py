"""Conditional accuracies by hand, and the paper's own."""

import pytest

from unified_rl.core.sample import Sample, Task
from unified_rl.evaluation.imbalance import conditional_accuracies, described

GENEVAL = {
    "single": 80,
    "two": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "attribution": 100,
}
# UniRL's Table 4 (accuracy of drawing) and left half of Table 6 (T2I->MMU), and its "overall"
PAPER = {
    "Show-o": ((0.96, 0.64, 0.67, 0.81, 0.25, 0.37), (0.98, 0.89, 0.92, 0.94, 0.10, 0.61), 0.83),
    "SFT": ((0.99, 0.93, 0.62, 0.89, 0.55, 0.68), (0.11, 0.99, 0.97, 0.99, 0.83, 0.98), 0.81),
    "GRPO": ((0.95, 0.77, 0.65, 0.82, 0.50, 0.60), (0.99, 0.97, 0.90, 0.99, 0.81, 0.85), 0.93),
    "Janus": ((0.96, 0.64, 0.29, 0.81, 0.49, 0.46), (0.91, 0.59, 0.71, 0.96, 0.20, 0.42), 0.67),
}


def rows(category, count, given, both, images=1):
    """`count` prompts with so many images each, of which the first `given` and `both` are right."""
    samples = [
        Sample(f"{category} {n // images}", Task.TEXT_TO_IMAGE, (), facts={"category": category})
        for n in range(count * images)
    ]
    ups = [[n < right for n in range(len(samples))] for right in (given, both)]
    return list(zip(samples, *ups, strict=True))


def accuracies(table):
    return conditional_accuracies("chain", *zip(*table, strict=True))


def test_a_table_by_hand():
    # single: 8 right of 10, of them 6 both; two: 4 of 10, of them 1; colors: none right
    table = rows("single", 10, 8, 6) + rows("two", 10, 4, 1) + rows("colors", 5, 0, 0)
    found = accuracies(table)
    assert set(found) == {"chain", "chain/single", "chain/two"}  # never 0/0
    assert found["chain/single"].value == 6 / 8 and found["chain/single"].n == 8
    assert found["chain/two"].value == 1 / 4 and found["chain/two"].n == 4
    assert found["chain"].value == pytest.approx(7 / 12)  # the mean of both would be 1/2
    assert found["chain"].n == 12
    assert described("pictures", *list(zip(*table, strict=True))[1:]) == (
        "7 both right of 12 pictures right of 25"
    )


def test_what_is_right_second_alone_does_not_count():
    sample = rows("single", 1, 0, 0)[0][0]
    found = conditional_accuracies("chain", [sample, sample], [True, False], [False, True])
    assert found["chain"].value == 0 and found["chain"].n == 1


def test_nothing_right_has_no_value():
    assert accuracies(rows("single", 3, 0, 0)) == {}


def test_intervals_resample_prompts():
    """10 prompts of 4 alike images are 10 trials, not 40: the interval is twice as wide."""
    alike = rows("single", 10, 40, 20, images=4)
    apart = rows("single", 40, 40, 20)
    wide, narrow = accuracies(alike)["chain"], accuracies(apart)["chain"]
    assert wide.value == narrow.value == 0.5
    assert 1.7 < (wide.high - wide.low) / (narrow.high - narrow.low) < 2.3


@pytest.mark.parametrize("model", PAPER)
def test_the_papers_overall_is_the_micro_average(model):
    drawn, answered, overall = PAPER[model]
    table = []
    for (category, count), right, both in zip(GENEVAL.items(), drawn, answered, strict=True):
        given = round(4 * count * right)
        table += rows(category, count, given, round(given * both), images=4)
    found = accuracies(table)
    assert found["chain"].value == pytest.approx(overall, abs=0.01)
    assert found["chain/colors"].value == pytest.approx(answered[3], abs=0.005)
