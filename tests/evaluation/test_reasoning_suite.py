"""CoRL's micro suite on policies whose results are known."""

import numpy as np
import pytest
import torch

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Completion, Image, Task, Text
from unified_rl.data.microworld import drawing_sample
from unified_rl.evaluation.reasoning_suite import ReasoningSuite
from unified_rl.microworld.prompts import CATEGORIES, Prompt
from unified_rl.microworld.reasoning import INSTRUCTIONS
from unified_rl.rewards.sample_facts import drawing_of

SMALL = {"drawings_per_category": 4, "questions_per_category": 3}


class Answering(torch.nn.Module):
    """Answers through a function and keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, []

    def sample(self, samples, behaviour, generator):
        self.asked += samples
        return None, tuple(self.answer(sample) for sample in samples)


def gold(sample):
    if sample.task is Task.TEXT_TO_IMAGE:
        prompt = Prompt(sample.prompt_text, sample.facts["category"], drawing_of(sample), "test")
        return Completion(drawing_sample(prompt, np.random.default_rng(0)).target, True)
    answer = sample.facts["answer"]
    return Completion((Text(f"<think> i see it </think> <answer> {answer} </answer>"),), True)


def untagged(sample):
    if sample.task is Task.TEXT_TO_IMAGE:
        return Completion((Image(np.full((24, 24, 3), 255, np.uint8)),), True)
    return Completion((Text(sample.facts["answer"]),), True)


def only_choices(sample):
    return gold(sample) if sample.facts.get("kind") == "choice" else untagged(sample)


def test_gold_answers_have_full_marks():
    evaluation = ReasoningSuite(**SMALL).run(Answering(gold))
    assert set(evaluation.values().values()) == {1.0}
    assert len(evaluation.metrics) == 3 * 7 + 2  # three means with six categories, two single ones
    assert evaluation.metrics["generation_accuracy"].n == 24  # 6 x 4
    assert evaluation.metrics["understanding_accuracy"].n == 36  # 6 x 3 x 2


def test_a_right_answer_out_of_form_counts_nothing():
    assert set(ReasoningSuite(**SMALL).run(Answering(untagged)).values().values()) == {0.0}


def test_understanding_is_the_mean_of_both_kinds():
    values = ReasoningSuite(**SMALL).run(Answering(only_choices)).values()
    assert values["choice_accuracy"] == 1
    assert values["open_accuracy"] == 0
    assert values["understanding_accuracy"] == 0.5
    assert values["reasoning_format"] == 0.5


def test_the_same_settings_ask_the_same():
    first, second = Answering(gold), Answering(gold)
    ReasoningSuite(**SMALL).run(first)
    ReasoningSuite(**SMALL).run(second)
    assert [s.id for s in first.asked] == [s.id for s in second.asked]
    other = Answering(gold)
    ReasoningSuite(**SMALL, seed=1).run(other)
    assert [s.id for s in first.asked] != [s.id for s in other.asked]


def test_parts_can_be_left_out():
    suite = ReasoningSuite(drawings_per_category=0, questions_per_category=1)
    evaluation = suite.run(Answering(gold))
    assert "generation_accuracy" not in evaluation.metrics
    assert all(entry.shown for entry in evaluation.gallery)  # questions alone
    drawn = ReasoningSuite(drawings_per_category=1, questions_per_category=0).run(Answering(gold))
    assert set(drawn.metrics) == {
        "generation_accuracy",
        *(f"generation_accuracy/{category}" for category in CATEGORIES),
    }
    assert not any(entry.shown for entry in drawn.gallery)


def test_the_gallery_spreads_over_the_categories():
    suite = ReasoningSuite(drawings_per_category=4, questions_per_category=0, gallery_count=6)
    prompts = [entry.prompt for entry in suite.run(Answering(gold)).gallery]
    assert len(set(prompts)) == 6
    assert all(entry.correct == (True,) for entry in suite.run(Answering(gold)).gallery)


def test_the_gallery_keeps_questions_with_what_was_shown_and_said():
    evaluation = ReasoningSuite(drawings_per_category=0, questions_per_category=3).run(
        Answering(only_choices)
    )
    entries = evaluation.gallery  # 8 of 36, at 0, 4, 9, 13, 18, ...: kinds change every third
    assert len(entries) == 8
    for entry in entries:
        is_choice = INSTRUCTIONS["choice"] in entry.prompt
        assert entry.correct == (is_choice,) and entry.well_formed is is_choice
        assert entry.texts[0].startswith("<think>") is is_choice
        assert entry.images == () and entry.shown[0].shape == (24, 24, 3)
    assert {INSTRUCTIONS["open"] in entry.prompt for entry in entries} == {True, False}


def test_galleries_lie_at_the_same_places_in_every_run():
    suite = ReasoningSuite(**SMALL)
    first, second = (suite.run(Answering(answer)).gallery for answer in (gold, untagged))
    assert [e.prompt for e in first] == [e.prompt for e in second]
    assert len(first) == 12 + 8


@pytest.mark.parametrize(
    "settings",
    [
        {"drawings_per_category": -1},
        {"drawings_per_category": 0, "questions_per_category": 0},
        {"batch_size": 0},
        {"gallery_question_count": -1},
        {"split": "exam"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        ReasoningSuite(**settings)
