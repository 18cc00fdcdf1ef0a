"""The suite on policies whose results are known."""

import base64
import io
import json

import numpy as np
import PIL.Image
import pytest
import torch

from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Completion, Image, Task, Text
from unified_rl.data.microworld import drawing_sample, story_sample
from unified_rl.evaluation.estimates import Estimate
from unified_rl.evaluation.micro_suite import MicroWorldSuite
from unified_rl.evaluation.record import Evaluation, GalleryEntry
from unified_rl.microworld.prompts import CATEGORIES, Prompt, prompts
from unified_rl.microworld.stories import Story, stories
from unified_rl.rewards.sample_facts import drawing_of

SMALL = {"story_count": 20, "drawings_per_category": 4, "questions_per_category": 4}


class Recorder(torch.nn.Module):
    """Answers through a function and keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked, self.behaviours, self.modes = answer, [], [], []

    def sample(self, samples, behaviour, generator):
        self.asked += samples
        self.behaviours.append(behaviour)
        self.modes.append((self.training, torch.is_grad_enabled()))
        return None, tuple(self.answer(sample, generator) for sample in samples)

    def texts(self, task):
        return [s.prompt_text for s in self.asked if s.task is task]


def gold(sample, generator):
    rng = np.random.default_rng(0)
    if sample.task is Task.INTERLEAVED:
        segments = (*story_sample(Story.from_json(sample.facts["story"]), rng).target, Text(""))
    elif sample.task is Task.TEXT_TO_IMAGE:
        prompt = Prompt(sample.prompt_text, sample.facts["category"], drawing_of(sample), "test")
        segments = drawing_sample(prompt, rng).target
    else:
        segments = (Text(sample.facts["answer"]),)
    return Completion(segments, finished=True)


def garbage(sample, generator):
    noise = torch.randint(0, 256, (24, 24, 3), generator=generator, dtype=torch.uint8)
    if sample.task is Task.UNDERSTANDING:
        return Completion((Text("the is and"),), finished=True)
    return Completion((Text("and and"), Image(noise.numpy())), finished=False)


@pytest.mark.parametrize("steps", [2, 3])
def test_gold_answers_have_full_marks(steps):
    metrics = MicroWorldSuite(**SMALL, story_steps=steps).run(Recorder(gold)).metrics
    full = dict.fromkeys(metrics, 1.0)
    full |= {name: 5.0 for name in metrics if name.startswith("interleavedbench_like/")}
    full["mmie_like"] = 100.0
    assert {name: metric.value for name, metric in metrics.items()} == pytest.approx(full)
    assert all(metric.low < metric.value for metric in metrics.values())
    assert f"visual_correctness/step_{steps}" in metrics
    assert metrics["generation_accuracy"].n == 24
    # six of stories and their steps, five aspects and their mean, mmie_like, two of 1 + 6
    assert len(metrics) == 6 + steps + 6 + 1 + 7 + 7


def test_garbage_has_none():
    metrics = MicroWorldSuite(**SMALL).run(Recorder(garbage)).values()
    assert max(metrics.values()) == 0


def test_every_story_and_prompt_is_used_before_any_repeats():
    count = len(stories("validation"))
    suite = MicroWorldSuite(
        story_count=count + 3,
        drawings_per_category=len(prompts("two", "validation")),
        questions_per_category=0,
        split="validation",
    )
    policy = Recorder(gold)
    suite.run(policy)
    told = policy.texts(Task.INTERLEAVED)
    assert set(told[:count]) == {story.prompt for story in stories("validation")}
    assert len(told) == count + 3
    drawn = policy.texts(Task.TEXT_TO_IMAGE)
    wanted = {prompt.text for prompt in prompts("two", "validation")}
    assert wanted <= set(drawn)


def test_prompts_depend_on_the_settings_alone():
    policies = [Recorder(gold), Recorder(garbage), Recorder(gold)]
    for policy, batch_size in zip(policies, (100, 7, 100), strict=True):
        MicroWorldSuite(**SMALL, batch_size=batch_size).run(policy, generator_seed=batch_size)
    ids = [[sample.id for sample in policy.asked] for policy in policies]
    assert ids[0] == ids[1] == ids[2]
    other = Recorder(gold)
    MicroWorldSuite(**SMALL, seed=1).run(other)
    assert [sample.id for sample in other.asked] != ids[0]


def test_parts_have_streams_and_behaviours_of_their_own():
    drawn = []

    def watching(sample, generator):
        value = int(torch.randint(10**9, (), generator=generator))
        if sample.task is Task.TEXT_TO_IMAGE:
            drawn.append(value)
        return garbage(sample, generator)

    behaviours = [Behaviour(text=Sampling(temperature=t)) for t in (0.25, 0.5, 0.75)]
    named = zip(("story", "image", "answer"), behaviours, strict=True)
    settings = {f"behaviour_{name}": behaviour for name, behaviour in named}
    policy = Recorder(watching)
    MicroWorldSuite(**SMALL, **settings).run(policy)
    MicroWorldSuite(**{**SMALL, "story_count": 0}).run(Recorder(watching))
    assert policy.behaviours == behaviours
    assert drawn[:24] == drawn[24:]


def test_policies_are_measured_in_evaluation_mode_and_given_back():
    policy = Recorder(gold).train()
    policy.frozen = torch.nn.Dropout().eval()
    MicroWorldSuite(**SMALL).run(policy)
    assert set(policy.modes) == {(False, False)}
    assert policy.training
    assert not policy.frozen.training


def test_progress_reaches_the_total():
    seen = []
    suite = MicroWorldSuite(**SMALL, batch_size=10)
    suite.run(Recorder(gold), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(d, 68) for d in (10, 20, 30, 40, 44, 54, 64, 68)]


def test_parts_can_be_left_out():
    suite = MicroWorldSuite(story_count=0, drawings_per_category=0, questions_per_category=2)
    evaluation = suite.run(Recorder(gold))
    want = {"understanding_accuracy"} | {f"understanding_accuracy/{c}" for c in CATEGORIES}
    assert set(evaluation.metrics) == want
    assert evaluation.gallery == ()
    assert evaluation.labels == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"story_count": 0, "drawings_per_category": 0, "questions_per_category": 0},
        {"story_count": -1},
        {"batch_size": 0},
        {"split": "dev"},
        {"story_steps": 5},
    ],
)
def test_settings_that_cannot_work(settings):
    with pytest.raises(ConfigError):
        MicroWorldSuite(**settings)


def test_record_holds_metrics_settings_provenance_and_pictures(tmp_path):
    suite = MicroWorldSuite(**SMALL, gallery_count=3)
    evaluation = suite.run(Recorder(gold), generator_seed=5)
    evaluation.write(tmp_path / "new", {"commit": "abc"})
    files = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert files == ["evaluation.json", "gallery.json"]
    record = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert record["provenance"] == {"commit": "abc"}
    assert record["settings"]["story_count"] == 20
    assert record["settings"]["generator_seed"] == 5
    assert record["settings"]["behaviour_story"]["text"]["temperature"] == 1.0
    assert record["metrics"]["joint_correctness"]["n"] == 20
    assert "stand-in" in record["labels"]["mmie_like"]
    gallery = json.loads((tmp_path / "new" / "gallery.json").read_text())
    assert len(gallery) == 3
    assert gallery[0]["correct"] == [True, True]
    picture = PIL.Image.open(io.BytesIO(base64.b64decode(gallery[0]["images_png"][1])))
    np.testing.assert_array_equal(np.asarray(picture), evaluation.gallery[0].images[1])


def test_a_failed_write_leaves_the_old_record(tmp_path):
    metrics = {"a": Estimate(0.5, 0.4, 0.6, 10)}
    Evaluation("s", {}, metrics).write(tmp_path, {})
    before = (tmp_path / "evaluation.json").read_text()
    entry = GalleryEntry("p", (), (), (), False)
    with pytest.raises(TypeError):
        Evaluation("s", {}, {}, gallery=(entry,)).write(tmp_path, {"x": object()})
    assert (tmp_path / "evaluation.json").read_text() == before
    assert json.loads((tmp_path / "gallery.json").read_text()) == []
