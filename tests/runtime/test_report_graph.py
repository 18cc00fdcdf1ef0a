"""Phases are placed below the one that they go on from."""

import pytest

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.report_graph import places

ENTRIES = [
    {"name": "base", "experiment": "corl/micro_base"},
    {"name": "unified", "experiment": "corl/micro_unified"},  # without from: after base
    {"name": "alone", "experiment": "corl/micro_refined_mc", "from": "base"},
    {"name": "left", "experiment": "corl/micro_refined_mc", "from": "unified"},
    {"name": "right", "experiment": "x", "from": "unified", "overrides": ["iterations=3"]},
    {"name": "merged", "merge": {"rule": "gaussian", "of": ["left", "right"], "base": "unified"}},
    {"name": "mean", "merge": {"rule": "average", "of": ["right", "left"]}},
]
NAMES = [entry["name"] for entry in ENTRIES]


def test_each_phase_follows_what_it_goes_on_from():
    assert [(p.name, p.depth, p.start) for p in places(ENTRIES, NAMES)] == [
        ("base", 0, None),
        ("unified", 1, "base"),
        ("left", 2, "unified"),
        ("right", 2, "unified"),
        ("mean", 3, "right"),  # has no base: the first that it merges
        ("merged", 2, "unified"),
        ("alone", 1, "base"),
    ]


def test_deeds_are_told():
    found = {place.name: place for place in places(ENTRIES, NAMES)}
    assert found["base"].deed == "trains corl/micro_base"
    assert found["merged"].deed == "gaussian merge of left and right"
    assert found["right"].overrides == ("iterations=3",)
    scored = places([{"name": "only", "evaluate": True}], ["only"])
    assert scored[0].deed == "only scored"


def test_a_start_that_left_no_numbers_is_none():
    found = places(ENTRIES, ["left", "merged"])
    assert [(p.name, p.depth, p.start) for p in found] == [("left", 0, None), ("merged", 0, None)]


def test_phases_of_an_unknown_pipeline_stand_alone():
    assert [(p.name, p.depth, p.deed) for p in places(None, ["b", "a"])] == [
        ("b", 0, ""),
        ("a", 0, ""),
    ]


def test_a_long_chain_is_no_harm():
    entries = [{"name": f"p{n}", "evaluate": True} for n in range(2000)]
    assert places(entries, [entry["name"] for entry in entries])[-1].depth == 1999


def test_entries_that_no_pipeline_would_run_are_told():
    with pytest.raises(ConfigError, match="the summary's pipeline, phase 'a' needs 'c'"):
        places([{"name": "a", "experiment": "x", "from": "c"}], ["a"])
