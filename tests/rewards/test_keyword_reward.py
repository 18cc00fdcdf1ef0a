"""Points for answers about pictures, counted by hand."""

import time

import pytest

from tests.rewards.cases import DRAWING_SAMPLE, rollout, told
from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.microworld.scene import SHAPES
from unified_rl.prompting.builder import PromptBuilder
from unified_rl.prompting.everyday import COCO, OWN, everyday_world
from unified_rl.rewards.keywords import POINTS, KeywordReward

RIVALS = (*SHAPES, "dog", "bear", "mouse", "orange", "table")
PAPER = KeywordReward(normalise=False, rivals=RIVALS)
PLAIN = KeywordReward(normalise=False, rivals=RIVALS, bound=False)


def thing(name, **more):
    return {"class": name, "count": 1, **more}


def asked(category, *include):
    facts = {"category": category, "include": list(include)}
    return Sample("asked", Task.UNDERSTANDING, (Text("what?"),), facts=facts)


def points(reward, sample, answer):
    return reward.score(sample, told(Text(answer))).outcome


SINGLE = asked("single", thing("bench"))
TWO = asked("two", thing("table"), thing("soccer"))
COUNTING = asked("counting", {"class": "vase", "count": 3})
COLORS = asked("colors", thing("fork", color="green"))
ABOVE = asked("position", thing("elephant"), thing("train", position=["above", 0]))
LEFT = asked("position", thing("elephant"), thing("train", position=["left of", 0]))
BOTH = asked("attribution", thing("chair", color="blue"), thing("umbrella", color="red"))
MICRO_LEFT = asked("position", thing("square"), thing("circle", position=["left of", 0]))
MICRO_BOTH = asked("attribution", thing("circle", color="red"), thing("square", color="blue"))
ORANGE = asked("attribution", thing("orange", color="purple"), thing("chair", color="orange"))

ANSWERS = (
    # Table 1's answers, with Table 2's points
    (SINGLE, "Bench", 1),
    (TWO, "A table and a soccer", 2),
    (COUNTING, "Three vases", 2),
    (COLORS, "Green", 1),
    (ABOVE, "The train is above of an elephant", 3),
    (BOTH, "The chair is blue and the umbrella is red", 4),
    # objects
    (SINGLE, "The main objects are BENCHES!", 1),
    (SINGLE, "a workbench", 0),
    (SINGLE, "", 0),
    (SINGLE, "no bench", 0),
    (SINGLE, "There isn't a bench.", 0),
    (SINGLE, "There is a bench, not a dog.", 1),
    (SINGLE, "a bench and a dog", 0),  # 1 - 1
    (TWO, "soccer", 1),
    (TWO, "soccer and table and dog", 1),  # 2 - 1
    (TWO, "table, soccer, dog, bear, circle", 0),  # 2 - 3, not below 0
    (TWO, "dog", 0),
    # numbers
    (COUNTING, "3", 1),
    (COUNTING, "There are 3 vases in the image.", 2),
    (COUNTING, "There are three items: vases", 2),
    (COUNTING, "three large blue vases", 2),
    (COUNTING, "vase", 1),
    (COUNTING, "two vases", 1),
    (COUNTING, "one two three four vases", 1),  # rival numbers
    (COUNTING, "two or three vases", 1),
    (COUNTING, "three dogs", 0),  # the number is the dogs', who cost a point
    # colours
    (COLORS, "The fork is green.", 1),
    (COLORS, "It is green", 1),
    (COLORS, "the color of the object is green", 1),
    (COLORS, "red green blue", 0),
    (COLORS, "green or red", 0),
    (COLORS, "not green", 0),
    (COLORS, "The fork is not red but green.", 1),
    (COLORS, "the dog is green", 0),
    (COLORS, "greenish", 0),
    # relations
    (ABOVE, "the elephant is below the train", 3),
    (ABOVE, "A train and an elephant; the train is on top of the elephant.", 3),
    (ABOVE, "the train is over the elephant", 3),
    (ABOVE, "Below the train is an elephant.", 3),
    (ABOVE, "There is a train and an elephant. The train is higher than it.", 3),
    (ABOVE, "The train is at the top and the elephant is at the bottom", 3),
    (ABOVE, "the elephant is above the train", 2),
    (ABOVE, "The train is not above the elephant", 2),
    (ABOVE, "elephant, train", 2),
    (ABOVE, "train above and below elephant", 2),
    (ABOVE, "the train is above the elephant and below the elephant", 2),
    (ABOVE, "the train is above the elephant and left of it", 2),
    (ABOVE, "the train is above the train and the elephant", 2),
    (ABOVE, "the train is above", 1),  # no other object
    (ABOVE, "above", 0),
    (LEFT, "the train is to the left of the elephant", 3),
    (LEFT, "train on the left side of the elephant", 3),
    (LEFT, "The train is on the left and the elephant is on the right.", 3),
    (LEFT, "On the right is an elephant, on the left is a train", 3),
    (LEFT, "the elephant is to the right of the train", 3),
    (LEFT, "the train is on the right side of the image, the elephant on the left", 2),
    (MICRO_LEFT, "the circle is left of the square", 3),
    (MICRO_LEFT, "the square is right of the circle and the circle is left of the square", 3),
    (MICRO_LEFT, "the circle is left of the square and the square is left of the circle", 2),
    (MICRO_LEFT, "the circle is left of the cross", 0),  # 1 - 1
    # attributes
    (BOTH, "a red umbrella and a blue chair", 4),
    (BOTH, "chair (blue), umbrella (red)", 4),
    (BOTH, "Chair: blue\nUmbrella: red", 4),
    (BOTH, "The chair and the umbrella are blue and red respectively", 4),
    (BOTH, "There are a chair and an umbrella. The chair is blue, the umbrella is red.", 4),
    (BOTH, "a chair which is blue and an umbrella that is red", 4),
    (BOTH, "the chair is red and the umbrella is blue", 2),
    (BOTH, "both the chair and the umbrella are red", 3),
    (BOTH, "a blue and white chair and a red umbrella", 3),
    (BOTH, "red blue green chair, red blue umbrella", 2),
    (BOTH, "blue and red", 0),
    (BOTH, "The chair is blue and the dog is red", 1),  # 2 - 1
    (MICRO_BOTH, "the circle is red and the square is blue", 4),
    (MICRO_BOTH, "the square is blue and the circle is green", 3),
    (ORANGE, "The orange is purple and the chair is orange", 4),
    (ORANGE, "a purple orange and an orange chair", 4),
    (ORANGE, "an orange orange and a purple chair", 2),
)


@pytest.mark.parametrize(("sample", "answer", "expected"), ANSWERS)
def test_points_of_an_answer(sample, answer, expected):
    assert points(PAPER, sample, answer) == expected


@pytest.mark.parametrize(
    ("sample", "answer", "expected"),
    [
        (BOTH, "the chair is red and the umbrella is blue", 4),
        (BOTH, "blue red chair umbrella", 4),
        (BOTH, "blue red green chair umbrella", 2),  # more colours than are asked for
        (COLORS, "a bench that is green", 1),
        (COUNTING, "three dogs and vases", 1),  # vases, three, less the dogs
        (ABOVE, "the elephant is above the train", 3),
        (ABOVE, "the elephant is left of the train", 2),
    ],
)
def test_keywords_anywhere(sample, answer, expected):
    assert points(PLAIN, sample, answer) == expected


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("computer mouse", "a mouse", 1),
        ("computer mouse", "computer mice", 1),
        ("scissors", "a pair of scissors", 1),
        ("skis", "one ski", 1),
        ("person", "people", 1),
        ("person", "a man", 1),
        ("knife", "knives", 1),
        ("sandwich", "sandwiches", 1),
        ("wine glass", "Wine-glasses", 1),
        ("wine glass", "a glass", 0),
        ("teddy bear", "a teddy bear", 1),  # no bear, which would cost a point
        ("teddy bear", "a bear", 0),
        ("tv", "a television", 1),
        ("orange", "an orange", 1),
        ("orange", "Orange", 1),
        ("orange", "the main object is orange", 1),
    ],
)
def test_names_of_everyday_objects(name, answer, expected):
    assert points(PAPER, asked("single", thing(name)), answer) == expected


def test_outcomes_are_shares_of_the_categorys_points():
    reward = KeywordReward()
    assert points(reward, BOTH, "a blue chair") == 2 / 4
    assert points(reward, ABOVE, "a train and an elephant") == 2 / 3
    assert points(reward, SINGLE, "Bench") == 1


@pytest.mark.parametrize("wording", ["table", "released"])
@pytest.mark.parametrize("category", POINTS)
def test_gold_answers_have_full_marks_and_others_have_not(category, wording):
    reward = KeywordReward(rivals=(*COCO, *OWN))
    builder = PromptBuilder(everyday_world(wording))
    items = [builder.item(category, index) for index in range(150)]
    others = [*items[1:], items[0]]
    for item, other in zip(items, others, strict=True):
        sample = asked(category, *item.include)
        assert points(reward, sample, item.answer) == 1, item
        if other.answer != item.answer and other.include != item.include:
            assert points(reward, sample, other.answer) < 1, (item, other)


def test_texts_have_the_outcome_and_drawings_are_not_judged():
    score = PAPER.score(SINGLE, told(Text("a"), Text("bench")))
    assert score.outcome == 1 and score.steps == (1, 1)
    scores = PAPER(rollout([told(Text("a red circle"))], DRAWING_SAMPLE))
    assert scores.judged_rows.tolist() == [False] and scores.outcome.tolist() == [0]


def test_a_rival_of_the_sample_is_known_without_the_setting():
    reward = KeywordReward(normalise=False)
    assert points(reward, SINGLE, "a bench and a dog") == 1  # dogs are unknown here
    assert points(reward, asked("single", thing("circle")), "a circle") == 1


@pytest.mark.parametrize(
    "flood",
    [
        "red, ",
        "red and, ",
        "not ",
        "circle and ",
        "to the left of ",
        "bright ",
        "1",
        "a",
        "((",
        ".",
    ],
)
def test_long_answers_take_no_time(flood):
    started = time.perf_counter()
    assert points(PAPER, BOTH, flood * 500_000) == 0
    assert time.perf_counter() - started < 1


def test_what_follows_the_limit_is_not_read():
    assert points(PAPER, SINGLE, "so " * 400 + "bench") == 0  # behind 1200 characters
    assert points(PAPER, SINGLE, "so " * 300 + "bench") == 1


@pytest.mark.parametrize(
    ("sample", "named"),
    [
        (asked("shape", thing("bench")), "category='shape'"),
        (asked("single"), "0 entries"),
        (asked("two", thing("bench")), "1 entries"),
        (asked("single", thing(3)), "names"),
        (asked("single", thing("a b c d e")), "names"),
        (asked("counting", {"class": "vase"}), "count"),
        (asked("colors", thing("fork")), "color"),
        (asked("colors", thing("fork", color="light blue")), "single words"),
        (asked("position", thing("a"), thing("b")), "position"),
        (asked("position", thing("a"), thing("b", position=["near", 0])), "near"),
        (Sample("asked", Task.UNDERSTANDING, (), facts={"category": "two"}), "include=None"),
    ],
)
def test_facts_that_do_not_say_what_is_right_are_refused(sample, named):
    with pytest.raises(RewardError, match="'asked'") as refused:
        points(PAPER, sample, "bench")
    assert named in str(refused.value)


@pytest.mark.parametrize("rivals", ["circle", [3], [""], ["one two three four five"]])
def test_rivals_must_be_names(rivals):
    with pytest.raises(ConfigError, match="rivals"):
        KeywordReward(rivals=rivals)
