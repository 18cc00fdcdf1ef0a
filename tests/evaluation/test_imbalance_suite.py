"""The imbalance suite on policies whose results are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tests.toys import ASSETS
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Completion, DrawnImage, Image, Task, Text
from unified_rl.evaluation.imbalance_suite import ImbalanceSuite
from unified_rl.microworld.facts import compose as composed
from unified_rl.microworld.prompts import CATEGORIES
from unified_rl.microworld.render import render
from unified_rl.models.vila_u.load import vila_u
from unified_rl.rewards.sample_facts import drawing_of
from unified_rl.runtime.cli import register_resolvers

CONF = Path(__file__).parents[2] / "conf"
SMALL = {"prompts_per_category": 3, "images_per_prompt": 2, "foreign_per_category": 4}
BLANK = np.full((24, 24, 3), 255, np.uint8)
CHAINS = ("t2i_to_mmu", "mmu_to_t2i")


class Model(torch.nn.Module):
    """Draws and answers rightly where it is told to, and keeps what it was asked.

    It is shown its own drawings as codes, so that a suite that shows it pixels is found out.
    """

    def __init__(self, draws=lambda sample: True, answers=lambda sample: True):
        super().__init__()
        self.draws, self.answers, self.asked = draws, answers, []

    def sample(self, samples, behaviour, generator):
        self.asked += samples
        return None, tuple(Completion((self._segment(sample),), True) for sample in samples)

    def _segment(self, sample):
        if sample.task is Task.TEXT_TO_IMAGE:
            rng = np.random.default_rng(0)
            right = self.draws(sample)
            return Image(render(composed(drawing_of(sample), rng)) if right else BLANK)
        return Text(sample.facts["answer"] if self.answers(sample) else "a star")

    def own_pictures(self, trajectory, completions):
        return tuple(DrawnImage(np.zeros((1, 1), np.int64)) for _ in completions)

    def questions(self, kind):
        shown = [s for s in self.asked if s.task is Task.UNDERSTANDING]
        return [s for s in shown if isinstance(s.prompt[0], kind)]


def of(*categories):
    return lambda sample: sample.facts["category"] in categories


def never(sample):
    return False


def test_a_perfect_model_has_full_marks():
    model = Model()
    evaluation = ImbalanceSuite(**SMALL).run(model)
    assert set(evaluation.values().values()) == {1.0}
    assert len(evaluation.metrics) == 4 * 7  # each with its categories
    assert {name: evaluation.metrics[name].n for name in ("generation_accuracy", *CHAINS)} == {
        "generation_accuracy": 36,  # 6 x 3 x 2
        "t2i_to_mmu": 36,
        "mmu_to_t2i": 24,  # 6 x 4
    }
    assert len(model.questions(DrawnImage)) == 36  # own drawings as the codes they are
    assert len(model.questions(Image)) == 24
    assert len(model.asked) == 36 + 36 + 24 + 24
    assert evaluation.labels["t2i_to_mmu"] == "36 both right of 36 pictures right of 36"


def test_questions_follow_right_pictures_alone_and_pictures_right_answers():
    # draws single and two, answers two and colors
    model = Model(of("single", "two"), of("two", "colors"))
    evaluation = ImbalanceSuite(**SMALL).run(model)
    values = evaluation.values()
    assert values["generation_accuracy"] == pytest.approx(2 / 6)
    assert values["understanding_accuracy"] == pytest.approx(2 / 6)
    assert values["t2i_to_mmu"] == 0.5  # of 6 + 6 right pictures the 6 of two
    assert values["mmu_to_t2i"] == 0.5  # of 4 + 4 right answers the 4 of two
    assert {name for name in values if "t2i_to_mmu/" in name} == {
        "t2i_to_mmu/single",
        "t2i_to_mmu/two",
    }
    assert (values["mmu_to_t2i/two"], values["mmu_to_t2i/colors"]) == (1, 0)
    assert {s.facts["category"] for s in model.questions(DrawnImage)} == {"single", "two"}
    redrawn = model.asked[-8:]
    assert {s.facts["category"] for s in redrawn} == {"two", "colors"}
    assert all(s.task is Task.TEXT_TO_IMAGE for s in redrawn)


def test_where_nothing_is_counted_there_is_no_value():
    values = ImbalanceSuite(**SMALL).run(Model(never, never)).values()
    assert not any(name.startswith(CHAINS) for name in values)
    assert values["generation_accuracy"] == values["understanding_accuracy"] == 0


def test_another_model_draws_the_pictures_asked_about():
    """It draws every second picture right; wrong ones are never shown."""
    turn = iter(range(10**6))
    other = Model(lambda sample: next(turn) % 2 == 0)
    made = []
    suite = ImbalanceSuite(**SMALL, other=lambda: made.append(1) or other)
    model = Model()
    assert not made  # made when it is needed
    suite.run(model)
    shown = model.questions(Image)
    assert [sum(of(c)(s) for s in shown) for c in CATEGORIES] == [4] * 6
    assert not any((s.prompt[0].pixels == BLANK).all() for s in shown)
    again = Model()
    suite.run(again)
    assert made == [1]
    assert [s.prompt[0].pixels.tobytes() for s in again.questions(Image)] == [
        s.prompt[0].pixels.tobytes() for s in shown
    ]


def test_a_category_that_cannot_be_filled_is_named():
    other = Model(lambda sample: sample.facts["category"] != "position")
    suite = ImbalanceSuite(**SMALL, other=lambda: other, attempts_per_picture=3)
    with pytest.raises(DataError, match="drew 0 of 4 right pictures of category 'position' in 12"):
        suite.run(Model())
    assert sum(of("position")(s) for s in other.asked) == 12


def test_held_out_classes_are_counted_apart():
    def seen(sample):
        return all(entry["class"] != "cross" for entry in sample.facts["include"])

    suite = ImbalanceSuite(**SMALL, unseen_classes=["cross"])
    evaluation = suite.run(Model(answers=seen))
    metrics = evaluation.metrics
    assert metrics["understanding_accuracy_seen"].value == 1
    assert metrics["understanding_accuracy_unseen"].value == 0
    parts = [metrics[f"understanding_accuracy_{part}"].n for part in ("seen", "unseen")]
    assert sum(parts) == 24 and min(parts) > 0
    assert not any("seen" in name for name in ImbalanceSuite(**SMALL).run(Model()).metrics)


def test_what_the_judge_cannot_judge_is_wrong_and_reported():
    class Unsure:
        failure_count = 0

        def __call__(self, sample, answer):
            unclear = sample.facts["category"] == "single"
            self.failure_count += unclear
            return not unclear

    evaluation = ImbalanceSuite(**SMALL, judge=Unsure()).run(Model())
    values = evaluation.values()
    assert values["judge_failures"] == pytest.approx(1 / 6)
    assert values["understanding_accuracy/single"] == values["t2i_to_mmu/single"] == 0
    assert evaluation.settings["judge"] == "Unsure"


def test_the_gallery_has_drawings_own_questions_and_others():
    suite = ImbalanceSuite(**SMALL, gallery_count=6, gallery_question_count=3)
    gallery = suite.run(Model(of("single", "two"), never)).gallery
    drawings, own, foreign = gallery[:6], gallery[6:9], gallery[9:]
    assert [entry.correct for entry in drawings] == [(True,), (True,), *[(False,)] * 4]
    assert all(len(entry.images) == 1 and not entry.texts for entry in drawings)
    assert all(entry.prompt.endswith("(own drawing)") for entry in own) and len(foreign) == 3
    for entry in (*own, *foreign):
        assert entry.texts == ("a star",) and entry.correct == (False,)
        assert entry.shown[0].shape == (24, 24, 3) and not (entry.shown[0] == BLANK).all()


def test_progress_ends_at_the_total():
    told = []
    ImbalanceSuite(**SMALL).run(Model(of("two")), progress=lambda *pair: told.append(pair))
    assert told[-1] == (144, 144)  # 2 x 36 + 3 x 24
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_same_settings_ask_the_same():
    first, second, other = Model(), Model(), Model()
    ImbalanceSuite(**SMALL).run(first)
    ImbalanceSuite(**SMALL).run(second)
    ImbalanceSuite(**SMALL, seed=1).run(other)
    assert [s.id for s in first.asked] == [s.id for s in second.asked]
    assert [s.id for s in first.asked] != [s.id for s in other.asked]


def test_a_shipped_model_sees_its_own_drawings():
    suite = ImbalanceSuite(
        prompts_per_category=2,
        images_per_prompt=1,
        foreign_per_category=1,
        behaviour_answer=Behaviour(text=Sampling(temperature=0.0), max_text_tokens=20),
    )
    values = suite.run(vila_u(str(ASSETS / "micro_vila_u")).eval()).values()
    assert values["generation_accuracy"] > 0.3  # .75 over many
    assert values["t2i_to_mmu"] > 0.6  # .96
    assert values["understanding_accuracy"] > 0.5  # .95


@pytest.mark.parametrize("name", ["micro_unirl", "micro_unirl_showo"])
def test_the_other_model_is_one_setting_away(name):
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"suite={name}", "model@suite.other=micro_vila_u"]
        suite = instantiate(compose("evaluate", overrides).suite, _convert_="all")
        assert suite.settings["other"].startswith("vila_u of ")
        plain = instantiate(compose("evaluate", [f"suite={name}"]).suite, _convert_="all")
        assert plain.settings["other"].startswith("janus of ")
        nothing = compose("evaluate", [f"suite={name}", "suite.other=null"]).suite
        assert instantiate(nothing, _convert_="all").settings["other"] == "rendered"
    guided = suite.settings["behaviour_image"]["guidance_scale"]
    assert guided == (2 if name == "micro_unirl_showo" else 1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"prompts_per_category": 0}, "prompts_per_category=0"),
        ({"images_per_prompt": 0}, "images_per_prompt=0"),
        ({"foreign_per_category": -1}, "foreign_per_category=-1"),
        ({"attempts_per_picture": 0}, "attempts_per_picture=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"gallery_count": -1}, "gallery_count=-1"),
        ({"split": "exam"}, "exam"),
        ({"unseen_classes": ["crosses"]}, "did you mean 'cross'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, named):
    with pytest.raises(ConfigError) as refused:
        ImbalanceSuite(**settings)
    assert named in str(refused.value)
