"""The objective of self-improvement, by hand."""

import math

import pytest
import torch

from unified_rl.objectives.weighted_likelihood import WeightedLikelihood


def test_weights_are_a_softmax_of_centred_rewards_within_each_group():
    # group 1: r = 1, 0 -> mean .5 -> (+-.5) / .5 = +-1 -> e / (e + 1/e) = .8808
    # group 2: equal rewards -> halves
    weights = WeightedLikelihood(sharpness=0.5).weights(torch.tensor([1.0, 0.0, 0.3, 0.3]), 2)
    better = math.e / (math.e + 1 / math.e)
    assert weights.tolist() == pytest.approx([better, 1 - better, 0.5, 0.5])


def test_gold_answers_weigh_all_alike():
    weights = WeightedLikelihood("gold", beta=0).weights(torch.tensor([1.0, 0.0, 0.0]), 3)
    assert weights.tolist() == pytest.approx([1 / 3] * 3)


def test_centred_weights_lack_what_all_share():
    # as above, less a half each; equal rewards weigh exactly 0
    objective = WeightedLikelihood(sharpness=0.5, centred=True)
    weights = objective.weights(torch.tensor([1.0, 0.0, 0.3, 0.3]), 2)
    better = math.e / (math.e + 1 / math.e)
    assert weights.tolist()[:2] == pytest.approx([better - 0.5, 0.5 - better])
    assert weights.tolist()[2:] == [0.0, 0.0]


def test_loss_by_hand():
    # rows of 2 and 1 actions; weights .75 and .25
    # nll = -(.75 * (-1 - 2) + .25 * -4) = 3.25; what is masked out counts nothing
    logprobs = torch.tensor([[[-1.0], [-2.0]], [[-4.0], [-9.0]]], requires_grad=True)
    mask = torch.tensor([[[True], [True]], [[True], [False]]])
    weights = torch.tensor([0.75, 0.25])
    terms = WeightedLikelihood(beta=0).loss(logprobs, None, weights, mask, 2)
    assert terms.loss.item() == pytest.approx(3.25)
    terms.loss.backward()
    assert logprobs.grad.flatten().tolist() == [-0.75, -0.75, -0.25, 0.0]
    # the mean over a row's actions: -(.75 * -1.5 + .25 * -4) = 2.125
    mean = WeightedLikelihood(beta=0, normalisation="mean")
    assert mean.loss(logprobs, None, weights, mask, 2).loss.item() == pytest.approx(2.125)


def test_the_kl_is_averaged_over_rows():
    # d = ref - own = ln 2 for one action of row 1, 0 elsewhere: k3 = 2 - ln 2 - 1 = .3069
    # loss = nll + beta * k3 / 2 rows; the ratio in front is 1 in value
    logprobs = torch.tensor([[[-1.0]], [[-1.0]]], requires_grad=True)
    reference = torch.tensor([[[-1.0 + math.log(2)]], [[-1.0]]])
    mask = torch.ones(2, 1, 1, dtype=torch.bool)
    objective = WeightedLikelihood(beta=0.1)
    terms = objective.loss(logprobs, reference, torch.tensor([0.5, 0.5]), mask, 2)
    k3 = 1 - math.log(2)
    assert terms.kl.item() == pytest.approx(k3 / 2)
    assert terms.nll.item() == pytest.approx(1.0)
    assert terms.loss.item() == pytest.approx(1.0 + 0.1 * k3 / 2)


def test_micro_batches_add_up():
    generator = torch.Generator().manual_seed(0)
    own = -torch.rand(8, 5, 2, generator=generator)
    reference = -torch.rand(8, 5, 2, generator=generator)
    mask = torch.rand(8, 5, 2, generator=generator) < 0.7
    objective = WeightedLikelihood()
    weights = objective.weights(torch.rand(8, generator=generator), 4) / 2
    whole = objective.loss(own, reference, weights, mask, 8)
    parts = [
        objective.loss(own[s], reference[s], weights[s], mask[s], 8)
        for s in (slice(0, 3), slice(3, 8))
    ]
    for name in whole._fields:
        total = sum(float(getattr(part, name)) for part in parts)
        assert total == pytest.approx(float(getattr(whole, name)), rel=1e-5)


def test_constant_rewards_leave_no_preference():
    # on-policy sum of p * grad log p over all answers is 0: equal weights pull nowhere on average
    logits = torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64, requires_grad=True)
    log_probs = logits.log_softmax(0)
    (log_probs.exp().detach() * log_probs).sum().backward()
    assert logits.grad.abs().max() < 1e-15
    weights = WeightedLikelihood().weights(torch.full((4,), 0.8), 4)
    assert weights.tolist() == [0.25] * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"answers": "best"},
        {"sharpness": 0.0},
        {"beta": -1.0},
        {"divergence": "k4"},
        {"normalisation": "median"},
        {"answers": "gold", "beta": 0.1},
        {"answers": "gold", "beta": 0.0, "centred": True},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        WeightedLikelihood(**wrong)


def test_a_missing_reference_is_named():
    ones = torch.ones(1, 1, 1)
    with pytest.raises(ValueError, match="reference_logprobs"):
        WeightedLikelihood().loss(ones, None, torch.ones(1), ones.bool(), 1)
