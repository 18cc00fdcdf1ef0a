"""The whole loss against loops written from the equations, and the traps it must not fall into."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from tests.objectives.reference import invent, loop_loss
from unified_rl.objectives.advantages import group_advantages
from unified_rl.objectives.aggregation import Aggregation
from unified_rl.objectives.grpo import GrpoObjective, GrpoTerms

AGGREGATIONS = {
    "sequence": Aggregation(),
    "sequence_weighted": Aggregation(text_weight=0.4, image_weight=1.7, count="codes"),
    "token": Aggregation("token", count="codes"),
    "token_weighted": Aggregation("token", text_weight=0.4, image_weight=1.7),
    "constant": Aggregation("constant", image_weight=0.5, constant_length=9),
}
UNITS = ("position", "code")


def loss_of(
    objective: GrpoObjective,
    batch: dict[str, Tensor],
    token_level: bool = False,
    micro_batch_size: int | None = None,
) -> tuple[Tensor, Tensor, list[GrpoTerms]]:
    """Loss and gradient w.r.t. log-probs, accumulated over micro-batches."""
    logprobs = batch["logprobs"].clone().requires_grad_()
    weights = objective.weights(batch["action_mask"], batch["modality"])
    advantages = batch["token_advantages" if token_level else "advantages"]
    terms = []
    for start in range(0, len(logprobs), micro_batch_size or len(logprobs)):
        rows = slice(start, start + (micro_batch_size or len(logprobs)))
        reference = batch["reference_logprobs"][rows] if objective.beta else None
        part = objective.loss(
            logprobs[rows],
            batch["behaviour_logprobs"][rows],
            reference,
            advantages[rows],
            weights[rows],
            batch["action_mask"][rows],
        )
        part.loss.backward()
        terms.append(part)
    return sum(part.loss.detach() for part in terms), logprobs.grad, terms


@pytest.mark.parametrize(
    ("aggregation", "unit", "divergence"),
    [*product(AGGREGATIONS, UNITS, [None, "k2", "k3", "k3_ratio"])],
)
def test_loss_and_gradient_equal_the_equations(aggregation, unit, divergence):
    objective = GrpoObjective(
        clip_low=0.1,
        clip_high=0.25,
        beta=0.3 if divergence else 0.0,
        divergence=divergence or "k3",
        ratio_unit=unit,
        aggregation=AGGREGATIONS[aggregation],
    )
    for seed, token_level in ((0, False), (1, True)):
        batch = invent(seed)
        loss, gradient, (terms,) = loss_of(objective, batch, token_level)
        assert 0 < terms.clip_fraction < 1  # both branches of the minimum are taken

        double = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
        double["logprobs"].requires_grad_()
        want = loop_loss(objective, double, token_level)
        (want_gradient,) = torch.autograd.grad(want, double["logprobs"])
        assert abs(loss - want) < 1e-6
        assert (gradient - want_gradient).abs().max() < 1e-6
        assert want_gradient.abs().max() > 1e-3


@pytest.mark.parametrize(("aggregation", "unit"), [*product(AGGREGATIONS, UNITS)])
def test_accumulation_changes_nothing(aggregation, unit):
    objective = GrpoObjective(beta=0.1, ratio_unit=unit, aggregation=AGGREGATIONS[aggregation])
    batch = invent(2, rows=8)
    loss, gradient, _ = loss_of(objective, batch, micro_batch_size=8)
    for micro_batch_size in (1, 2, 4):  # 8 x 1, 4 x 2, 2 x 4
        other_loss, other_gradient, _ = loss_of(objective, batch, False, micro_batch_size)
        torch.testing.assert_close(other_loss, loss, rtol=1e-6, atol=1e-7)
        assert torch.equal(other_gradient, gradient)


@pytest.mark.parametrize(("aggregation", "unit"), [*product(AGGREGATIONS, UNITS)])
def test_constant_rewards_give_exactly_no_policy_gradient(aggregation, unit):
    batch = invent(3) | {"advantages": group_advantages(torch.full((6,), 0.1), 3)}
    objective = GrpoObjective(beta=0.0, ratio_unit=unit, aggregation=AGGREGATIONS[aggregation])
    loss, gradient, _ = loss_of(objective, batch)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize(("unit", "junk"), [*product(UNITS, [5.0, math.nan, -math.inf, math.inf])])
def test_forced_tokens_get_exactly_no_gradient(unit, junk):
    batch = invent(4)
    objective = GrpoObjective(beta=0.1, divergence="k3_ratio", ratio_unit=unit)
    clean_loss, clean_gradient, _ = loss_of(objective, batch)
    forced = ~batch["action_mask"]
    for name in ("logprobs", "behaviour_logprobs", "reference_logprobs"):
        batch[name] = batch[name].masked_fill(forced, junk)
    loss, gradient, (terms,) = loss_of(objective, batch)
    assert torch.equal(gradient[forced], torch.zeros(int(forced.sum())))
    assert torch.equal(gradient, clean_gradient)
    assert loss == clean_loss
    assert all(term.isfinite() for term in terms)


@pytest.mark.parametrize("unit", UNITS)
def test_first_update_is_reinforce(unit):
    """old == new: the ratio is exactly 1, nothing clips, the gradient is -weight x advantage."""
    batch = invent(5)
    batch["behaviour_logprobs"] = batch["logprobs"]
    objective = GrpoObjective(clip_low=0.01, clip_high=0.01, beta=0.0, ratio_unit=unit)
    _, gradient, (terms,) = loss_of(objective, batch)
    assert terms.ratio_mean == 1
    assert terms.clip_fraction == 0
    weights = objective.weights(batch["action_mask"], batch["modality"])
    want = -weights * batch["advantages"][:, None, None] * batch["action_mask"]
    torch.testing.assert_close(gradient, want, rtol=0, atol=0)


def test_terms_by_hand():
    # one row, two text actions of ratios 2 and 1, A = 1, clip 0.5: minima 1.5 and 1, mean 1.25.
    # ref = old: d = log 1/2 and 0; k3 = 1/2 + log 2 - 1 and 0, k2 = (log 2)^2 / 2 and 0.
    logprobs = torch.tensor([[[math.log(2.0)], [0.0]]], requires_grad=True)
    old, mask = torch.zeros(1, 2, 1), torch.ones(1, 2, 1).bool()
    objective = GrpoObjective(clip_low=0.5, clip_high=0.5, beta=0.1, divergence="k2")
    weights = objective.weights(mask, torch.zeros(1, 2).long())
    terms = objective.loss(logprobs, old, old, torch.ones(1), weights, mask)
    want = [
        -1.25 + 0.1 * math.log(2) ** 2 / 4,
        -1.25,
        (math.log(2) - 0.5) / 2,  # logged as k3 though trained as k2
        0.5,
        1.5,
    ]
    torch.testing.assert_close(torch.stack(terms), torch.tensor(want))
    assert [term.requires_grad for term in terms] == [True, False, False, False, False]


def test_two_positions_of_two_codes_by_hand():
    # ratios (1.5, 2) and (0.5, 1), A = 1, clip 0.2. Position: 3 -> 1.2 and 0.5, mean 0.85.
    # Code: 1.2, 1.2, 0.5, 1, mean 0.975.
    logprobs = torch.tensor([[[1.5, 2.0], [0.5, 1.0]]]).log()
    old, mask, modality = torch.zeros(1, 2, 2), torch.ones(1, 2, 2).bool(), torch.ones(1, 2).long()
    for unit, want in (("position", 0.85), ("code", 0.975)):
        objective = GrpoObjective(beta=0.0, ratio_unit=unit)
        weights = objective.weights(mask, modality)
        terms = objective.loss(logprobs, old, None, torch.ones(1), weights, mask)
        torch.testing.assert_close(terms.loss, torch.tensor(-want))
        assert terms.kl == 0


def test_kl_is_logged_without_being_trained_on():
    batch = invent(6)
    objective = GrpoObjective(beta=0.0)
    weights = objective.weights(batch["action_mask"], batch["modality"])
    names = "logprobs", "behaviour_logprobs", "reference_logprobs", "advantages"
    terms = objective.loss(*(batch[name] for name in names), weights, batch["action_mask"])
    assert terms.kl > 0
    assert terms.loss == terms.policy_loss


def test_no_action_at_all_is_a_loss_of_zero_with_a_gradient():
    batch = invent(7)
    batch["action_mask"] = torch.zeros_like(batch["action_mask"])
    loss, gradient, (terms,) = loss_of(GrpoObjective(), batch)
    assert loss == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert all(term.isfinite() for term in terms)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_low", 1.5),
        ("clip_low", -0.1),
        ("clip_high", -0.1),
        ("clip_high", math.nan),
        ("beta", -1.0),
        ("beta", math.inf),
        ("divergence", "k1"),
        ("ratio_unit", "sequence"),
    ],
)
def test_settings_that_cannot_hold(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        GrpoObjective(**{field: value})


def test_calls_that_cannot_hold():
    batch, objective = invent(8), GrpoObjective()
    logprobs, mask = batch["logprobs"], batch["action_mask"]
    weights = objective.weights(mask, batch["modality"])
    with pytest.raises(ValueError, match=r"beta=0\.04 needs reference_logprobs"):
        objective.loss(logprobs, logprobs, None, batch["advantages"], weights, mask)
    with pytest.raises(ValueError, match=r"ratio_unit='code' needs \(6, 7, 3\)"):
        replace(objective, ratio_unit="code").loss(
            logprobs, logprobs, logprobs, batch["advantages"], weights, mask
        )
    with pytest.raises(ValueError, match=r"advantages have shape \(6, 7, 3\)"):
        objective.loss(logprobs, logprobs, logprobs, logprobs, weights, mask)
