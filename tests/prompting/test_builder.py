"""Prompts of six categories: the same everywhere, in right English, and none excluded."""

import collections
import dataclasses
import itertools

import pytest

from unified_rl.core.errors import ConfigError
from unified_rl.prompting.builder import PromptBuilder
from unified_rl.prompting.categories import CATEGORIES, category_named
from unified_rl.prompting.everyday import everyday_world
from unified_rl.prompting.phrases import PromptItem, prompt_text
from unified_rl.prompting.wordings import RELEASED, TABLE
from unified_rl.prompting.world import Thing, World

EVERYDAY = PromptBuilder(everyday_world())


def world(names="abc", colors=("red", "blue"), counts=(2, 3), openers=("a photo of",)):
    things = tuple(Thing(name, name + "s") for name in names)
    return World(things, colors, counts, (("above", "below"),), openers, TABLE)


def everything(builder, category):
    return [item.prompt for item in builder.all_items(category)]


# -- the stream ------------------------------------------------------------------------------------


def test_items_are_the_same_in_every_version():
    # Written down once; a stream that changes makes runs of another version incomparable.
    assert [EVERYDAY.item(category, 7).prompt for category in CATEGORIES] == [
        "a photo of a crown",
        "a photo of a handbag and a vase",
        "a photo of two zebras",
        "a photo of a purple sled",
        "a photo of a sock right of a lamp",
        "a photo of a green suitcase and a black book",
    ]


def test_an_item_needs_no_earlier_one():
    far = PromptBuilder(everyday_world()).item("two", 123_456_789)
    near = PromptBuilder(everyday_world())
    assert [near.item("two", index) for index in range(20)]
    assert near.item("two", 123_456_789) == far


def test_seeds_and_categories_have_streams_of_their_own():
    prompts = [EVERYDAY.item("two", index).prompt for index in range(50)]
    other = PromptBuilder(everyday_world(), seed=1)
    same = sum(other.item("two", index).prompt == prompts[index] for index in range(50))
    assert same <= 1  # of 25,440 prompts


def test_wordings_ask_differently_about_the_same_prompts():
    released = PromptBuilder(everyday_world("released"))
    for category in CATEGORIES:
        assert released.item(category, 5).prompt == EVERYDAY.item(category, 5).prompt
        assert released.item(category, 5).include == EVERYDAY.item(category, 5).include


def test_every_prompt_is_drawn_alike():
    builder = PromptBuilder(world("abcd"))
    draws = 4000
    found = collections.Counter(builder.item("single", index).prompt for index in range(draws))
    # 1000 of each expected, one deviation is (4000 * 1/4 * 3/4) ** 0.5 = 27.4
    assert len(found) == 4
    assert max(abs(count - 1000) for count in found.values()) < 4 * 27.4


def test_the_mixed_stream_draws_all_categories():
    found = collections.Counter(EVERYDAY.mixed_item(index).category for index in range(1200))
    # 200 of each expected, one deviation is (1200 * 1/6 * 5/6) ** 0.5 = 12.9
    assert set(found) == set(CATEGORIES)
    assert max(abs(count - 200) for count in found.values()) < 4 * 12.9
    assert {EVERYDAY.mixed_item(index, ["two"]).category for index in range(20)} == {"two"}


def test_an_index_below_zero_is_refused():
    with pytest.raises(ValueError, match="index=-1"):
        EVERYDAY.item("two", -1)


# -- what there is ---------------------------------------------------------------------------------


def test_counts_are_those_of_the_combinations():
    builder = PromptBuilder(world("abc", openers=("a photo of", "a picture of")))
    expected = {
        "single": 2 * 3,
        "two": 2 * 3 * 2,
        "counting": 2 * 3 * 2,
        "colors": 2 * 3 * 2,
        "position": 2 * 3 * 2 * 2,
        "attribution": 2 * 3 * 2 * 2 * 1,
    }
    assert {category: builder.count(category) for category in CATEGORIES} == expected
    for category in CATEGORIES:
        prompts = everything(builder, category)
        assert len(set(prompts)) == len(prompts) == expected[category]


def test_the_stream_comes_by_all_that_there_is():
    builder = PromptBuilder(world("abc"))
    for category in CATEGORIES:
        drawn = {builder.item(category, index).prompt for index in range(400)}
        assert drawn == set(everything(builder, category))


def test_two_things_and_two_colors_differ():
    for item in PromptBuilder(world("ab")).all_items("attribution"):
        first, second = item.include
        assert first["class"] != second["class"]
        assert first["color"] != second["color"]


def test_a_thing_without_color_is_given_none():
    things = (Thing("person", "people", takes_color=False), Thing("cup", "cups"), Thing("b", "bs"))
    colored = World(things, ("red", "blue"), (2,), (("above", "below"),), ("a photo of",), TABLE)
    builder = PromptBuilder(colored)
    assert everything(builder, "colors") == [
        "a photo of a red cup",
        "a photo of a blue cup",
        "a photo of a red b",
        "a photo of a blue b",
    ]
    assert not any("person" in prompt for prompt in everything(builder, "attribution"))
    assert any("person" in prompt for prompt in everything(builder, "position"))


def test_everyday_counts():
    # 160 objects, 159 of which take one of 10 colours; 4 relations
    counts = {"single": 160, "two": 160 * 159, "counting": 160 * 3, "colors": 159 * 10}
    for category, count in counts.items():
        assert EVERYDAY.count(category) == count


# -- what is left out ------------------------------------------------------------------------------


def test_what_is_excluded_is_never_drawn():
    full = PromptBuilder(world("abcd"))
    for category in CATEGORIES:
        banned = set(everything(full, category)[::2])
        builder = PromptBuilder(world("abcd"), excludes=lambda r, b=banned: prompt_text(r) in b)
        drawn = {builder.item(category, index).prompt for index in range(300)}
        assert drawn == set(everything(full, category)) - banned
        assert builder.count(category) == full.count(category) - len(banned)


def test_the_last_of_very_many_is_found():
    # 64 draws out of 101,760 do not find it; the list of what remains does.
    only = "a photo of a mirror left of a sheep"
    builder = PromptBuilder(everyday_world(), excludes=lambda request: prompt_text(request) != only)
    assert {builder.item("position", index).prompt for index in range(5)} == {only}


def test_items_that_need_no_redraw_stay_what_they_are():
    banned = EVERYDAY.item("two", 3).prompt
    builder = PromptBuilder(everyday_world(), excludes=lambda r: prompt_text(r) == banned)
    for index in range(20):
        same = builder.item("two", index) == EVERYDAY.item("two", index)
        assert same == (EVERYDAY.item("two", index).prompt != banned)


def test_a_category_in_which_nothing_remains_is_refused():
    builder = PromptBuilder(world("abc"), excludes=lambda request: len(request.things) == 2)
    builder.check("single")
    for call in (builder.check, lambda category: builder.item(category, 0)):
        with pytest.raises(ConfigError, match="nothing remains of category 'two': its 6 prompts"):
            call("two")
    assert builder.count("two") == 0


@pytest.mark.parametrize("held_out", ["abc", "ab"])
def test_too_few_objects_are_refused(held_out):
    builder = PromptBuilder(world("abc"), held_out=tuple(held_out))
    with pytest.raises(ConfigError, match="nothing remains of category 'two': too few objects"):
        builder.item("two", 0)


def test_held_out_objects_never_appear():
    builder = PromptBuilder(world("abc"), held_out=("b",))
    for category in CATEGORIES:
        for item in builder.all_items(category):
            assert all(entry["class"] != "b" for entry in item.include)
    assert builder.count("two") == 2


def test_misspelt_names_get_the_nearest():
    with pytest.raises(ConfigError, match="held_out='zebar' is no object; did you mean 'zebra'"):
        PromptBuilder(everyday_world(), held_out=("zebar",))
    with pytest.raises(ConfigError, match="did you mean 'counting'"):
        EVERYDAY.item("conting", 0)
    with pytest.raises(ConfigError, match="wording='tabel' does not exist; did you mean 'table'"):
        everyday_world("tabel")


def test_categories_have_two_names():
    assert category_named("color_attr") == category_named("attribution") == "attribution"


# -- words -----------------------------------------------------------------------------------------


def item_of(prompt, category, wording="table"):
    everyday = everyday_world(wording)
    named = [t for t in everyday.things if t.name in prompt or t.plural in prompt]
    builder = PromptBuilder(dataclasses.replace(everyday, things=tuple(named)))
    return next(item for item in builder.all_items(category) if item.prompt == prompt)


def test_the_wording_of_the_table():
    # Table 1 of the paper, row by row; ours says "above" where its fifth row says "above of".
    assert item_of("a photo of a bench", "single") == PromptItem(
        "single",
        "a photo of a bench",
        "What is the main object of the image?",
        "Bench",
        [{"class": "bench", "count": 1}],
    )
    two = item_of("a photo of a lamp and an umbrella", "two")
    assert two.question == "What are two main objects of the image?"
    assert two.answer == "A lamp and an umbrella"
    assert two.include == [{"class": "lamp", "count": 1}, {"class": "umbrella", "count": 1}]
    vases = item_of("a photo of three vases", "counting")
    assert (vases.question, vases.answer) == ("How many items in this image?", "Three vases")
    assert vases.include == [{"class": "vase", "count": 3}]
    fork = item_of("a photo of a green fork", "colors")
    assert (fork.question, fork.answer) == ("What is the color of the object?", "Green")
    assert fork.include == [{"class": "fork", "count": 1, "color": "green"}]
    train = item_of("a photo of a train above an elephant", "position")
    assert train.question == (
        "What are two objects and what is position relationship between two main items?"
    )
    assert train.answer == "The train is above an elephant"
    assert train.include == [
        {"class": "elephant", "count": 1},
        {"class": "train", "count": 1, "position": ["above", 0]},
    ]
    chair = item_of("a photo of a blue chair and a red umbrella", "attribution")
    assert chair.question == "What are two objects and the colors of two objects in the image?"
    assert chair.answer == "The chair is blue and the umbrella is red"
    assert chair.include == [
        {"class": "chair", "count": 1, "color": "blue"},
        {"class": "umbrella", "count": 1, "color": "red"},
    ]


def test_the_released_wording():
    bench = item_of("a photo of a bench", "single", "released")
    assert (bench.question, bench.answer) == ("What is the main item in this image?", "bench")
    two = item_of("a photo of a toaster and an oven", "two", "released")
    assert two.question == "What are two items in this image?"
    assert two.answer == "There is a toaster and an oven"
    clocks = item_of("a photo of two clocks", "counting", "released")
    assert (clocks.question, clocks.answer) == ("How many items in this image?", "two clocks")
    assert item_of("a photo of a blue cow", "colors", "released").answer == "blue"
    dog = item_of("a photo of a dog right of a teddy bear", "position", "released")
    assert dog.question == (
        "What are two objects and What is position relationship between two main items? "
        "Use one sentence."
    )
    assert dog.answer == "The dog is right of the teddy bear"
    assert RELEASED.questions["attribution"] == (
        "What are two objects and the colors of two objects in the image? Use one sentence"
    )


@pytest.mark.parametrize(
    ("prompt", "category", "answer"),
    [
        ("a photo of three people", "counting", "Three people"),
        ("a photo of four knives", "counting", "Four knives"),
        ("a photo of two computer mice", "counting", "Two computer mice"),
        ("a photo of two sheep", "counting", "Two sheep"),
        ("a photo of three wine glasses", "counting", "Three wine glasses"),
        ("a photo of two toothbrushes", "counting", "Two toothbrushes"),
        ("a photo of four teddy bears", "counting", "Four teddy bears"),
        ("a photo of two scarves", "counting", "Two scarves"),
        ("a photo of two cherries", "counting", "Two cherries"),
        ("a photo of two tomatoes", "counting", "Two tomatoes"),
        ("a photo of two pairs of scissors", "counting", "Two pairs of scissors"),
        ("a photo of three heads of broccoli", "counting", "Three heads of broccoli"),
        ("a photo of a pair of scissors", "single", "Scissors"),
        ("a photo of an axe", "single", "Axe"),
        ("a photo of an orange umbrella", "colors", "Orange"),
        ("a photo of a pair of orange skis", "colors", "Orange"),
        ("a photo of a dog above a pair of skis", "position", "The dog is above a pair of skis"),
        ("a photo of a pair of skis above an axe", "position", "The skis are above an axe"),
    ],
)
def test_english(prompt, category, answer):
    assert item_of(prompt, category).answer == answer


def test_no_article_is_wrong():
    vowels = tuple("aeiou")
    for category in CATEGORIES[:4]:
        for item in EVERYDAY.all_items(category):
            for article, noun in itertools.pairwise(item.prompt.split()):
                if article in ("a", "an"):
                    assert (article == "an") == noun.startswith(vowels), item.prompt


def test_a_world_is_checked():
    with pytest.raises(ValueError, match="thing a appears twice"):
        world("aab")
    with pytest.raises(ValueError, match="at least one opener"):
        world(openers=())
    with pytest.raises(ValueError, match="count 11 is outside of 2 to 10"):
        world(counts=(2, 11))
