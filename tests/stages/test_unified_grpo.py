"""GRPO through Lightning: ratios, advantages, the reference, dropout."""

import threading
from dataclasses import replace

import lightning
import peft
import pytest
import torch

from tests.stages.training import (
    SHORT,
    Brightness,
    Constant,
    Gradients,
    gradients,
    grpo,
    run,
    run_on,
)
from tests.toys import build
from tests.toys.samples import drawings, mixed
from unified_rl.core.behaviour import Sampling
from unified_rl.core.errors import ConfigError
from unified_rl.data.mixture import SampleDataModule
from unified_rl.data.reasoning import ReasonedSource

GUIDED = replace(SHORT, guidance_scale=3.0, image=Sampling(0.9, top_k=5))


def with_lora(policy):
    """LoRA with dropout on the language model, its weights far from zero."""
    config = peft.LoraConfig(
        r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    peft.inject_adapter_in_model(config, policy.janus.model.language_model)
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("lora" in name)
    return policy


# -- D9: the ratio ---------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [SHORT, GUIDED], ids=["plain", "guided"])
@pytest.mark.parametrize("updates", [1, 3])
def test_the_first_ratio_is_exactly_one(family, updates, behaviour):
    stage = grpo(family, behaviour=behaviour, updates_per_rollout=updates, micro_batch_size=3)
    run(stage, batches=1)
    parts = -(-4 * 2 // 3)  # 4 prompts x 2 completions in parts of 3: 3 parts
    first, later = stage.objective.gaps[:parts], stage.objective.gaps[parts:]
    assert len(later) == parts * (updates - 1)
    assert first == [0.0] * parts
    assert all(float(terms.ratio_mean) == 1.0 for terms in stage.objective.terms[:parts])
    assert all(gap > 0 for gap in later)


def test_each_minibatch_is_a_step(family):
    kept = Gradients()
    run(grpo(family, minibatch_count=2), batches=1, callbacks=[kept])
    assert len(kept.steps) == 2


def test_the_first_update_is_the_same_however_many_follow(family):
    one, three = gradients(grpo(family)), gradients(grpo(family, updates_per_rollout=3))
    assert all(torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize("updates", [1, 3])
def test_replay_error_is_of_the_sampled_weights(family, updates):
    metrics = run(grpo(family, updates_per_rollout=updates), batches=1).callback_metrics
    assert metrics["replay_error"] <= 1e-5


# -- D13: groups that teach nothing ----------------------------------------------------------------


@pytest.mark.parametrize("level", ["outcome", "process", "both"])
def test_a_constant_reward_has_no_gradient_at_all(family, level):
    found = gradients(grpo(family, reward=Constant(), level=level))
    assert found
    assert not any(gradient.any() for gradient in found.values())


def test_a_telling_reward_has_one(family):
    assert any(gradient.any() for gradient in gradients(grpo(family)).values())


def test_levels_differ(family):
    outcome, process = (
        gradients(grpo(family, level=level, group_size=8)) for level in ("outcome", "process")
    )
    assert max((outcome[name] - process[name]).abs().max() for name in outcome) > 1e-4


def test_the_completions_that_differ_most_are_learnt_from(family, monkeypatch):
    stage, seen = grpo(family, group_size=6, trained_per_group=2), []
    improve, reward = stage.improve, stage.reward

    def keep(trajectory, advantages):
        seen.append((trajectory, advantages))
        return improve(trajectory, advantages)

    monkeypatch.setattr(stage, "improve", keep)
    metrics = run(stage, batches=1).callback_metrics
    ((trajectory, advantages),) = seen
    rollout, scores = stage.latest
    assert trajectory.row_count == 4 * 2 and len(rollout.samples) == 4 * 6
    assert metrics["reward"] == pytest.approx(float(reward(rollout).outcome.mean()))
    for group in range(4):
        rewards = scores.outcome[group * 6 : group * 6 + 6]
        # two that differ stand at +-(x - y) / 2 from their mean, a std (n - 1) of |x - y| / 2 ** .5
        expected = [-(0.5**0.5), 0.5**0.5] if rewards.max() > rewards.min() else [0.0, 0.0]
        found = sorted(
            float(row.sum() / (row != 0).sum().clamp_min(1))
            for row in (advantages[2 * group : 2 * group + 2])
        )
        assert found == pytest.approx(expected, abs=1e-5)


# -- D18: dropout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [1, 2])
def test_lora_dropout_is_off(updates):
    stage = grpo("janus", beta=0.04, updates_per_rollout=updates, change=with_lora)
    metrics = run(stage, batches=1).callback_metrics
    assert metrics["replay_error"] <= 1e-5
    assert stage.objective.gaps[0] == 0.0


def test_lora_dropout_would_show():
    policy = with_lora(build("janus"))
    trajectory, _ = policy.sample(drawings(2), SHORT, torch.Generator().manual_seed(0))
    with torch.no_grad():
        gap = (policy.train().logprobs(trajectory) - trajectory.logprobs).abs().max()
    assert gap > 1e-2


def test_only_the_adapter_gets_a_gradient():
    found = gradients(grpo("janus", change=with_lora))
    assert found
    assert all("lora" in name for name in found)


# -- D19: the reference ----------------------------------------------------------------------------


class Scores(lightning.Callback):
    """Log-probs of one trajectory under policy and reference, before and after training."""

    def __init__(self, family: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.trajectory, _ = build(family).sample(mixed(), SHORT, generator)
        self.policy: list[torch.Tensor] = []
        self.reference: list[torch.Tensor] = []

    def on_train_start(self, trainer, stage):
        with torch.no_grad():
            self.policy.append(stage.policy.eval().logprobs(self.trajectory))
        self.reference.append(stage.reference_logprobs(self.trajectory))

    on_train_end = on_train_start


def test_the_reference_stays_where_training_began(family):
    scores = Scores(family)
    run(grpo(family, beta=0.04), batches=3, callbacks=[scores])
    assert torch.equal(scores.reference[0], scores.policy[0])
    assert torch.equal(scores.reference[0], scores.reference[1])
    assert (scores.policy[1] - scores.policy[0]).abs().max() > 1e-3


def test_the_reference_is_no_part_of_the_stage(family):
    stage = grpo(family, beta=0.04)
    run(stage, batches=1)
    assert len(stage._start) == 1
    assert len(list(stage.parameters())) == len(list(build(family).parameters()))


def test_no_reference_without_kl(family):
    stage = grpo(family)
    run(stage, batches=1)
    assert stage._start == ()


def test_kl_is_zero_before_the_first_update(family):
    stage = grpo(family, beta=0.04)
    run(stage, batches=2)
    assert float(stage.objective.terms[0].kl) == 0.0
    assert float(stage.objective.terms[-1].kl) > 0.0


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"group_size": 1}, "group_size=1"),
        ({"trained_per_group": 1}, "trained_per_group=1"),
        ({"trained_per_group": 3}, "group_size=2"),
        ({"level": "token"}, "token"),
        ({"behaviour": replace(SHORT, image=Sampling(0.0))}, "temperature=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        grpo("vila_u", **settings)


# -- memory ----------------------------------------------------------------------------------------


def test_a_rollout_in_parts_has_every_completion(family):
    stage = grpo(family, rollout_batch_size=3, group_size=2)
    metrics = run(stage, batches=1).callback_metrics
    rollout, _ = stage.latest
    assert len(rollout.completions) == rollout.trajectory.row_count == 4 * 2
    assert metrics["replay_error"] <= 1e-5
    for sample, completion in zip(rollout.samples, rollout.completions, strict=True):
        assert bool(completion.images) == (sample.task.value == "text_to_image") or (
            sample.task.value == "interleaved"
        )


class Elsewhere(Brightness):
    """Waits for another machine; says when it has begun."""

    waits = True

    def __init__(self):
        self.begun, self.sizes = threading.Event(), []

    def __call__(self, rollout):
        self.sizes.append(len(rollout.samples))
        self.begun.set()
        return super().__call__(rollout)


def test_a_reward_that_waits_scores_while_the_next_part_is_drawn(family, monkeypatch):
    reward = Elsewhere()
    stage = grpo(family, reward=reward, rollout_batch_size=3)
    before = []  # whether the reward had begun, before each part

    def drawn(part, behaviour, generator):
        before.append(reward.begun.wait(20 if before else 0))
        return type(stage.policy).sample(stage.policy, part, behaviour, generator)

    monkeypatch.setattr(stage, "on_train_start", lambda: setattr(stage.policy, "sample", drawn))
    beside = run(stage, batches=1).callback_metrics
    assert before == [False, True, True]
    assert reward.sizes == [3, 3, 2]  # 4 prompts in groups of 2; nothing is scored twice
    alone = run(grpo(family, rollout_batch_size=3), batches=1).callback_metrics
    assert {k: v for k, v in beside.items() if not k.endswith("_s")} == {
        k: v for k, v in alone.items() if not k.endswith("_s")
    }


def test_pairs_are_refused_where_single_samples_are_needed(family):
    data = SampleDataModule({"pair": ReasonedSource("train")}, {"pair": 1}, 2, 0)
    with pytest.raises(ConfigError, match="UnifiedGRPO learns from single samples"):
        run_on(grpo(family), data)
