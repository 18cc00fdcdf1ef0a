"""Graphs and their F1 by hand, and a parser that knows three sentences."""

from pathlib import Path

import pytest

from tests.rewards.judges import GRAPHS, parser_folder
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.rewards.parsed_scene_graphs import ParsedSceneGraphScore, graph_f1, read_graph
from unified_rl.rewards.specimens import bert_folder

LEFT, TWO, CIRCLE = GRAPHS
LEFT_GRAPH = {
    ("circle",),
    ("circle", "red"),
    ("square",),
    ("square", "blue"),
    ("circle", "left of", "square"),
}


@pytest.mark.parametrize(
    ("written", "tuples"),
    [
        (GRAPHS[LEFT], LEFT_GRAPH),
        ("( Dogs , is , 2 )", {("dogs",), ("dogs", "2")}),
        ("( dog )", {("dog",)}),
        ("(dog,brown)", {("dog",), ("dog", "brown")}),
        # a comma in the relation
        ("( a , next , to , b )", {("a",), ("b",), ("a", "next to", "b")}),
        # cut off by the limit of tokens
        ("( dog , on , sofa ) , ( sofa , is", {("dog",), ("sofa",), ("dog", "on", "sofa")}),
        ("( dog , , sofa ) , ( )", set()),
        ("no graph", set()),
        ("((((" * 10_000, set()),
        ("(" + "," * 10_000 + ")", set()),
    ],
)
def test_graphs_are_read(written, tuples):
    assert read_graph(written) == tuples


@pytest.mark.parametrize(
    ("reference", "caption", "score"),
    [
        (GRAPHS[LEFT], GRAPHS[LEFT], 1),
        # 2 of 5 and 2 tuples: 2 * 2 / 7
        (GRAPHS[LEFT], "( circle , is , red )", 4 / 7),
        # the relation the wrong way round: 4 of 5 and 5
        (GRAPHS[LEFT], GRAPHS[LEFT].replace("left", "right"), 0.8),
        # singular, plural and synonyms of objects: all 3 of 3 match
        ("( dogs , on , couch )", "( dog , on , sofa )", 1),
        ("( man , ride , bike )", "( people , ride , bicycle )", 2 / 3 * 0 + 2 * 1 / 6),
        # each matches once: of 2 and 1 tuples one pair
        ("( person ) , ( woman )", "( person )", 2 / 3),
        ("( man ) , ( dog )", "( person ) , ( people )", 2 / 4),
        # relations and attributes have no synonyms
        ("( dog , is , big )", "( dog , is , large )", 0.5),
        # a number is an attribute
        ("( dogs , is , 2 )", "( dogs , is , 3 )", 0.5),
        ("", "( dog )", 0),
        ("( dog )", "", 0),
        ("", "", 0),
    ],
)
def test_f1(reference, caption, score):
    a, b = read_graph(reference), read_graph(caption)
    assert graph_f1(a, b) == pytest.approx(score)
    assert graph_f1(b, a) == pytest.approx(score)


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    return str(parser_folder(tmp_path_factory.mktemp("parser")))


@pytest.mark.parametrize(("beam_count", "batch_size"), [(5, 32), (1, 2)])
def test_texts_are_parsed(parser, beam_count, batch_size):
    score = ParsedSceneGraphScore(parser, beam_count=beam_count, batch_size=batch_size)
    assert score.graphs([LEFT, TWO, CIRCLE]) == [read_graph(GRAPHS[t]) for t in GRAPHS]
    # of LEFT's 5 tuples and CIRCLE's 1 one matches; TWO has circles, circles 2, square
    want = [1, 2 / 6, 2 * 2 / 8, 0, 0]
    captions = [LEFT, CIRCLE, TWO, "", "  "]
    assert score([LEFT] * 5, captions) == pytest.approx(want)
    assert score([LEFT] * 5, captions) == [score([LEFT], [text])[0] for text in captions]


def test_sentences_are_parsed_apart(parser):
    score = ParsedSceneGraphScore(parser, beam_count=1)
    (both,) = score.graphs([f"{LEFT}\n\n {TWO} "])
    assert both == read_graph(GRAPHS[LEFT]) | read_graph(GRAPHS[TWO])


@pytest.mark.parametrize(
    "text", ["circle " * 20_000, ". " * 50_000, "</s>" * 9_000, "é\x00" * 9_000]
)
def test_long_texts_are_cut(parser, text):
    (value,) = ParsedSceneGraphScore(parser, beam_count=1, max_new_tokens=8)([LEFT], [text])
    assert 0 <= value <= 1


def test_a_limit_cuts_a_graph_off(parser):
    # "( circle , is , red ) , (": what is whole counts
    score = ParsedSceneGraphScore(parser, beam_count=1, max_new_tokens=9)
    assert score.graphs([LEFT]) == [{("circle",), ("circle", "red")}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_count": 0}, "beam_count=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"dtype": "float16"}, "float16"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        ParsedSceneGraphScore("unread", **settings)


def test_folders_are_checked(parser, tmp_path):
    with pytest.raises(CheckpointError, match="caption_score.checkpoint=nowhere is not a folder"):
        ParsedSceneGraphScore("nowhere")
    with pytest.raises(CheckpointError, match="model_type 'bert', not t5"):
        ParsedSceneGraphScore(str(bert_folder(tmp_path)))
    (tmp_path / "config.json").write_bytes((Path(parser) / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"lacks \d+ weights"):
        ParsedSceneGraphScore(str(tmp_path))
