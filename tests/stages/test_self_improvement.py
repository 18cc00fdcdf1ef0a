"""Self-improvement through Lightning: candidates, weights, the gradients of eqs. 4 and 5."""

import numpy as np
import pytest
import torch

from tests.stages.training import (
    SHORT,
    Brightness,
    Constant,
    Gradients,
    gradients,
    run,
    self_improvement,
)
from unified_rl.core.errors import CapabilityError, ConfigError
from unified_rl.core.sample import Image, Task
from unified_rl.objectives.straight_through import Relaxation
from unified_rl.objectives.weighted_likelihood import WeightedLikelihood
from unified_rl.rewards.visual import VisualReward

PROMPTS, GROUP = 2, 3
PATHS = [
    ("showo", "end_to_end"),
    ("vila_u", "end_to_end"),
    ("showo", "separate"),
    ("vila_u", "separate"),
    ("janus", "separate"),
]


def improved(stage, monkeypatch, **settings):
    """What the first batch gave to `improve`: drawings, answers, weights, seeds."""
    seen = []
    improve = stage.improve

    def keep(*given):
        seen.append(given)
        return improve(*given)

    monkeypatch.setattr(stage, "improve", keep)
    run(stage, batches=1, batch_size=PROMPTS, **settings)
    return seen[0]


def asked(stage, monkeypatch, **settings):
    """The questions of the first batch."""
    seen = []
    ask = stage.ask

    def keep(*given):
        seen.append(ask(*given))
        return seen[-1]

    monkeypatch.setattr(stage, "ask", keep)
    drawings, *_ = improved(stage, monkeypatch, **settings)
    return drawings, seen[0]


def double(policy):
    return policy.double()


@pytest.mark.parametrize(("family", "path"), PATHS)
def test_each_drawing_is_asked_about_as_its_policy_sees_it(family, path, monkeypatch):
    stage = self_improvement(family, group_size=GROUP, path=path)
    drawings, questions = asked(stage, monkeypatch)
    assert len(questions) == PROMPTS * GROUP
    for row, question in enumerate(questions):
        picture, words = question.prompt
        assert question.task == Task.UNDERSTANDING
        assert words.text == question.facts["question"]
        assert question.target[0].text == question.facts["answer"]
        if family == "janus":
            assert isinstance(picture, Image)
        else:
            codes = stage.policy.drawn_images(drawings)[row].codes
            assert np.array_equal(picture.codes, codes)
    groups = np.array([q.facts["answer"] for q in questions]).reshape(PROMPTS, GROUP)
    assert all(len(set(group)) == 1 for group in groups)


@pytest.mark.parametrize(("family", "path"), PATHS)
def test_the_gradient_is_that_of_the_equations_in_double_precision(family, path, monkeypatch):
    # -1/P sum over prompts of sum over the group of w_i log p(answer_i | what is seen of drawing_i)
    # and, apart, the same of the drawing; w = softmax((r - mean) / sharpness), row by row.
    objective = WeightedLikelihood("sampled", sharpness=0.3, beta=0.0)
    stage = self_improvement(
        family, group_size=GROUP, path=path, objective=objective, change=double, image_weight=0.5
    )
    kept = Gradients()
    drawn, answers, weights, seeds, _ = improved(stage, monkeypatch, callbacks=[kept])
    _, scores = stage.latest
    rewards = scores.outcome.double().view(PROMPTS, GROUP)
    want = ((rewards - rewards.mean(1, keepdim=True)) / 0.3).softmax(1) / PROMPTS
    torch.testing.assert_close(weights.double(), want.flatten(), atol=1e-6, rtol=0)

    policy = self_improvement(family, path=path, change=double)._make_policy()
    total = torch.zeros((), dtype=torch.float64)
    for row, weight in enumerate(weights.double()):
        rows = slice(row, row + 1)
        answer = answers.select(rows)
        if path == "end_to_end":
            soft = policy.soft_images(drawn.select(rows), 1.0, seeds[rows])
            answer = answer._replace(tape={**answer.tape, "shown": soft[:, None]})
        else:
            total = total - 0.5 * weight * policy.logprobs(drawn.select(rows)).sum()
        total = total - weight * policy.logprobs(answer).sum()
    total.backward()
    (ours,) = kept.steps
    named = {f"policy.{n}": p.grad for n, p in policy.named_parameters() if p.grad is not None}
    trained = {name: named[name] for name in ours if name in named}
    scale = max(gradient.abs().max() for gradient in trained.values())
    assert scale > 1e-3
    assert max((ours[n] - g).abs().max() for n, g in trained.items()) <= 2e-6 * scale


@pytest.mark.parametrize("family", ["showo", "vila_u"])
def test_gold_answers_teach_the_drawing_through_the_answer(family, monkeypatch):
    stage = self_improvement(family, "gold", group_size=1)
    kept = Gradients()
    _, answers, weights, *_ = improved(stage, monkeypatch, callbacks=[kept])
    assert weights.tolist() == [1 / PROMPTS] * PROMPTS
    assert not answers.logprobs.any()  # encoded, not drawn
    head = "depth_transformer" if family == "vila_u" else "lm_head"
    assert any(head in name and gradient.any() for name, gradient in kept.steps[0].items())


@pytest.mark.parametrize("family", ["showo", "vila_u"])
def test_drawn_anew_other_codes_are_asked_about(family, monkeypatch):
    stage = self_improvement(family, relaxation=Relaxation(redraw=True), group_size=GROUP)
    drawings, questions = asked(stage, monkeypatch)
    kept = np.stack([image.codes for image in stage.policy.drawn_images(drawings)])
    shown = np.stack([question.prompt[0].codes for question in questions])
    assert (kept != shown).any()
    if family == "showo":  # what was not masked stays
        assert (kept == shown).any()


def test_every_mask_of_an_image_makes_a_candidate(monkeypatch):
    stage = self_improvement("showo", relaxation=Relaxation(mask_draws=2), group_size=GROUP)
    drawings, questions = asked(stage, monkeypatch)
    assert drawings.row_count == len(questions) == PROMPTS * GROUP * 2
    codes = [image.codes.tolist() for image in stage.policy.drawn_images(drawings)]
    assert codes[::2] == codes[1::2]
    _, scores = stage.latest
    assert stage.latest[0].group_size == GROUP * 2
    assert len(scores.outcome) == len(questions)


@pytest.mark.parametrize(("family", "path"), PATHS)
def test_the_reference_is_the_start_and_stays(family, path):
    # at the first step the policy is the reference: a KL of exactly 0, and no pull from it
    plain = gradients(self_improvement(family, path=path))
    held = self_improvement(
        family, path=path, objective=WeightedLikelihood("sampled", beta=5.0, divergence="k2")
    )
    with_kl = gradients(held)
    assert max((plain[n] - with_kl[n]).abs().max() for n in plain) <= 1e-5
    stage = self_improvement(family, path=path, objective=WeightedLikelihood("sampled", beta=0.1))
    trainer = run(stage, batches=2)
    start = self_improvement(family)._make_policy().state_dict()
    assert all(torch.equal(v, start[n]) for n, v in stage.start().state_dict().items())
    assert trainer.callback_metrics["kl"] > 0


def test_equal_rewards_weigh_all_alike(monkeypatch):
    stage = self_improvement("vila_u", reward=Constant(), group_size=GROUP)
    *_, weights, _, _ = improved(stage, monkeypatch)
    assert weights.tolist() == pytest.approx([1 / (PROMPTS * GROUP)] * (PROMPTS * GROUP))


@pytest.mark.parametrize(("family", "path"), PATHS)
def test_centred_equal_rewards_have_no_gradient(family, path):
    objective = WeightedLikelihood("sampled", centred=True, beta=0.0)
    stage = self_improvement(family, path=path, objective=objective, reward=Constant())
    assert not any(gradient.any() for gradient in gradients(stage).values())


def test_rewards_are_logged_by_category():
    stage = self_improvement("vila_u", group_size=GROUP)
    metrics = run(stage, batches=1, batch_size=PROMPTS).callback_metrics
    rollout, scores = stage.latest
    kinds = [sample.facts["category"] for sample in rollout.samples]
    for kind in set(kinds):
        own = [float(s) for s, k in zip(scores.outcome, kinds, strict=True) if k == kind]
        assert float(metrics[f"reward_{kind}"]) == pytest.approx(sum(own) / len(own))
    assert {name for name in metrics if name.startswith("reward_")} == {
        "reward_std",
        *(f"reward_{kind}" for kind in kinds),
    }


def test_judges_see_the_drawings_and_change_nothing(monkeypatch):
    judge = VisualReward(weight=0.0, strict_weight=1.0)
    judged = self_improvement("vila_u", judges={"visual": judge})
    metrics = run(judged, batches=1).callback_metrics
    assert 0 <= metrics["drawing_visual"] <= 1
    with_judge = gradients(self_improvement("vila_u", judges={"visual": judge}))
    without = gradients(self_improvement("vila_u"))
    assert all(torch.equal(with_judge[name], without[name]) for name in without)


def test_a_family_that_does_not_see_what_it_draws_goes_apart():
    with pytest.raises(CapabilityError, match=r"stage\.path=separate, or stage\.force=true"):
        run(self_improvement("janus", path="end_to_end"))


@pytest.mark.parametrize("answers", ["sampled", "gold"])
def test_it_can_be_forced(answers):
    stage = self_improvement("janus", answers, path="end_to_end", force=True)
    found = gradients(stage)
    assert any("generation_head" in name and g.any() for name, g in found.items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "both"}, "neither end_to_end nor separate"),
        ({"group_size": 1}, "use 2 or more"),
        ({"image_weight": -1.0}, "image_weight"),
        ({"image_weight": 0.0, "answer_weight": 0.0}, "not both 0"),
        ({"micro_batch_size": -1}, "micro_batch_size"),
        ({"relaxation": Relaxation(mask_draws=2)}, "mask_draws"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        run(self_improvement("vila_u", **settings))


def test_drawing_in_parts_draws_as_many(monkeypatch):
    stage = self_improvement("vila_u", rollout_batch_size=2, group_size=GROUP, behaviour=SHORT)
    drawings, answers, *_ = improved(stage, monkeypatch)
    assert drawings.row_count == answers.row_count == PROMPTS * GROUP


def test_data_without_questions_is_refused():
    from tests.stages.training import run_on
    from unified_rl.core.errors import DataError
    from unified_rl.data.microworld import DrawingSource
    from unified_rl.data.mixture import SampleDataModule

    data = SampleDataModule({"d": DrawingSource("train", gold=False)}, {"d": 1}, 2, seed=0)
    with pytest.raises(DataError, match="data=self_questions"):
        run_on(self_improvement("vila_u", reward=Brightness()), data)
