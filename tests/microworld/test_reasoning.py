"""Questions with gold thoughts: one right answer each, true of the scene that is asked about."""

import itertools

import numpy as np
import pytest

from unified_rl.microworld.facts import compose
from unified_rl.microworld.language import NUMBERS, read
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.reasoning import (
    INSTRUCTIONS,
    KINDS,
    LETTERS,
    ask_reasoned,
    reasoning_words,
)
from unified_rl.microworld.scene import Placed, Scene, relation_between
from unified_rl.microworld.words import vocabulary


def asked(category, kind, seed):
    rng = np.random.default_rng(seed)
    choices = prompts(category, "train")
    prompt = choices[int(rng.integers(len(choices)))]
    return ask_reasoned(prompt, compose(prompt.facts, rng), kind, rng)


def words_of_answer(question):
    """The answer in words, also where it is a letter."""
    if question.kind == "open":
        return question.answer
    lines = question.text.splitlines()[1:-1]
    return dict(line.split(". ") for line in lines)[question.answer]


def right_answer(question):
    """Worked out from the scene alone, by the words of the question."""
    objects = question.scene.objects
    words = question.text.splitlines()[0].split()
    if words[:2] == ["how", "many"]:
        return NUMBERS[len(objects)]
    if words[0] == "where":
        (about,) = [o for o in objects if o.shape == words[-1]]
        (other,) = [o for o in objects if o is not about]
        return relation_between(about, other)
    if words[:3] == ["what", "object", "is"]:
        (about,) = [o for o in objects if o.color == words[-1]]
        return about.shape
    (about,) = [o for o in objects if o.shape == words[-1]]
    return about.color


@pytest.mark.parametrize(("category", "kind"), itertools.product(CATEGORIES, KINDS))
def test_the_answer_is_the_only_one_and_true(category, kind):
    for seed in range(60):
        question = asked(category, kind, seed)
        assert words_of_answer(question) == question.words == right_answer(question)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_thought_names_what_the_answer_needs(category):
    for seed in range(20):
        question = asked(category, "open", seed)
        assert read(question.thought).clean
        assert set(question.answer.split()) <= set(question.thought.split())


def test_a_choice_has_four_different_options_in_any_order():
    right = set()
    for seed in range(80):
        question = asked("attribution", "choice", seed)
        lines = question.text.splitlines()
        assert [line[:3] for line in lines[1:-1]] == [f"{letter}. " for letter in LETTERS]
        assert len({line[3:] for line in lines[1:-1]}) == 4
        right.add(question.answer)
    assert right == set(LETTERS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_instruction_comes_last(kind):
    assert asked("colors", kind, 0).text.splitlines()[-1] == INSTRUCTIONS[kind]


def test_no_shape_is_asked_for_by_a_colour_that_two_objects_have():
    scene = Scene((Placed("circle", "red", 0, 0), Placed("square", "red", 12, 12)))
    prompt = prompts("two", "train")[0]
    for seed in range(40):
        question = ask_reasoned(prompt, scene, "open", np.random.default_rng(seed))
        assert question.text.startswith("what is the color of")


def test_every_word_is_known():
    known = {*vocabulary(), *reasoning_words(), "<think>"}
    for category, kind, seed in itertools.product(CATEGORIES, KINDS, range(10)):
        question = asked(category, kind, seed)
        said = f"{question.text} {question.thought} {question.answer}"
        assert set(said.split()) <= known


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="kind='mixed'"):
        asked("colors", "mixed", 0)
