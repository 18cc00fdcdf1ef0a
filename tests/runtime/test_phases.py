"""Pipelines as graphs: what phases need, and what is refused before anything runs."""

import re
from pathlib import Path

import pytest
import yaml

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.paper_table import read_table
from unified_rl.runtime.phases import Merge, Prefer, needed, read_phases

ROOT = Path(__file__).parents[2]
FILE = "conf/pipeline/toy.yaml"
TREE = [
    {"name": "base", "evaluate": True},
    {"name": "trunk", "experiment": "a/b", "evaluate": True},
    {"name": "left", "experiment": "a/b", "overrides": ["iterations=1"], "evaluate": True},
    {"name": "right", "experiment": "a/b", "from": "trunk", "evaluate": True},
    {
        "name": "both",
        "merge": {"rule": "gaussian", "of": ["left", "right"], "base": "trunk"},
        "evaluate": True,
    },
    {"name": "alone", "experiment": "a/b", "from": "base", "evaluate": True},
]
ROUNDS = [
    {"name": "base", "evaluate": True},
    {"name": "pairs", "prefer": {"count": 8}},
    {"name": "one", "experiment": "a/b", "pairs": "pairs", "evaluate": True},
    {"name": "more", "prefer": {"count": 9, "previous": "pairs"}, "overrides": ["seed=1"]},
    {"name": "two", "experiment": "a/b", "from": "one", "pairs": "more", "evaluate": True},
]


def test_a_phase_goes_on_from_the_one_before_or_the_one_it_names():
    phases = {phase.name: phase for phase in read_phases(TREE, FILE)}
    starts = {name: phase.start for name, phase in phases.items()}
    assert starts == {
        "base": None,
        "trunk": "base",
        "left": "trunk",
        "right": "trunk",
        "both": None,
        "alone": "base",
    }
    assert phases["both"].merge == Merge("gaussian", ("left", "right"), "trunk")
    assert phases["both"].needs == ("left", "right", "trunk")
    assert phases["left"].overrides == ("iterations=1",)


def test_preferences_are_made_by_one_phase_and_learnt_by_another():
    phases = {phase.name: phase for phase in read_phases(ROUNDS, FILE)}
    assert phases["pairs"].prefer == Prefer(8, None)
    assert phases["more"].prefer == Prefer(9, "pairs")
    assert phases["more"].overrides == ("seed=1",)
    assert [phase.pairs for phase in phases.values()] == [None, None, "pairs", None, "more"]
    assert {name: phase.needs for name, phase in phases.items()} == {
        "base": (),
        "pairs": ("base",),
        "one": ("pairs", "pairs"),
        "more": ("one", "pairs"),
        "two": ("one", "more"),
    }
    assert not phases["more"].makes_weights
    found = needed(tuple(phases.values()), ["one"], FILE)
    assert [phase.name for phase in found] == ["base", "pairs", "one"]


@pytest.mark.parametrize(
    ("only", "run"),
    [
        (["alone"], ["base", "alone"]),
        (["right"], ["base", "trunk", "right"]),
        (["both"], ["base", "trunk", "left", "right", "both"]),
        (["alone", "trunk"], ["base", "trunk", "alone"]),
    ],
)
def test_a_choice_brings_what_it_needs_and_scores_itself_alone(only, run):
    found = needed(read_phases(TREE, FILE), only, FILE)
    assert [phase.name for phase in found] == run
    assert {phase.name for phase in found if phase.evaluate} == set(only)


def test_no_choice_is_all():
    phases = read_phases(TREE, FILE)
    assert needed(phases, None, FILE) == phases


@pytest.mark.parametrize(
    ("only", "says"),
    [
        (["rigth"], "did you mean 'right'?"),
        ([], "leaves nothing to do"),
        ([3], "no phase 3; known"),
    ],
)
def test_a_choice_of_nothing_is_refused(only, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as error:
        needed(read_phases(TREE, FILE), only, FILE)
    assert FILE in str(error.value)


A, B = ({"name": name, "experiment": "a/b"} for name in "ab")
MISTAKES = {
    "unknown start": ([A, B | {"from": "c"}], "phase 'b' needs 'c'; known: a, b"),
    "itself": ([A | {"from": "a"}], "phase 'a' needs itself: a -> a"),
    "a cycle": ([A | {"from": "b"}, B], "needs itself: "),
    "a later one": (
        [A | {"from": "c"}, {"name": "c", "experiment": "a/b", "from": "b"}, B],
        "needs itself: ",
    ),
    "out of order": (
        [A, B | {"from": "c"}, {"name": "c", "experiment": "a/b", "from": "a"}],
        "phase 'b' needs 'c', which comes after it; put that first",
    ),
    "unknown in a merge": (
        [A, B, {"name": "m", "merge": {"rule": "linear", "of": ["a", "x"]}}],
        "phase 'm' needs 'x'; known: a, b, m",
    ),
    "one name twice": ([A, A], "two phases of the name 'a'; rename one"),
    "a folder elsewhere": ([{"name": "../a", "evaluate": True}], "phase 1 has the name '../a'"),
    "a name of the summary": ([{"name": "scale", "evaluate": True}], "has the name 'scale'"),
    "no mapping": (["a"], "phase 1 has the name None"),
    "a typo": ([A | {"evalute": True}], "'evalute'; did you mean 'evaluate'?"),
    "a typo in a merge": (
        [A, B, {"name": "m", "merge": {"rule": "linear", "off": ["a", "b"]}}],
        "phase 'm', merge has no setting 'off'; did you mean 'of'?",
    ),
    "both": ([A | {"merge": {"rule": "linear", "of": ["a", "b"]}}], "has experiment and merge"),
    "train and prefer": ([A | {"prefer": {"count": 1}}], "has experiment and prefer; make two"),
    "a prefer of nothing": ([A, {"name": "p", "prefer": {}}], "prefer.count=None must be a number"),
    "a prefer of none": ([A, {"name": "p", "prefer": {"count": 0}}], "prefer.count=0 must be"),
    "a prefer of yes": ([A, {"name": "p", "prefer": {"count": True}}], "prefer.count=True must be"),
    "a number alone": ([A, {"name": "p", "prefer": 8}], "prefer=8 must say count"),
    "a typo in a prefer": (
        [A, {"name": "p", "prefer": {"count": 8, "previos": "a"}}],
        "prefer has no setting 'previos'; did you mean 'previous'?",
    ),
    "a round before that trained": (
        [A, {"name": "p", "prefer": {"count": 8, "previous": "a"}}],
        "phase 'p' needs preferences of 'a', which makes none; name a phase with prefer",
    ),
    "two rounds before": (
        [A, {"name": "p", "prefer": {"count": 8, "previous": ["a"]}}],
        "prefer.previous=['a'] must name one phase",
    ),
    "a scored prefer": (
        [A, {"name": "p", "prefer": {"count": 8}, "evaluate": True}],
        "prefer makes no weights to score; leave evaluate out",
    ),
    "pairs of a training": (
        [A, B | {"pairs": "a"}],
        "'a', which makes none; name a phase with prefer",
    ),
    "pairs of nobody": ([A, B | {"pairs": "c"}], "phase 'b' needs 'c'"),
    "pairs of two": ([A, B | {"pairs": ["a"]}], "pairs=['a'] must name one phase"),
    "pairs that nothing learns": (
        [A, {"name": "e", "evaluate": True, "pairs": "a"}],
        "pairs=a is what an experiment trains on; give experiment",
    ),
    "nothing": ([{"name": "a"}], "does nothing; give experiment, merge, prefer or evaluate: true"),
    "a merge of one": (
        [A, {"name": "m", "merge": {"rule": "linear", "of": ["a"]}}],
        "merge.of=['a'] must list two phases or more, each once",
    ),
    "a merge of one twice": (
        [A, {"name": "m", "merge": {"rule": "linear", "of": ["a", "a"]}}],
        "must list two phases or more, each once",
    ),
    "a merge that starts": (
        [A, B, {"name": "m", "from": "a", "merge": {"rule": "linear", "of": ["a", "b"]}}],
        "a merge has no from; its base is merge.base",
    ),
    "a text for a list": ([A | {"overrides": "iterations=1"}], "overrides=iterations=1 must be"),
    "a text for a switch": ([A | {"evaluate": "yes"}], "evaluate=yes must be true or false"),
    "two starts": ([A, B | {"from": ["a"]}], "from=['a'] must name one phase"),
    "two bases": (
        [A, B, {"name": "m", "merge": {"rule": "linear", "of": ["a", "b"], "base": ["a"]}}],
        "merge.base=['a'] must name one phase",
    ),
    "none": ([], "has no phases"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_file(name):
    entries, says = MISTAKES[name]
    with pytest.raises(ConfigError, match=re.escape(says)) as error:
        read_phases(entries, FILE)
    assert str(error.value).startswith(FILE) and "\n" not in str(error.value)


PIPELINES = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / "conf" / "pipeline").glob("*.yaml"))
}


def settings_of(pipeline):
    """Of its file, over those of the pipeline that it extends."""
    content = PIPELINES[pipeline]
    extended = [name for name in content.get("defaults", []) if name != "_self_"]
    return {key: value for name in extended for key, value in settings_of(name).items()} | content


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pipeline_is_a_graph_in_a_folder_of_its_name_or_of_the_one_it_extends(pipeline):
    content = settings_of(pipeline)
    assert content["name"] in (pipeline, PIPELINES[pipeline].get("defaults", [None])[0])
    first = settings_of(content["name"])
    assert content["phases"][: len(first["phases"])] == first["phases"]
    assert read_phases(content["phases"], pipeline)


TABLES = sorted((ROOT / "experiments").glob("*/paper.yaml"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_every_table_draws_on_what_its_pipeline_scores(path):
    table = read_table(path.parent)
    if table.rows_are == "rungs":
        scored = [{rung.stem for rung in (ROOT / "conf" / "rung").glob("*.yaml")}]
    else:
        name = table.runs.parts[2]  # outputs/sweeps/<pipeline>/<model>
        sharing = [s for s in map(settings_of, PIPELINES) if s["name"] == name]
        listed = [read_phases(settings["phases"], name) for settings in sharing]
        scored = [{phase.name for phase in phases if phase.evaluate} for phases in listed]
        assert set(table.metrics) <= set(sharing[0].get("headline", table.metrics))
    rows = {source for row in table.rows for source in row.sources.values()}
    assert any(rows <= found for found in scored)
