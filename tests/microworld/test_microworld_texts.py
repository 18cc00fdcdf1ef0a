"""Questions, stories, text tasks and the vocabulary."""

import itertools

import numpy as np
import pytest

from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.questions import ask, judge_answer, keyword_score, sample_question
from unified_rl.microworld.render import render
from unified_rl.microworld.scene import Placed, Scene
from unified_rl.microworld.splits import SPLITS
from unified_rl.microworld.stories import Story, paint, stories, thought_score
from unified_rl.microworld.text_tasks import KINDS, sample_text_task, text_tasks
from unified_rl.microworld.verify import verify
from unified_rl.microworld.words import vocabulary

CIRCLE = Placed("circle", "red", 12, 0)
SQUARE = Placed("square", "blue", 0, 0)
TRIO = tuple(Placed("circle", "red", x, y) for x, y in [(0, 0), (12, 0), (0, 12)])

RIGHT_ANSWERS = [
    ("single", (CIRCLE,), "a circle"),
    ("single", (CIRCLE,), "The circle."),
    ("single", (CIRCLE,), "there is a red circle"),
    ("two", (CIRCLE, SQUARE), "a circle and a square"),
    ("two", (CIRCLE, SQUARE), "a square and a circle"),
    ("two", (CIRCLE, SQUARE), "there is one square and a red circle"),
    ("counting", TRIO, "three circles"),
    ("counting", TRIO, "there are 3 circles"),
    ("counting", TRIO, "three"),
    ("colors", (CIRCLE,), "red"),
    ("colors", (CIRCLE,), "the circle is red"),
    ("position", (CIRCLE, SQUARE), "the circle is right of the square"),
    ("position", (CIRCLE, SQUARE), "the square is to the left of the circle"),
    ("position", (CIRCLE, SQUARE), "circle right of square and the square is left of the circle"),
    ("attribution", (CIRCLE, SQUARE), "the circle is red and the square is blue"),
    ("attribution", (CIRCLE, SQUARE), "a blue square and a red circle"),
]
WRONG_ANSWERS = [
    ("single", (CIRCLE,), "a square"),
    ("single", (CIRCLE,), "a circle and a square"),
    ("single", (CIRCLE,), "a blue circle"),
    ("single", (CIRCLE,), "a circle and a dog"),
    ("single", (CIRCLE,), ""),
    ("single", (CIRCLE,), "red"),
    ("two", (CIRCLE, SQUARE), "a circle"),
    ("two", (CIRCLE, SQUARE), "a circle and a square and a cross"),
    ("two", (CIRCLE, SQUARE), "two circles"),
    ("counting", TRIO, "four circles"),
    ("counting", TRIO, "three squares"),
    ("counting", TRIO, "circles"),
    ("counting", TRIO, "three circles and two squares"),
    ("colors", (CIRCLE,), "blue"),
    ("colors", (CIRCLE,), "red and blue"),
    ("colors", (CIRCLE,), "the square is red"),
    ("colors", (CIRCLE,), "red is blue"),
    ("position", (CIRCLE, SQUARE), "the circle is left of the square"),
    ("position", (CIRCLE, SQUARE), "the circle is above the square"),
    ("position", (CIRCLE, SQUARE), "a circle and a square"),
    ("position", (CIRCLE, SQUARE), "right of"),
    ("position", (CIRCLE, SQUARE), "the circle is right of the square and the square is above it"),
    ("position", (CIRCLE, SQUARE), "the circle is right of the circle"),
    ("attribution", (CIRCLE, SQUARE), "the circle is blue and the square is red"),
    ("attribution", (CIRCLE, SQUARE), "the circle is red and the square is red"),
    ("attribution", (CIRCLE, SQUARE), "the red circle is blue and the square is blue"),
    ("attribution", (CIRCLE, SQUARE), "a circle and a blue square"),
]


@pytest.mark.parametrize(("category", "objects", "answer"), RIGHT_ANSWERS)
def test_right_answers_pass(category: str, objects: tuple[Placed, ...], answer: str) -> None:
    assert judge_answer(ask(category, Scene(objects)), answer)


@pytest.mark.parametrize(("category", "objects", "answer"), WRONG_ANSWERS)
def test_wrong_answers_fail(category: str, objects: tuple[Placed, ...], answer: str) -> None:
    assert not judge_answer(ask(category, Scene(objects)), answer)


@pytest.mark.parametrize("category", CATEGORIES)
def test_gold_answers_score_fully(category: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        question = sample_question(category, "train", rng)
        assert judge_answer(question, question.answer)
        assert keyword_score(question, question.answer) == 1.0


def test_keyword_score_by_hand() -> None:
    position = ask("position", Scene((CIRCLE, SQUARE)))
    assert position.keywords == ("circle", "right of", "square")
    assert keyword_score(position, "the square is left of the circle") == 1.0
    assert keyword_score(position, "the square is right of the circle") == pytest.approx(2 / 3)
    counting = ask("counting", Scene(TRIO))
    assert keyword_score(counting, "three circle") == 1.0
    assert keyword_score(counting, "two circles") == 0.5
    attribution = ask("attribution", Scene((CIRCLE, SQUARE)))
    assert keyword_score(attribution, "the circle is red and the cross is green") == 0.5
    assert keyword_score(ask("colors", Scene((CIRCLE,))), "predicted") == 0.0


def test_unsuitable_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 objects"):
        ask("single", Scene((CIRCLE, SQUARE)))
    with pytest.raises(ValueError, match="no relation"):
        ask("position", Scene((CIRCLE, Placed("square", "red", 0, 12))))


def test_story_splits() -> None:
    told = {split: stories(split) for split in SPLITS}
    assert [len(told[split]) for split in SPLITS] == [528, 96, 336]
    for steps in (2, 3):
        for a, b in itertools.combinations(SPLITS, 2):
            for what in (lambda s: s.prompt, lambda s: s.steps[-1].facts.key()):
                assert not set(map(what, stories(a, steps))) & set(map(what, stories(b, steps)))
    assert 1800 <= sum(len(stories(split, 3)) for split in SPLITS) <= 2200
    for split in SPLITS:
        prefixes = {story.steps[1] for story in told[split]}
        assert all(story.steps[1] in prefixes for story in stories(split, 3))


def test_stories_read_as_expected() -> None:
    by_prompt = {story.prompt: story for split in SPLITS for story in stories(split)}
    story = by_prompt["draw a red circle then add a blue square right of it"]
    assert [step.text for step in story.steps] == [
        "i draw a red circle",
        "i add a blue square right of the red circle",
    ]
    assert Story.from_json(story.to_json()) == story
    assert stories("test", 3)[0].prompt.count(" it") == 2


@pytest.mark.parametrize("steps", [2, 3])
def test_painted_stories_are_right_at_each_step(steps: int) -> None:
    rng = np.random.default_rng(0)
    choices = stories("train", steps)
    for n in rng.permutation(len(choices))[:150]:
        scenes = paint(choices[n], rng)
        for step, scene in zip(choices[n].steps, scenes, strict=True):
            assert verify(render(scene), step.facts).correct
        for before, after in itertools.pairwise(scenes):
            assert after.objects[: len(before.objects)] == before.objects


def test_every_three_step_story_can_be_painted() -> None:
    rng = np.random.default_rng(0)
    for split in SPLITS:
        for story in stories(split, 3):
            paint(story, rng)


@pytest.mark.parametrize(
    ("step", "text", "expected"),
    [
        (0, "i draw a red circle", 1.0),
        (0, "i draw a blue circle", 1 / 2),
        (0, "i draw a red square", 0.0),
        (0, "i draw a red circle and a green cross", (2 - 1) / 2),
        (0, "i draw three red circles", 0.0),
        (0, "", 0.0),
        (1, "i add a blue square right of the red circle", 1.0),
        (1, "the red circle is left of the blue square", 1.0),
        (1, "i add a blue square left of the red circle", 4 / 5),
        (1, "i add a blue square right of it", 2 / 5),  # no end, hence no relation
        (1, "i add a red square right of the blue circle", 3 / 5),
        (1, "i add a blue square", 2 / 5),
        (1, "i add a blue square right of the red circle and a green cross", 4 / 5),
        (1, "i draw a red circle", 0.0),
    ],
)
def test_thought_score_by_hand(step: int, text: str, expected: float) -> None:
    by_prompt = {story.prompt: story for split in SPLITS for story in stories(split)}
    story = by_prompt["draw a red circle then add a blue square right of it"]
    assert thought_score(text, step, story) == pytest.approx(expected)


def test_gold_thoughts_score_fully() -> None:
    for steps in (2, 3):
        for story in stories("validation", steps):
            for k, step in enumerate(story.steps):
                assert thought_score(step.text, k, story) == 1.0


def test_text_tasks() -> None:
    answers = {t.question: t.answer for k in KINDS for s in SPLITS for t in text_tasks(k, s)}
    assert answers["the circle is left of the square where is the square"] == (
        "right of the circle"
    )
    assert answers["count two plus one"] == "three"
    assert answers["the cross is red and the square is blue what is blue"] == "the square"
    for kind in KINDS:
        for a, b in itertools.combinations(SPLITS, 2):
            first, second = ({t.question for t in text_tasks(kind, s)} for s in (a, b))
            assert first and second and not first & second


def test_vocabulary_is_closed() -> None:
    words = vocabulary()
    assert list(words) == sorted(set(words))
    rng = np.random.default_rng(0)
    texts = [p.text for c in CATEGORIES for s in SPLITS for p in prompts(c, s)]
    for split in SPLITS:
        for story in stories(split, 3):
            texts += [story.prompt, *(step.text for step in story.steps)]
        for category in CATEGORIES:
            for _ in range(50):
                question = sample_question(category, split, rng)
                texts += [question.question, question.answer]
        for _ in range(100):
            task = sample_text_task(split, rng)
            texts += [task.question, task.answer]
    assert {word for text in texts for word in text.split()} <= set(words)


def test_sampling_is_deterministic() -> None:
    draws = [
        [sample_question(c, "test", rng) for c in CATEGORIES] + [sample_text_task("test", rng)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    ]
    assert draws[0] == draws[1]
