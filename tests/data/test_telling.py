"""Instructions, thoughts, and which moments are shown."""

import numpy as np
import pytest

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Completion, Image, Text
from unified_rl.data.fields import field_of
from unified_rl.data.keyframes import KeyframeRule
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.telling import Instruction, sentence_of, telling
from unified_rl.rewards.format import is_well_formed


def test_an_instruction_is_filled():
    told = Instruction("{count} steps, from {first} Do: {story}").text(["Mix it.", "Bake {first}."])
    assert told == Text("2 steps, from Mix it. Do: Mix it. Bake {first}.")


@pytest.mark.parametrize(
    ("template", "message"),
    [("tell {stories}", "did you mean 'story'"), ("a {} b", "known: count"), (" ", "is empty")],
)
def test_an_instruction_that_cannot_be_filled(template, message):
    with pytest.raises(ConfigError, match=message):
        Instruction(template)


def test_a_telling_keeps_to_the_grammar():
    images = [Image(np.full((2, 2, 3), number, np.uint8)) for number in range(2)]
    target = telling(zip(["one", "two"], images, strict=True))
    assert target == (Text("<think> one <vis>"), images[0], Text("<think> two <vis>"), images[1])
    assert is_well_formed(Completion(target, finished=True))


def test_a_sentence_is_one_line():
    assert sentence_of("  a \n\t b ", "caption") == "a b"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("say <vis> now", "'caption' holds <vis>"),
        ("a <thi\nnk> b", None),
        ("<think>", "'caption' holds <think>"),
        (3, "is a int"),
        (None, "has no 'caption'"),
        ("\udcff", "not Unicode"),
        ("a" * 2001, "2001 characters"),
    ],
)
def test_a_sentence_that_is_none(value, message):
    if message is None:  # what would be a tag without the line's end is none with a space
        assert sentence_of(value, "caption") == "a <thi nk> b"
        return
    with pytest.raises(BrokenRowError, match=message):
        sentence_of(value, "caption")


@pytest.mark.parametrize(
    ("start_s", "end_s", "times_s"),
    [
        (0.0, 4.0, (2.0,)),  # one stretch of 10 s is begun: the middle of all
        (5.0, 15.0, (10.0,)),
        (0.0, 12.0, (3.0, 9.0)),  # two are: the middles of 0..6 and 6..12
        (0.0, 900.0, (150.0, 450.0, 750.0)),  # ninety are, but three is the most
    ],
)
def test_longer_stretches_have_more_keyframes(start_s, end_s, times_s):
    assert KeyframeRule(seconds_per_frame=10.0, least=1, most=3).times(start_s, end_s) == times_s


def test_the_shortest_stretch_has_the_least_keyframes():
    assert KeyframeRule(10.0, least=2, most=3).times(0.0, 1.0) == (0.25, 0.75)


@pytest.mark.parametrize("settings", [(0.0, 1, 3), (float("nan"), 1, 3), (1.0, 0, 3), (1.0, 4, 3)])
def test_a_rule_out_of_range(settings):
    with pytest.raises(ConfigError):
        KeyframeRule(*settings)


def test_fields_inside_of_fields():
    row = {"a": {"b": {"c": 1}}, "json": '{"caption": "x"}', "text": "no json"}
    assert field_of(row, "a.b.c") == 1
    assert field_of(row, "json.caption") == "x"
    for path, message in (
        ("a.b.d", "has no 'a.b.d'; known: c"),
        ("a.b.c.d", "its parent has none"),
        ("json.captions", "did you mean 'caption'"),
        ("text.caption", "is not in JSON"),
        ("b", "has no 'b'"),
    ):
        with pytest.raises(BrokenRowError, match=message):
            field_of(row, path)
