"""Pair-DPO through Lightning: masks, reference, and the gradient of the written-out formula."""

import copy
import itertools
import math

import pytest
import torch

from tests.stages.training import (
    Gradients,
    Preferences,
    gradients,
    grpo,
    pair_dpo,
    pair_grpo,
    run,
    run_on,
    weights,
)
from unified_rl.core.errors import ConfigError
from unified_rl.core.preference import Preference
from unified_rl.data.microworld import DrawingSource
from unified_rl.data.mixture import MixtureStream, SampleDataModule

BATCH = 4
BETA, OTHER = 0.2, 0.5


def batch(family, count=BATCH):
    """Some of each half; what `run` draws first."""
    stream = MixtureStream({"preference": Preferences(family)}, {"preference": 1}, seed=1)
    return list(itertools.islice(stream, count))


def halves(items):
    drawings = [item.drawings for item in items if item.drawings]
    return drawings, [item.answers for item in items if item.answers]


def made(family, **settings):
    """A stage that has its policy, but no trainer yet."""
    stage = pair_dpo(family, **settings)
    stage.configure_model()
    return stage


def first_metrics(stage):
    return run(stage, batches=1, batch_size=BATCH).callback_metrics


def test_the_batch_has_both_halves_and_one_that_is_missing():
    drawings, answers = halves(batch("janus"))
    assert 0 < len(drawings) < BATCH or 0 < len(answers) < BATCH
    assert len(drawings) > 1 and len(answers) > 1


def test_a_pair_has_one_mask_and_pairs_have_their_own():
    stage = made("showo")
    drawings, _ = halves(batch("showo", 8))
    rows = stage.encode(drawings)
    reveal, actions = rows.tape["reveal"], rows.action_mask
    assert rows.row_count == 2 * len(drawings)
    wins, losses = reveal.chunk(2)
    assert torch.equal(wins, losses)
    assert torch.equal(*actions.chunk(2))
    assert len(wins.unique(dim=0)) > 1  # not one mask for all
    assert not torch.equal(*rows.tape["ids"].chunk(2))  # the codes differ
    stage.iteration += 1
    assert not torch.equal(reveal, stage.encode(drawings).tape["reveal"])


def test_a_pair_of_answers_asks_the_same(family):
    _, answers = halves(batch(family))
    rows = made(family).encode(answers)
    shown, asked = rows.tape["shown"].chunk(2), (rows.segment < 0).chunk(2)
    assert torch.equal(*shown)
    for win, lose in zip(*asked, strict=True):  # columns of the prompt, padding aside
        assert int(win.cumprod(0).sum()) == int(lose.cumprod(0).sum())


def test_it_starts_at_log_2(family):
    metrics = first_metrics(pair_dpo(family, understanding_weight=OTHER))
    log2 = float(torch.tensor(2.0).log())
    for half in ("generation", "understanding"):
        assert float(metrics[f"{half}_loss"]) == log2
        assert metrics[f"{half}_margin"] == metrics[f"{half}_accuracy"] == 0
    assert float(metrics["loss"]) == pytest.approx(1.5 * math.log(2), rel=1e-6)


def test_preferences_are_learnt(family):
    few = SampleDataModule({"few": Preferences(family, count=6)}, {"few": 1}, batch_size=8, seed=1)
    metrics = run_on(pair_dpo(family), few, batches=30).callback_metrics
    for half in ("generation", "understanding"):
        assert metrics[f"{half}_loss"] < math.log(2) - 0.05
        assert metrics[f"{half}_accuracy"] > 0.7


def test_the_reference_never_moves(family):
    stage = made(family)
    start, rows = weights(stage.policy), stage.encode(halves(batch(family))[0])
    before = stage.start_logprobs(rows)
    assert torch.equal(before, stage.policy.logprobs(rows))
    run(stage, batches=3)
    assert torch.equal(before, stage.start_logprobs(rows))
    assert not torch.equal(before, stage.policy.logprobs(rows))
    reference = weights(stage.start())
    assert all(torch.equal(start[name], reference[name]) for name in start)
    assert not any(p.requires_grad for p in stage.start().parameters())
    assert not any("reference" in name for name in stage.state_dict())


def moved(policy):
    """Away from where it started, so that margins are not 0."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
    return policy


def by_formula(stage, reference):
    """The gradient, each completion scored by itself, the sigmoid written out, in float64."""
    policy = stage.policy
    total = dict.fromkeys(weights(policy), 0.0)
    for pairs, weight in zip(halves(batch(stage.family)), (1.0, OTHER), strict=True):
        rows = stage.encode(pairs)
        for index in range(len(pairs)):
            margin, pull = 0.0, {}
            for place, sign in ((index, 1), (len(pairs) + index, -1)):
                one = rows.select(slice(place, place + 1))
                policy.zero_grad()
                logprob = policy.logprobs(one)[one.action_mask].double().sum()
                logprob.backward()
                with torch.no_grad():
                    known = reference.logprobs(one)[one.action_mask].double().sum()
                margin += sign * BETA * (float(logprob.detach()) - float(known))
                for name, parameter in policy.named_parameters():
                    if parameter.grad is not None:
                        pull[name] = pull.get(name, 0.0) + sign * parameter.grad.clone()
            factor = -weight / len(pairs) * BETA / (1 + math.exp(margin))
            for name, gradient in pull.items():
                total[name] = total[name] + factor * gradient
    policy.zero_grad()
    return total


def test_the_gradient_is_that_of_the_formula(family):
    stage = made(family, understanding_weight=OTHER, change=lambda policy: policy.double())
    reference = copy.deepcopy(stage.policy)
    moved(stage.policy)
    want = by_formula(stage, reference)
    kept = Gradients()
    metrics = run(stage, batches=1, batch_size=BATCH, callbacks=[kept]).callback_metrics
    assert abs(metrics["generation_margin"]) > 1e-3
    found = {name.removeprefix("policy."): value for name, value in kept.steps[0].items()}
    assert max(value.abs().max() for value in found.values()) > 1e-2
    for name, value in found.items():  # log-probs are float32 whatever the weights are
        torch.testing.assert_close(
            value, torch.as_tensor(want[name]).expand_as(value), rtol=1e-4, atol=2e-6
        )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_change_nothing(family, size):
    whole = run_pairs(family, 0)
    parts = run_pairs(family, size)
    for name, value in whole[0].items():
        torch.testing.assert_close(parts[0][name], value, rtol=1e-4, atol=2e-6)
    for name, value in whole[1].items():
        assert float(parts[1][name]) == pytest.approx(float(value), rel=1e-4, abs=1e-6)


def run_pairs(family, size):
    """Gradients and metrics of eight preferences, after the policy has moved."""
    stage = made(family, micro_batch_size=size, change=lambda policy: policy.double())
    moved(stage.policy)
    kept = Gradients()
    metrics = run(stage, 1, 8, [kept]).callback_metrics
    return kept.steps[0], metrics


@pytest.mark.parametrize("half", ["generation", "understanding"])
def test_a_weight_of_0_leaves_a_half_out(half):
    metrics = first_metrics(pair_dpo("vila_u", **{f"{half}_weight": 0.0}))
    assert f"{half}_loss" not in metrics
    assert float(metrics["loss"]) == pytest.approx(math.log(2), rel=1e-6)


def test_only_the_half_that_is_weighed_pulls():
    drawn = gradients(pair_dpo("janus", understanding_weight=0.0))
    heads = {name for name, value in drawn.items() if "lm_head" in name and bool(value.any())}
    assert not heads  # words are not drawn


def test_a_resumed_run_keeps_the_reference_of_its_start(tmp_path):
    stage = pair_dpo("vila_u")
    run(stage, batches=1).save_checkpoint(tmp_path / "one.ckpt")
    resumed = made("vila_u")
    start = weights(resumed.policy)
    resumed.on_load_checkpoint(torch.load(tmp_path / "one.ckpt", weights_only=False))
    resumed.load_state_dict(stage.state_dict())
    reference = weights(resumed.start())
    assert all(torch.equal(start[name], reference[name]) for name in start)
    assert not all(torch.equal(start[n], p) for n, p in weights(resumed.policy).items())


def test_data_of_another_kind_is_refused():
    preferences = SampleDataModule({"p": Preferences("vila_u")}, {"p": 1}, 2, seed=0)
    with pytest.raises(ConfigError, match="learns from single samples"):
        run_on(grpo("vila_u"), preferences)
    with pytest.raises(ConfigError, match="learns from pairs"):
        run_on(pair_grpo("vila_u"), preferences)
    drawings = SampleDataModule({"d": DrawingSource("train")}, {"d": 1}, 2, seed=0)
    with pytest.raises(ConfigError, match=r"learns from preferences.* unified_rl.prefer"):
        run_on(pair_dpo("vila_u"), drawings)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.0},
        {"beta": math.inf},
        {"generation_weight": -1.0},
        {"generation_weight": 0.0, "understanding_weight": 0.0},
        {"micro_batch_size": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"stage.{min(settings)}="):
        pair_dpo("vila_u", **settings)


def test_a_preference_compares_like_with_like():
    items = batch("vila_u", 8)
    (drawing, other, *_), (answer, *_) = halves(items)
    for says, *parts in (
        ("neither two drawings nor two answers", None, None, None, None),
        ("nothing that it is compared with", drawing[0], None, *answer),
        ("needs one of task text_to_image", *answer, *drawing),
        ("answer different prompts", drawing[0], other[0], None, None),
    ):
        with pytest.raises(ValueError, match=says):
            Preference(*parts)
    assert len({item.id for item in items}) == len(items)
