"""What every adapter gets from its base: order, shares of ranks, going on, quarantine."""

import json

import numpy as np
import pytest

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.jsonl import BrokenRowError
from unified_rl.data.permutation import Permutation
from unified_rl.data.reader import OrderedReader


class Numbers(DatasetAdapter):
    """Rows 0..length-1, some of them broken."""

    def __init__(self, path, length=100, broken=(), lost=0, max_broken=0.5):
        super().__init__(path, max_broken=max_broken)
        self.length, self.broken = length, set(broken)
        self.loads = 0
        for number in range(lost):
            self._lost(f"part {number}", "is cut off")
        self._check_rows()

    def __len__(self):
        return self.length

    def load(self, index):
        self.loads += 1
        if index in self.broken:
            raise BrokenRowError("has no number")
        return Sample(str(index), Task.TEXT, (Text(str(index)),))

    def place(self, index):
        return f"number {index}"


@pytest.fixture
def numbers(tmp_path):
    (tmp_path / "numbers").write_text("")

    def numbers(**settings):
        return Numbers(str(tmp_path / "numbers"), **settings)

    return numbers


def listed(tmp_path):
    lines = (tmp_path / "numbers.quarantine.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def indices(pairs):
    return [int(sample.id) for _, sample in pairs]


def test_rows_come_in_order_with_their_places(numbers):
    pairs = list(numbers(length=5).in_order())
    assert [position for position, _ in pairs] == indices(pairs) == [0, 1, 2, 3, 4]


def test_broken_rows_are_passed_over_and_listed_once(numbers, tmp_path):
    source = numbers(length=40, broken=[3, 7])
    for _ in range(2):
        assert indices(source.in_order()) == [i for i in range(40) if i not in (3, 7)]
    assert source.broken_count == 2
    places = [(row["place"], row["reason"]) for row in listed(tmp_path)]
    assert sorted(places) == [("number 3", "has no number"), ("number 7", "has no number")]


def test_ranks_share_the_rows(numbers):
    source = numbers(length=11, broken=[4])
    shares = [indices(source.in_order(rank, 3)) for rank in range(3)]
    assert shares == [[0, 3, 6, 9], [1, 7, 10], [2, 5, 8]]


def test_rows_from_a_place_on_in_shuffled_order(numbers):
    source = numbers(length=11, broken=[4])
    assert [indices(source.in_order(rank, 2, start=6)) for rank in range(2)] == [[6, 8, 10], [7, 9]]
    whole = indices(source.in_order(shuffle_seed=1, epoch=2))
    place = [source.order(1, 2)[position] for position in range(11)]
    assert whole == [row for row in place if row != 4]
    assert indices(source.in_order(start=5, shuffle_seed=1, epoch=2)) == [
        row for row in place[5:] if row != 4
    ]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("stop", [0, 1, 5, 17])
def test_reader_goes_on_where_it_stopped(numbers, seed, stop):
    source = numbers(length=23, broken=[0, 1, 7, 8, 22])
    whole = list(OrderedReader(source, shuffle_seed=seed, epochs=2))
    first = OrderedReader(source, shuffle_seed=seed, epochs=2)
    before = [next(first) for _ in range(stop)]
    second = OrderedReader(source, shuffle_seed=seed, epochs=2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    read = before + list(second)
    assert len(whole) == 36  # two epochs of 23 - 5
    assert [place for place, _ in read] == [place for place, _ in whole]
    assert indices(read) == indices(whole)


def test_another_number_of_ranks_goes_on_after_equal_rounds(numbers):
    source = numbers(length=20, broken=[2, 9])
    readers = [OrderedReader(source, rank, 2) for rank in range(2)]
    read = [indices([next(reader)])[0] for _ in range(2) for reader in readers]
    assert read == [0, 1, 4, 3]  # row 2 is broken: rank 0 is a round ahead
    assert [reader.state_dict() for reader in readers] == [{"position": 6}, {"position": 4}]
    read += indices([next(readers[1])])
    assert [reader.state_dict() for reader in readers] == [{"position": 6}, {"position": 6}]
    for rank in range(3):
        reader = OrderedReader(source, rank, 3)
        reader.load_state_dict({"position": 6})
        read += indices(reader)
    assert sorted(read) == [i for i in range(20) if i not in (2, 9)]


def test_epochs_shuffle_anew_and_hold_every_row_once(numbers):
    source = numbers(length=30)
    rows = indices(OrderedReader(source, shuffle_seed=1, epochs=2))
    assert sorted(rows[:30]) == sorted(rows[30:]) == list(range(30))
    assert rows[:30] != rows[30:] and rows[:30] != list(range(30))


def test_endless_reader_refuses_a_rank_without_a_good_row(numbers):
    reader = OrderedReader(numbers(length=4, broken=[0, 2]), 0, 2, epochs=None)
    with pytest.raises(DataError, match="rank 0's of 2 is broken"):
        next(reader)


def test_draw_depends_on_its_generator_alone(numbers):
    source, other = numbers(broken=[5]), numbers(broken=[5])
    list(other.in_order())
    for seed in range(20):
        drawn = [each.draw(np.random.default_rng(seed)).id for each in (source, other)]
        assert drawn[0] == drawn[1] != "5"


def test_neighbours_that_break_together_are_not_too_many(numbers):
    # the first 80 of 200 are broken: more than half of what is read first, less of the whole
    assert len(list(numbers(length=200, broken=range(80)).in_order())) == 120


def test_too_many_broken_rows_are_refused(numbers):
    with pytest.raises(DataError, match=r"4 of 4 rows read are broken.*number 0 has no number"):
        numbers(length=4, broken=range(4))
    # 8 of the 32 rows read first are broken, and 55 of all: the 51st is more than a quarter
    source = numbers(length=200, broken=range(1, 56), max_broken=0.25)
    with pytest.raises(DataError, match=r"51 of 200 rows"):
        list(source.in_order())


def test_what_was_lost_is_counted_and_listed(numbers, tmp_path):
    source = numbers(length=100, lost=40)
    assert source.broken_count == len(listed(tmp_path)) == 40
    assert len(list(source.in_order())) == 100
    with pytest.raises(DataError, match=r"101 of 201 rows read are broken.*part 0 is cut off"):
        numbers(length=100, lost=101)


@pytest.mark.parametrize("lost", [0, 1])
def test_no_rows_are_refused(numbers, lost):
    with pytest.raises(DataError, match="part 0 is cut off" if lost else "holds no rows"):
        numbers(length=0, lost=lost)


def test_settings_outside_of_their_range_are_refused(numbers, tmp_path):
    source = numbers(length=3)
    for rank, world_size in ((1, 1), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError, match=f"rank={rank}"):
            OrderedReader(source, rank, world_size)
    with pytest.raises(ConfigError, match="epochs=0"):
        OrderedReader(source, epochs=0)
    with pytest.raises(DataError, match="no state of a reader"):
        OrderedReader(source).load_state_dict({"position": -1})
    with pytest.raises(DataError, match="did you mean 'numbers'"):
        Numbers(str(tmp_path / "number"))
    with pytest.raises(ConfigError, match="max_broken=2"):
        numbers(max_broken=2)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 1000])
def test_permutation_holds_every_place_once(length):
    order = Permutation(length, seed=1)
    assert sorted(order[place] for place in range(length)) == list(range(length))


def test_permutation_is_the_same_everywhere_and_moves_with_seed_and_epoch():
    heads = {tuple(Permutation(10**9, s, e)[i] for i in range(3)) for s in (0, 1) for e in (0, 1)}
    assert len(heads) == 4
    assert [Permutation(10, 0)[place] for place in range(10)] == RECORDED
    with pytest.raises(IndexError):
        Permutation(10, 0)[10]


RECORDED = [7, 6, 5, 0, 4, 2, 9, 3, 1, 8]
"""Written down once: a shuffled run goes on in the same order under any version."""


def test_permutation_spreads_evenly():
    # 400 seeds: each of 8 values is expected 50 times in the first place, deviation 6.6
    counts = np.bincount([Permutation(8, seed)[0] for seed in range(400)], minlength=8)
    assert np.all(np.abs(counts - 50) < 27)
