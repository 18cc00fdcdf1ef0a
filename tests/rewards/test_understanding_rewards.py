"""Accuracy and reasoning format: CoRL's rewards of questions, by hand."""

import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import pytest

from tests.rewards.cases import DRAWING_SAMPLE, ONE, QUESTION_SAMPLE, STORY_SAMPLE, rollout, told
from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.data.microworld import QuestionSource
from unified_rl.rewards import mathematics
from unified_rl.rewards.accuracy import AccuracyReward, gold_answer
from unified_rl.rewards.answers import reasoned
from unified_rl.rewards.reasoning_format import ReasoningFormatReward

QUESTION = "what is the shape?\nA. circle\nB. square\nC. a circle and a square"
GOOD = reasoned("it has corners", "B")
NESTED = reasoned("<think>a</think><answer>A</answer>", "B")


def sample(gold="B", question=QUESTION, task=Task.UNDERSTANDING):
    return Sample("q", task, (Text(question),), facts={"answer": gold})


def outcome(reward, text, sample, finished=True):
    return reward.score(sample, told(Text(text), finished=finished)).outcome


@pytest.mark.parametrize(
    ("answer", "gold", "question", "right"),
    [
        ("B", "B", QUESTION, 1),
        ("(b)", "B", QUESTION, 1),
        ("square", "B", QUESTION, 1),
        ("B", "square", QUESTION, 1),
        ("B. square", "(B)", QUESTION, 1),
        ("a circle and a square", "C", QUESTION, 1),
        ("A or B", "B", QUESTION, 0),
        ("A or B", "A", QUESTION, 0),
        ("B. circle", "B", QUESTION, 0),
        ("circle", "B", QUESTION, 0),
        ("", "B", QUESTION, 0),
        # without options in the question
        ("the answer is b", "B", "which letter?", 1),
        ("three", "3", "how many?", 1),
        ("3.", "three", "how many?", 1),
        ("3 circles", "3", "how many?", 0),
        ("red", "Red", "what colour?", 1),
        # the gold answer is none of the options
        ("7", "seven", QUESTION, 1),
        ("B", "seven", QUESTION, 0),
    ],
)
@pytest.mark.parametrize("task", [Task.UNDERSTANDING, Task.TEXT])
def test_strict_accuracy(answer, gold, question, right, task):
    given = sample(gold, question, task)
    assert outcome(AccuracyReward(), reasoned("so", answer), given) == right


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "<answer>B</answer>",
        f"{GOOD} {GOOD}",
        f"{GOOD} or rather A",
        NESTED,
        "<think>it has corners</think><answer>B",
        "<think>answer is B</think><answer></answer>",
        "<think>a</think><answer>A</answer><answer>B</answer>",
        "<answer>B</answer><think>it has corners</think>",
        GOOD.replace("a", "\u0430"),
        "B" * 100_000,
    ],
)
def test_strict_answers_outside_the_form_are_wrong(text):
    assert outcome(AccuracyReward(), text, sample()) == 0


def test_kinds():
    choice, plain = AccuracyReward(kind="choice"), AccuracyReward(kind="open")
    assert outcome(choice, reasoned("so", "square"), sample()) == 1
    # as open answers these are two texts
    assert outcome(plain, reasoned("so", "square"), sample()) == 0
    assert outcome(plain, reasoned("so", "b."), sample()) == 1
    with pytest.raises(RewardError, match=r"'seven' of sample 'q' is none of its options"):
        outcome(choice, GOOD, sample("seven"))


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        ("<answer>red</answer>", "red", 1),
        ("i think <answer>Red.</answer> or <answer>blue</answer>", "red", 1),
        ("<think>hm</think>three", "3", 1),
        ("<think>hm</think><answer>A or B</answer>", "B", 1 / 3),
        ("<think>hm</think><answer>red circle!</answer>", "red circle", 1),
        # a right text of an option is none: the branch for choices never runs
        ("<think>hm</think><answer>square</answer>", "B", 0),
        # red of red, circles ~ circle by 12/13: (1 + 12/13) / (2 + 2 - 1 - 12/13)
        ("red circles", "red circle", (25 / 13) / (27 / 13)),
    ],
)
def test_released_accuracy_is_continuous(text, gold, score):
    reward = AccuracyReward(reading="released")
    assert outcome(reward, text, sample(gold)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("facts", "target", "gold"),
    [
        ({"answer": "red"}, "blue", "red"),
        ({"answer": 3}, "", "3"),
        ({}, "blue", "blue"),
        ({}, "<think>it looks so</think><answer> blue </answer>", "blue"),
        ({"answer": "<answer>B</answer>"}, "", "B"),
    ],
)
def test_gold_answers(facts, target, gold):
    segments = (Text(target),) if target else ()
    given = Sample("q", Task.UNDERSTANDING, (Text("what?"),), segments, facts)
    assert gold_answer(given) == gold


def test_micro_world_questions_have_gold_answers():
    source, rng = QuestionSource("train"), np.random.default_rng(0)
    for _ in range(20):
        question = source.draw(rng)
        answer = reasoned("i look", question.target[0].text)
        assert outcome(AccuracyReward(), answer, question) == 1
        assert outcome(AccuracyReward(), reasoned("i look", "a"), question) == 0


@pytest.mark.parametrize("facts", [{}, {"answer": " "}, {"question": "what?"}])
def test_no_gold_answer_is_an_error(facts):
    given = Sample("q", Task.UNDERSTANDING, (Text("what?"),), facts=facts)
    with pytest.raises(RewardError, match="'q' of task understanding has no gold answer"):
        outcome(AccuracyReward(), GOOD, given)


@pytest.mark.parametrize(
    ("text", "strict", "released"),
    [
        (GOOD, 1, 1),
        ("<think>a</think> ..\n<answer>b</answer>", 1, 1),
        (f"{GOOD}\n", 1, 0),
        (NESTED, 0, 1),
        (GOOD + GOOD, 0, 1),
        (reasoned("", "B"), 0, 1),
        (reasoned("a", " . "), 0, 1),
        ("<think>a</think>, <answer>B</answer>", 0, 0),
        ("<answer>B</answer>", 0, 0),
        ("B", 0, 0),
        ("", 0, 0),
        ("<think>" * 14_000, 0, 0),
    ],
)
def test_formats(text, strict, released):
    assert outcome(ReasoningFormatReward(), text, sample()) == strict
    assert outcome(ReasoningFormatReward(reading="released"), text, sample()) == released


def test_strict_format_wants_an_end_and_no_image():
    strict, released = ReasoningFormatReward(), ReasoningFormatReward(reading="released")
    assert outcome(strict, GOOD, sample(), finished=False) == 0
    assert outcome(released, GOOD, sample(), finished=False) == 1
    score = strict.score(sample(), told(Text(GOOD), ONE))
    assert score.outcome == 0
    assert score.steps == pytest.approx((0, math.nan), nan_ok=True)


@pytest.mark.parametrize("reward", [AccuracyReward, ReasoningFormatReward])
@pytest.mark.parametrize("reading", ["strict", "released"])
def test_silent_on_other_tasks(reward, reading):
    reward = reward(reading=reading)
    for other in (STORY_SAMPLE, DRAWING_SAMPLE):
        score = reward.score(other, told(Text(GOOD), ONE))
        assert score.outcome == 0
        assert all(math.isnan(step) for step in score.steps)


@pytest.mark.parametrize(
    "reward",
    [
        AccuracyReward(reading="released"),
        AccuracyReward(kind="choice"),
        AccuracyReward(kind="open"),
        ReasoningFormatReward(reading="released"),
    ],
)
def test_self_tests_pass_with_other_settings(reward):
    reward.self_test()


@pytest.mark.parametrize("reward", [AccuracyReward, ReasoningFormatReward])
def test_texts_have_the_outcome_as_step(reward):
    score = reward().score(sample(), told(Text(GOOD)))
    assert score == (1, (1,))


@pytest.mark.parametrize("reward", [AccuracyReward, ReasoningFormatReward])
@pytest.mark.parametrize("reading", ["strict", "released"])
def test_scores_do_not_depend_on_the_batch(reward, reading):
    reward = reward(reading=reading)
    gold = gold_answer(QUESTION_SAMPLE)
    texts = (gold, reasoned("so", gold), reasoned("so", "the square"), NESTED, "", GOOD + GOOD)
    completions = [told(Text(text)) for text in texts]
    together = reward(rollout(completions, QUESTION_SAMPLE)).outcome.tolist()
    backwards = reward(rollout(completions[::-1], QUESTION_SAMPLE)).outcome.tolist()
    alone = [reward(rollout([c], QUESTION_SAMPLE)).outcome.item() for c in completions]
    assert together == backwards[::-1] == alone
    assert len(set(together)) > 1


@pytest.mark.parametrize(
    ("reward", "settings", "message"),
    [
        (AccuracyReward, {"reading": "loose"}, "'loose' is none of strict, released"),
        (AccuracyReward, {"kind": "mcq"}, "'mcq' is none of auto, choice, open, math"),
        (AccuracyReward, {"reading": "released", "kind": "open"}, "kind='open' has no effect"),
        (ReasoningFormatReward, {"reading": "lazy"}, "'lazy' is none of strict, released"),
        (ReasoningFormatReward, {"weight": -1}, "weight=-1"),
    ],
)
def test_settings_are_checked(reward, settings, message):
    with pytest.raises(ConfigError, match=message):
        reward(**settings)


def test_options_may_stand_in_several_texts():
    prompt = (Text("which?"), Image(np.zeros((2, 2, 3), np.uint8)), Text("A. red"), Text("B. blue"))
    given = Sample("q", Task.UNDERSTANDING, prompt, facts={"answer": "B"})
    assert outcome(AccuracyReward(), reasoned("so", "blue"), given) == 1


def test_formulas_need_their_package(monkeypatch):
    monkeypatch.setattr(mathematics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install math-verify"):
        AccuracyReward(kind="math")


@pytest.fixture
def stand_in(monkeypatch):
    """A package of the same functions that knows one equality and lists what it was given."""
    asked = []

    def verify(gold, answer):
        asked.append((gold, answer))
        return (gold, answer) == ([r"$\frac{1}{2}$"], ["$0.5$"])

    module = ModuleType("math_verify")
    module.__spec__ = ModuleSpec("math_verify", None)
    module.LatexExtractionConfig = object
    module.parse = lambda text, extraction_config: [text]
    module.verify = verify
    monkeypatch.setitem(sys.modules, "math_verify", module)
    return asked


def test_formulas_are_compared_after_texts(stand_in):
    reward = AccuracyReward(kind="math")
    reward.self_test()
    stand_in.clear()
    half = sample(r"$\frac{1}{2}$.", "one by two?")
    assert outcome(reward, reasoned("so", r"$\frac{1}{2}$"), half) == 1
    assert outcome(reward, reasoned("so", "B"), sample()) == 1
    assert outcome(reward, reasoned("so", "A"), sample()) == 0
    assert stand_in == []
    assert outcome(reward, reasoned("so", "0.5"), half) == 1
    # several formulas, none, and one that is too long are not even asked for
    for answer in ("$1$ or $0.5$", "$$", "1+" * 200):
        assert outcome(reward, reasoned("so", answer), half) == 0
    assert stand_in == [([r"$\frac{1}{2}$"], ["$0.5$"])]


def test_formulas_by_math_verify():
    pytest.importorskip("math_verify")
    reward = AccuracyReward(kind="math")
    reward.self_test()
    for answer, gold, right in (
        ("0.5", r"\frac{1}{2}", 1),
        ("$2/4$", r"\frac{1}{2}", 1),
        ("2 or 3", "3", 0),
        (r"\sqrt{8}", r"2\sqrt{2}", 1),
        ("3", "4", 0),
    ):
        assert outcome(reward, reasoned("so", answer), sample(gold, "how much?")) == right
