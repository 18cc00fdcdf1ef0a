"""Canonical keys: what makes no difference, and what does."""

import time

import pytest

from unified_rl.prompting.builder import PromptBuilder
from unified_rl.prompting.categories import CATEGORIES
from unified_rl.prompting.everyday import everyday_world
from unified_rl.prompting.keys import KeyReader

READER = KeyReader(everyday_world())

SAME = [
    ("a photo of a bench", "A PHOTO OF A BENCH."),  # case, punctuation
    ("a photo of a bench", "photo of bench"),  # articles
    ("a photo of a bench", "there is one bench"),
    ("a photo of a bench", "an image of the bench"),  # openers
    ("a photo of a bench", "a picture of a bench"),
    ("a photo of two sheep", "a photo of two sheeps"),  # plurals
    ("a photo of four knives", "a photo of four knifes"),
    ("a photo of three people", "a photo of three persons"),
    ("a photo of two toothbrushes", "a photo of 2 toothbrushs"),
    ("a photo of two computer mice", "a photo of two computer mouses"),
    ("a photo of four heads of broccoli", "a photo of four broccolis"),
    ("a photo of a pair of scissors", "a photo of a scissors"),
    ("a photo of a pair of red skis", "a photo of a red skis"),
    ("a photo of a dog and a cat", "a photo of a cat and a dog"),  # order
    ("a photo of a red dog and a blue cat", "a photo of a blue cat and a red dog"),
    ("a photo of a dog left of a cat", "a photo of a cat right of a dog"),  # direction
    ("a photo of a dog above a cat", "a photo of a cat below a dog"),
    ("a photo of a dog above a cat", "a dog is above of the cat"),
    ("a photo of a dog left of a cat", "a dog to the left of a cat"),
]
DIFFERENT = [
    ("a photo of a bench", "a photo of two benches"),
    ("a photo of two benches", "a photo of three benches"),
    ("a photo of a red bench", "a photo of a bench"),
    ("a photo of a dog", "a photo of a hot dog"),
    ("a photo of a tv", "a photo of a tv remote"),
    ("a photo of a dog and a cat", "a photo of a dog left of a cat"),
    ("a photo of a dog left of a cat", "a photo of a cat left of a dog"),
    ("a photo of a dog left of a cat", "a photo of a dog above a cat"),
    ("a photo of a red dog and a blue cat", "a photo of a blue dog and a red cat"),
    ("a photo of an orange", "a photo of an orange orange"),
    ("a photo of an orange and a cat", "a photo of an orange cat"),
]
NOT_OURS = [
    "",
    "a photo of",
    "a photo of a dinosaur",
    "a photo of a dog chasing a cat",
    "a photo of a dog, a cat and a cow",
    "a photo of a red",
    "a photo of two",
    "a photo of a dog above",
    "a photo of above a dog",
    "a photo of a dog above below a cat",
    "a photo of two three dogs",
    "a photo of a red blue dog",
    "a photo of " + "a dog and " * 100 + "a cat",
]


@pytest.mark.parametrize(("text", "other"), SAME)
def test_makes_no_difference(text, other):
    assert READER.of_text(text) == READER.of_text(other) is not None


@pytest.mark.parametrize(("text", "other"), DIFFERENT)
def test_makes_a_difference(text, other):
    assert None is not READER.of_text(text) != READER.of_text(other) is not None


@pytest.mark.parametrize("text", NOT_OURS)
def test_is_no_prompt_of_ours(text):
    assert READER.of_text(text) is None


def test_the_keys_of_colors_and_fruit():
    assert READER.of_text("a photo of an orange") == "1 - orange"
    assert READER.of_text("a photo of an orange orange") == "1 orange orange"
    assert READER.of_text("a photo of a red orange and an orange cat") == (
        "1 orange cat + 1 red orange"
    )


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_prompt_reads_as_what_was_asked_for(category):
    seen = {}

    def note(request):
        seen["request"] = request
        return False

    builder = PromptBuilder(everyday_world(), excludes=note)
    for index in range(2000):
        item = builder.item(category, index)
        assert READER.of_text(item.prompt) == READER.of_request(seen["request"]), item.prompt


def test_long_texts_take_no_time():
    begin = time.perf_counter()
    for text in ("orange " * 200_000, "a" * 2_000_000, "9" * 2_000_000, "tv " * 100):
        READER.of_text(text)
    assert time.perf_counter() - begin < 1
    assert READER.of_text("a photo of " + "9" * 300 + " dogs") is None
