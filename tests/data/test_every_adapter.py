"""What every adapter must do, whatever its layout; a case in `adapter_cases` puts it here."""

import json
import pickle
import resource

import numpy as np
import pytest

from tests.data.adapter_cases import HAZARDS, all_cases
from unified_rl.core.sample import Image, Sample, Text
from unified_rl.data.reader import OrderedReader

CASES = all_cases()
HAZARD_CASES = [
    pytest.param(case, hazard, id=f"{case.name}-{hazard}")
    for case in CASES
    for hazard in case.hazards
]


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def opened(case, folder):
    case.write(folder)
    return case.open(folder)


def outline(sample):
    """What can be compared of a sample."""
    segments = [
        segment.text if isinstance(segment, Text) else segment.pixels.tobytes()
        for segment in (*sample.prompt, *sample.target)
    ]
    return sample.id, sample.task, segments, json.dumps(dict(sample.facts))


def outlines(pairs):
    return [(position, outline(sample)) for position, sample in pairs]


def test_fixture_is_read_in_order(opened, case):
    pairs = list(opened.in_order())
    assert (
        [position for position, _ in pairs] == list(range(case.row_count)) == [*range(len(opened))]
    )
    assert len({sample.id for _, sample in pairs}) == case.row_count
    assert all(isinstance(sample, Sample) and sample.prompt for _, sample in pairs)
    assert opened.broken_count == 0 and opened.broken_reasons == []
    assert outlines(pairs) == outlines(opened.in_order())
    assert not list(opened.path.parent.rglob("*quarantine*"))


def test_places_tell_rows_apart(opened):
    places = [opened.place(index) for index in range(len(opened))]
    assert len(set(places)) == len(places)
    assert all(isinstance(place, int | str) and place for place in places)


def test_facts_can_be_written(opened):
    for _, sample in opened.in_order():
        json.dumps(dict(sample.facts), allow_nan=False)


def test_draws_depend_on_the_generator_alone(opened, case, folder):
    ids = [opened.draw(np.random.default_rng(seed)).id for seed in range(30)]
    again = case.open(folder)
    assert ids == [again.draw(np.random.default_rng(seed)).id for seed in range(30)]
    assert len(set(ids)) > 1


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("world_size", [1, 3])
def test_reading_goes_on_in_the_middle(opened, case, folder, seed, world_size):
    for rank in range(world_size):
        whole = outlines(OrderedReader(opened, rank, world_size, seed, epochs=2))
        stopped = OrderedReader(opened, rank, world_size, seed, epochs=2)
        read = outlines(next(stopped) for _ in range(len(whole) // 2))
        goes_on = OrderedReader(case.open(folder), rank, world_size, seed, epochs=2)
        goes_on.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        assert read + outlines(goes_on) == whole


@pytest.mark.parametrize("seed", [None, 5])
def test_ranks_share_rows_without_overlap(opened, case, seed):
    shares = [opened.in_order(rank, 3, shuffle_seed=seed) for rank in range(3)]
    ids = [sample.id for share in shares for _, sample in share]
    assert sorted(ids) == sorted(sample.id for _, sample in opened.in_order())


def test_images_are_made_as_large_as_asked(case, folder):
    case.write(folder)
    rows = case.open(folder, image_size=16)
    images = [
        segment.pixels.shape
        for _, sample in rows.in_order()
        for segment in (*sample.prompt, *sample.target)
        if isinstance(segment, Image)
    ]
    assert set(images) <= {(16, 16, 3)} and rows.image_size in (16, None)


def test_travels_to_a_worker(opened):
    copy = pickle.loads(pickle.dumps(opened))
    assert outlines(copy.in_order()) == outlines(opened.in_order())


def test_every_hazard_is_tried_or_cannot_be(case):
    assert set(case.hazards) | set(case.without) == set(HAZARDS)
    assert not set(case.hazards) & set(case.without)


@pytest.mark.parametrize(("case", "hazard"), HAZARD_CASES)
def test_hazard_is_quarantined_and_counted_and_never_fatal(case, hazard, folder, tmp_path):
    case.write(folder)
    good = {sample.id: outline(sample) for _, sample in case.open(folder).in_order()}
    case.hazards[hazard](folder)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)}
    quarantine = tmp_path / "broken.jsonl"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    rows = case.open(folder, quarantine=str(quarantine), max_broken=0.9)
    left = [sample for _, sample in rows.in_order()]

    # what is left is what it was, in the order that it was in
    assert 0 < len(left) < case.row_count
    assert [outline(sample) for sample in left] == [good[sample.id] for sample in left]
    order = list(good)
    assert [sample.id for sample in left] == sorted((s.id for s in left), key=order.index)
    # what is broken is counted, listed once, and passed over when drawn
    listed = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert len(listed) == rows.broken_count >= 1
    assert sum(count for _, count in rows.broken_reasons) == rows.broken_count
    assert all(row["reason"] for row in listed)
    drawn = {rows.draw(np.random.default_rng(seed)).id for seed in range(40)}
    assert drawn <= {sample.id for sample in left}
    # nothing was unpacked, and nothing written elsewhere
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)}
    assert after - before == {quarantine}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < 60 * 1024, f"{grown} KiB more; a picture of 100 megapixels takes 97 656"
    # one that stopped goes on behind broken rows too
    reader = OrderedReader(rows)
    read = [next(reader)[1].id for _ in range(len(left) // 2)]
    goes_on = OrderedReader(rows)
    goes_on.load_state_dict(reader.state_dict())
    assert read + [sample.id for _, sample in goes_on] == [sample.id for sample in left]
