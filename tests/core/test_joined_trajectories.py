"""Trajectories of different length and different tapes as one."""

import pytest
import torch

from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.trajectory import Trajectory, join

PLAIN = Behaviour()


def made(rows, columns, value, behaviour=PLAIN, **tape):
    return Trajectory(
        behaviour,
        torch.full((rows, columns, 1), value),
        torch.ones(rows, columns, 1, dtype=torch.bool),
        torch.ones(rows, columns, dtype=torch.long),
        torch.zeros(rows, columns, dtype=torch.long),
        {"segment": torch.zeros(rows, columns, dtype=torch.long), **tape},
    )


def test_shorter_rows_are_filled_with_what_means_nothing():
    joined = join([made(1, 2, -1.0), made(2, 3, -2.0)])
    assert joined.row_count == 3
    assert joined.logprobs[..., 0].tolist() == [[-1, -1, 0], [-2, -2, -2], [-2, -2, -2]]
    assert joined.action_mask[0, :, 0].tolist() == [True, True, False]
    assert joined.segment[0].tolist() == joined.tape["segment"][0].tolist() == [0, 0, -1]


def test_what_one_tape_lacks_is_filled_too():
    pictured = made(1, 2, 0.0, shown=torch.ones(1, 1, 3, 4, 4), support=torch.ones(1, 2, 5).bool())
    joined = join([made(2, 3, 0.0), pictured])
    assert joined.tape["shown"].shape == (3, 1, 3, 4, 4)
    assert joined.tape["shown"].flatten(1).sum(1).tolist() == [0, 0, 48]  # 1 x 3 x 4 x 4 ones
    assert joined.tape["support"].shape == (3, 3, 5)
    assert joined.tape["support"].dtype == torch.bool
    assert joined.tape["support"].flatten(1).sum(1).tolist() == [0, 0, 10]


def test_columns_behind_the_longest_row_are_cut_off():
    short = join([made(1, 2, -1.0), made(2, 3, -2.0)]).select(slice(0, 1))
    assert short.lengths.tolist() == [2]
    cut = short.trimmed()
    assert cut.logprobs[..., 0].tolist() == [[-1, -1]]
    assert cut.tape["segment"].tolist() == [[0, 0]]


def test_rows_come_back_as_they_were():
    first, second = made(1, 2, -1.0), made(2, 3, -2.0)
    back = join([first, second]).select(slice(1, 3))
    assert torch.equal(back.logprobs, second.logprobs)
    assert torch.equal(back.tape["segment"], second.tape["segment"])


def test_rows_drawn_in_different_ways_are_refused():
    hot = Behaviour(text=Sampling(temperature=2.0))
    with pytest.raises(ValueError, match="different behaviours"):
        join([made(1, 2, 0.0), made(1, 2, 0.0, behaviour=hot)])
