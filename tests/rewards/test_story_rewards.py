"""Textual, visual, alignment and coherence rewards by hand."""

import math

import numpy as np
import pytest

from tests.rewards.cases import (
    BLUE_SQUARE,
    BOTH,
    DRAWING_SAMPLE,
    END,
    FIRST,
    GOLD,
    GREEN_CIRCLE,
    ONE,
    QUESTION_SAMPLE,
    SECOND,
    STORY_SAMPLE,
    TEXT_SAMPLE,
    image,
    thought,
    told,
)
from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.microworld.facts import Facts, Item, Relation
from unified_rl.microworld.questions import keyword_score, sample_question
from unified_rl.microworld.scene import Placed
from unified_rl.rewards.alignment import AlignmentReward, said_facts
from unified_rl.rewards.coherence import CoherenceReward
from unified_rl.rewards.sample_facts import question_of
from unified_rl.rewards.sight import is_clean
from unified_rl.rewards.textual import TextualReward
from unified_rl.rewards.visual import VisualReward

NAN = math.nan


def check(reward, segments, outcome, steps, sample=STORY_SAMPLE):
    score = reward.score(sample, told(*segments))
    assert score.outcome == pytest.approx(outcome)
    assert score.steps == pytest.approx(steps, nan_ok=True)


@pytest.mark.parametrize(
    ("segments", "outcome", "steps"),
    [
        (GOLD, 1, (1, NAN, 1, NAN)),
        ((*GOLD, END), 1, (1, NAN, 1, NAN, NAN)),
        # shape right, colour wrong: 1 of 2; the second has 5 of 5: (1/2 + 1) / 2
        ((thought("a green circle"), ONE, SECOND, BOTH), 0.75, (0.5, NAN, 1, NAN)),
        # one of two thoughts
        ((FIRST, ONE), 0.5, (1, NAN)),
        # stopping where a thought is due is a step of 0
        ((FIRST, ONE, END), 0.5, (1, NAN, 0)),
        ((END,), 0, (0,)),
        ((), 0, ()),
        # three thoughts for two steps: (1 + 1 + 0) / 3
        ((*GOLD, FIRST, ONE, END), 2 / 3, (1, NAN, 1, NAN, 0, NAN, NAN)),
    ],
)
def test_textual_stories(segments, outcome, steps):
    check(TextualReward(), segments, outcome, steps)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("the square is right of the circle", 1),
        ("the circle is left of the square", 1),
        ("the square is left of the circle", 0),
        ("the square is right of the zebra circle", 0),
        ("", 0),
    ],
)
def test_textual_questions(answer, right):
    check(TextualReward(), (Text(answer),), right, (right,), QUESTION_SAMPLE)


@pytest.mark.parametrize(
    ("answer", "right"), [("right of circle", 1), ("left of the circle", 0), ("", 0)]
)
def test_textual_text_tasks(answer, right):
    check(TextualReward(), (Text(answer),), right, (right,), TEXT_SAMPLE)


def test_textual_has_nothing_to_say_of_drawings():
    check(TextualReward(), (ONE,), 0, (NAN,), DRAWING_SAMPLE)


# A green circle where a red one is due: present, nothing else, not the colour: soft 2/3.
GREEN = image(GREEN_CIRCLE)


@pytest.mark.parametrize(
    ("segments", "outcome", "steps"),
    [
        (GOLD, 1, (NAN, 1, NAN, 1)),
        ((*GOLD, END), 1, (NAN, 1, NAN, 1, NAN)),
        # .25 * 0 + .75 * 2/3 = 1/2, and a right second picture: 3/4
        ((FIRST, GREEN, SECOND, BOTH), 0.75, (NAN, 0.5, NAN, 1)),
        # one of two pictures
        ((FIRST, ONE), 0.5, (NAN, 1)),
        # three pictures for two steps
        ((*GOLD, FIRST, BOTH), 2 / 3, (NAN, 1, NAN, 1, NAN, 0)),
        # no pictures
        ((FIRST,), 0, (NAN,)),
        ((), 0, ()),
    ],
)
def test_visual_stories(segments, outcome, steps):
    check(VisualReward(strict_weight=0.25), segments, outcome, steps)


def test_visual_drawings():
    check(VisualReward(), (ONE,), 1, (1,), DRAWING_SAMPLE)
    # .5 * 0 + .5 * 2/3
    check(VisualReward(), (GREEN,), 1 / 3, (1 / 3,), DRAWING_SAMPLE)
    check(VisualReward(), (), 0, (), DRAWING_SAMPLE)
    check(VisualReward(), (Text("red"),), 0, (NAN,), QUESTION_SAMPLE)


@pytest.mark.parametrize("reward", [VisualReward(), AlignmentReward(), CoherenceReward()])
def test_images_of_another_size_are_named(reward):
    large = Image(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(RewardError, match=r"'story'.*\(32, 32, 3\)"):
        reward.score(STORY_SAMPLE, told(FIRST, large))


@pytest.mark.parametrize(
    ("segments", "outcome", "steps"),
    [
        (GOLD, 1, (NAN, 1, NAN, 1)),
        # wrong of the prompt, yet words and pictures agree
        ((thought("a green circle"), GREEN), 0.5, (NAN, 1)),
        # the circle that was said to be red is green: soft 2/3, half of it
        ((FIRST, GREEN), 1 / 6, (NAN, 1 / 3)),
        # a thought may leave out what an earlier one named
        ((FIRST, ONE, thought("i add a blue square"), BOTH), 1, (NAN, 1, NAN, 1)),
        # the second picture in a row has no thought
        ((FIRST, ONE, ONE), 0.5, (NAN, 1, 0)),
        ((ONE, BOTH), 0, (0, 0)),
        # no object, unknown words, a thing beside itself, more than the canvas holds
        ((thought("i draw"), ONE), 0, (NAN, 0)),
        ((thought("i draw a red zebra circle"), ONE), 0, (NAN, 0)),
        ((thought("a red circle left of a red circle"), ONE), 0, (NAN, 0)),
        ((thought("five circles"), ONE), 0, (NAN, 0)),
        ((), 0, ()),
    ],
)
def test_alignment(segments, outcome, steps):
    check(AlignmentReward(), segments, outcome, steps)


def test_said_facts():
    facts = said_facts(SECOND.text)
    want = Facts((Item("square", "blue"), Item("circle", "red")), (Relation(0, "right of", 1),))
    assert facts == want


MOVED_1 = Placed("circle", "red", 2, 10)
MOVED_2 = Placed("circle", "red", 3, 8)


@pytest.mark.parametrize(
    ("segments", "outcome", "steps"),
    [
        (GOLD, 1, (NAN, NAN, NAN, 1)),
        ((FIRST, ONE, SECOND, image(MOVED_1, BLUE_SQUARE)), 1, (NAN, NAN, NAN, 1)),
        ((FIRST, ONE, SECOND, image(MOVED_2, BLUE_SQUARE)), 0, (NAN, NAN, NAN, 0)),
        ((FIRST, ONE, SECOND, image(GREEN_CIRCLE, BLUE_SQUARE)), 0, (NAN, NAN, NAN, 0)),
        # one of the two objects stays, none is lost; then one is lost
        ((ONE, BOTH, image(GREEN_CIRCLE, BLUE_SQUARE)), 0.75, (NAN, 1, 0.5)),
        ((ONE, BOTH, ONE), 0.5, (NAN, 1, 0)),
        # nothing there to keep; a transition that is missing
        ((image(), BOTH), 0, (NAN, 0)),
        ((FIRST, ONE), 0, (NAN, NAN)),
        ((), 0, ()),
    ],
)
def test_coherence(segments, outcome, steps):
    check(CoherenceReward(), segments, outcome, steps)


CIRCLES = (("red", 0, 0), ("red", 12, 0), ("blue", 0, 14))


def test_clean_pictures():
    blob = BOTH.pixels.copy()
    blob[20:24, 0:5] = (220, 30, 30)
    same = image(*(Placed("circle", c, x, y) for c, x, y in CIRCLES))
    assert is_clean(STORY_SAMPLE, BOTH.pixels)
    assert is_clean(STORY_SAMPLE, same.pixels)
    assert not is_clean(STORY_SAMPLE, blob)
    assert not is_clean(STORY_SAMPLE, image().pixels)


@pytest.mark.parametrize(
    "category", ["single", "two", "counting", "colors", "position", "attribution"]
)
def test_questions_come_back_whole(category):
    for seed in range(10):
        question = sample_question(category, "test", np.random.default_rng(seed))
        sample = Sample(
            "q",
            Task.UNDERSTANDING,
            (Text(question.question),),
            facts={
                "category": category,
                "question": question.question,
                "answer": question.answer,
                "scene": [[o.shape, o.color, o.x, o.y] for o in question.scene.objects],
            },
        )
        assert question_of(sample) == question
        assert keyword_score(question_of(sample), question.answer) == 1


def test_missing_or_foreign_facts_are_named():
    bare = Sample("s9", Task.INTERLEAVED, (Text("x"),))
    with pytest.raises(RewardError, match="'s9'.*'story'"):
        TextualReward().score(bare, told())
    foreign = Sample("s9", Task.TEXT_TO_IMAGE, (), facts={"facts": {"items": 3}})
    with pytest.raises(RewardError, match="'s9'"):
        VisualReward().score(foreign, told(ONE))
    facts = {**QUESTION_SAMPLE.facts, "answer": "blue"}
    wrong = Sample("s9", Task.UNDERSTANDING, (), facts=facts)
    with pytest.raises(RewardError, match="'s9'.*'blue'"):
        TextualReward().score(wrong, told(Text("blue")))


@pytest.mark.parametrize("setting", [{"weight": -1}, {"weight": NAN}, {"strict_weight": 1.5}])
def test_settings_out_of_range(setting):
    with pytest.raises(ConfigError, match=str(next(iter(setting.values())))):
        VisualReward(**setting)
