"""The stream of samples: its shares, its seeds, its place, and what a split holds."""

import itertools

import numpy as np
import pytest

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.data.microworld import DrawingSource, StorySource, TextSource
from unified_rl.data.mixture import MixtureStream, SampleDataModule
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.stories import stories


class Named:
    """Samples that carry the name of their source and one random number."""

    image_size = None

    def __init__(self, name):
        self.name = name

    def draw(self, rng):
        return Sample(f"{self.name}/{rng.random()}", Task.TEXT, (Text(self.name),), (Text("x"),))


SOURCES = {name: Named(name) for name in "abc"}
RATIOS = {"a": 3.0, "b": 1.0, "c": 0.0}


def ids(count, seed=0, start=0, ratios=RATIOS, **sharing):
    stream = MixtureStream(SOURCES, ratios, seed, start, **sharing)
    return [sample.id for sample in itertools.islice(stream, count)]


# -- stream ----------------------------------------------------------------------------------------


def test_ratios_are_met():
    count, share = 4000, 0.75  # 3 : 1
    found = sum(name.startswith("a/") for name in ids(count)) / count
    assert abs(found - share) <= 4 * (share * (1 - share) / count) ** 0.5  # 4 deviations, 0.027


def test_a_ratio_of_zero_leaves_a_source_out():
    assert not any(name.startswith("c/") for name in ids(1000))


def test_only_the_proportion_of_ratios_counts():
    assert ids(50) == ids(50, ratios={"a": 0.75, "b": 0.25, "c": 0})


def test_the_same_seed_gives_the_same_stream():
    assert ids(50) == ids(50)


def test_sources_take_turns():
    ratios = {"a": 3.0, "b": 1.0, "c": 0.0}  # of which turns keep only who takes part
    stream = MixtureStream(SOURCES, ratios, 0, turn=2)
    names = [sample.id[0] for sample in itertools.islice(stream, 8)]
    assert names == list("aabbaabb")
    later = MixtureStream(SOURCES, ratios, 0, start=3, turn=2)
    assert [sample.id[0] for sample in itertools.islice(later, 3)] == list("baa")


def test_a_turn_is_counted_in_batches():
    module = SampleDataModule(SOURCES, RATIOS, batch_size=3, seed=0, turn=2)
    batches = itertools.islice(module.train_dataloader(), 5)
    assert ["".join(s.id[0] for s in batch) for batch in batches] == [
        *("aaa", "aaa", "bbb", "bbb", "aaa")
    ]


def test_a_turn_below_0_is_refused():
    with pytest.raises(ConfigError, match="turn=-1"):
        SampleDataModule(SOURCES, RATIOS, batch_size=3, seed=0, turn=-1)


def test_seeds_share_no_sample():
    assert not set(ids(200)) & set(ids(200, seed=1))


def test_ranks_share_the_batches_of_one_process():
    whole = ids(12)  # three batches of four: ranks take the first and the last two of each
    first, last = (ids(6, share=2, rank=rank, rank_count=2) for rank in range(2))
    assert first == [*whole[0:2], *whole[4:6], *whole[8:10]]
    assert last == [*whole[2:4], *whole[6:8], *whole[10:12]]


def test_ranks_go_on_together():
    later = ids(4, start=4, share=2, rank=1, rank_count=2)
    assert later == ids(6, share=2, rank=1, rank_count=2)[2:]


@pytest.mark.parametrize("start", [1, 7, 40])
def test_a_start_skips_that_many(start):
    assert ids(10, start=start) == ids(start + 10)[start:]


def test_other_random_numbers_change_nothing():
    expected = ids(20)
    np.random.seed(1)
    stream = iter(MixtureStream(SOURCES, RATIOS, 0))
    found = []
    for _ in range(20):
        np.random.random()
        found.append(next(stream).id)
    assert found == expected


@pytest.mark.parametrize(
    "ratios",
    [
        {"a": 1.0, "b": 1.0},
        {**RATIOS, "d": 1.0},
        {**RATIOS, "c": -1.0},
        dict.fromkeys(SOURCES, 0.0),
        {},
    ],
    ids=["missing", "unknown", "negative", "all zero", "none"],
)
def test_ratios_that_do_not_fit_are_refused(ratios):
    with pytest.raises(ConfigError, match=r"data\.ratios=.*must give each of \['a', 'b', 'c'\]"):
        MixtureStream(SOURCES, ratios, 0)


# -- module ----------------------------------------------------------------------------------------


def module(batch_size=4):
    return SampleDataModule(SOURCES, RATIOS, batch_size, seed=0)


def consume(data, count):
    """What a run gets from a module, as Lightning asks for it."""
    batches = list(itertools.islice(data.train_dataloader(), count))
    return [[s.id for s in data.on_after_batch_transfer(batch, 0)] for batch in batches]


def test_batches_follow_the_stream():
    assert sum(consume(module(), 3), []) == ids(12)


def test_a_module_goes_on_at_its_place():
    killed, resumed = module(), module()
    consume(killed, 3)
    resumed.load_state_dict(killed.state_dict())
    assert sum(consume(resumed, 2), []) == ids(8, start=12)


def test_what_was_fetched_but_not_used_is_not_lost():
    killed = module()
    loader = iter(killed.train_dataloader())
    killed.on_after_batch_transfer(next(loader), 0)
    next(loader)  # prefetched
    assert killed.state_dict() == {"batches_seen": 1}


def test_an_empty_batch_is_refused():
    with pytest.raises(ConfigError, match="batch_size=0"):
        module(0)


# -- what the micro-world's sources hold -----------------------------------------------------------


def tellings(limit, draws=600):
    """Pictures told for each prompt."""
    source, rng = StorySource("train", gold=True, gold_limit=limit), np.random.default_rng(0)
    told = {}
    for sample in (source.draw(rng) for _ in range(draws)):
        pictures = b"".join(s.pixels.tobytes() for s in sample.target if isinstance(s, Image))
        told.setdefault(sample.prompt_text, set()).add(pictures)
    return told


def test_gold_is_rationed_to_exactly_so_many_tellings():
    # 600 draws miss one of 40 stories with a chance below 40 * (39/40) ** 600 = 1e-5
    assert len(tellings(40)) == 40


def test_a_rationed_telling_has_one_fixed_picture():
    assert {len(pictures) for pictures in tellings(40).values()} == {1}


def test_gold_without_a_ration_is_painted_anew():
    assert any(len(pictures) > 1 for pictures in tellings(None).values())


@pytest.mark.parametrize("limit", [0, 10_000])
def test_a_ration_that_cannot_be_is_refused(limit):
    with pytest.raises(ValueError, match=f"gold_limit={limit}"):
        StorySource("train", gold=True, gold_limit=limit)


TESTED = {
    "stories": lambda: {story.prompt for steps in (2, 3) for story in stories("test", steps)},
    "drawings": lambda: {p.text for c in CATEGORIES for p in prompts(c, "test")},
}
TRAINED = {
    "stories": [StorySource("train", steps=2, gold=True), StorySource("train", steps=3)],
    "drawings": [DrawingSource("train")],
}


@pytest.mark.parametrize("name", TESTED)
def test_no_test_prompt_is_drawn_in_training(name):
    held_out, rng = TESTED[name](), np.random.default_rng(0)
    drawn = {source.draw(rng).prompt_text for source in TRAINED[name] for _ in range(400)}
    assert len(drawn) > 100
    assert not drawn & held_out


def test_no_test_sum_is_drawn_in_training():
    rng = np.random.default_rng(0)
    trained, tested = (
        {TextSource(split).draw(rng).prompt_text for _ in range(400)} for split in ("train", "test")
    )
    assert len(trained) > 50 and len(tested) > 50
    assert not trained & tested
