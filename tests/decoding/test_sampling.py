"""From logits to distributions: hand examples of guidance, temperature and truncation."""

import math

import pytest
import torch

from unified_rl.core.behaviour import Sampling
from unified_rl.decoding.sampling import draw, guide, log_distribution

HALVES = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
"""Logits whose probabilities are 1/2, 1/4, 1/8, 1/8."""


def probabilities(sampling, **masks):
    return log_distribution(HALVES, sampling, **masks).exp().tolist()


# -- guidance --------------------------------------------------------------------------------------


def test_guidance_by_hand():
    # u + 3 (c - u) = [0 + 3 * 1, 2 + 3 * -1] = [3, -1]
    conditional, unconditional = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0])
    assert guide(conditional, unconditional, 3.0).tolist() == [3.0, -1.0]


@pytest.mark.parametrize("w", [0.0, 0.5, 2.0])
def test_the_other_convention_is_a_scale_of_one_more(w):
    conditional, unconditional = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    other = (1 + w) * conditional - w * unconditional
    torch.testing.assert_close(guide(conditional, unconditional, w + 1), other)


@pytest.mark.parametrize(("scale", "which"), [(1.0, 0), (0.0, 1)])
def test_scale_one_is_conditional_and_zero_unconditional(scale, which):
    pair = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    assert torch.equal(guide(*pair, scale), pair[which])


def test_dividing_guided_logits_by_the_scale_is_a_temperature():
    # c - (w - 1) / w u is the guided logit divided by w: another distribution, a temperature of w.
    conditional, unconditional, w = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0]), 4.0
    guided = guide(conditional, unconditional, w)
    divided = conditional - (w - 1) / w * unconditional
    torch.testing.assert_close(
        log_distribution(divided, Sampling()), log_distribution(guided, Sampling(w))
    )


# -- temperature and truncation --------------------------------------------------------------------


def test_plain_is_softmax():
    assert probabilities(Sampling()) == pytest.approx([0.5, 0.25, 0.125, 0.125])


def test_half_the_temperature_squares_probabilities():
    # squares 16, 4, 1, 1 of 64; their sum is 22
    assert probabilities(Sampling(0.5)) == pytest.approx([16 / 22, 4 / 22, 1 / 22, 1 / 22])


def test_top_k_renormalises():
    # 1/2 and 1/4 stay: 2/3 and 1/3
    assert probabilities(Sampling(top_k=2)) == pytest.approx([2 / 3, 1 / 3, 0, 0])


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    # 1/2 + 1/4 = 0.75 reaches 0.7, 1/2 alone does not
    assert probabilities(Sampling(top_p=0.7)) == pytest.approx([2 / 3, 1 / 3, 0, 0])


def test_top_p_keeps_the_most_likely_token_at_least():
    assert probabilities(Sampling(top_p=0.1)) == [1, 0, 0, 0]


def test_top_p_looks_at_what_top_k_left():
    # Of 2/3 and 1/3 the first reaches 0.6; of 1/2, 1/4, ... it would not.
    assert probabilities(Sampling(top_k=2, top_p=0.6)) == [1, 0, 0, 0]


def test_temperature_comes_before_top_p():
    # At temperature 1/2 the first has 16/22 = 0.73 and reaches 0.7 alone.
    assert probabilities(Sampling(0.5, top_p=0.7)) == [1, 0, 0, 0]


def test_temperature_zero_is_greedy():
    assert probabilities(Sampling(0.0)) == [1, 0, 0, 0]


def test_allowed_tokens_share_everything():
    allowed = torch.tensor([False, True, True, True])
    assert probabilities(Sampling(), allowed=allowed) == pytest.approx([0, 0.5, 0.25, 0.25])


def test_greedy_chooses_among_the_allowed():
    allowed = torch.tensor([False, True, True, True])
    assert probabilities(Sampling(0.0), allowed=allowed) == [0, 1, 0, 0]


def test_a_recorded_support_replaces_truncation():
    # top_k=2 would keep the first two; the recorded set holds the first and the third: 4/5, 1/5
    support = torch.tensor([True, False, True, False])
    found = probabilities(Sampling(top_k=2), support=support)
    assert found == pytest.approx([4 / 5, 0, 1 / 5, 0])


def test_truncated_tokens_get_no_gradient():
    logits = HALVES.clone().requires_grad_()
    log_distribution(logits, Sampling(top_k=2))[0].backward()
    # d log p0 / d logit = onehot - p = [1 - 2/3, -1/3, 0, 0]
    assert logits.grad.tolist() == pytest.approx([1 / 3, -1 / 3, 0, 0])


def test_result_is_float32():
    assert log_distribution(HALVES.bfloat16(), Sampling()).dtype == torch.float32


# -- drawing ---------------------------------------------------------------------------------------


def test_draw_returns_the_log_prob_of_what_it_drew():
    log_probs = torch.tensor([[0.5, 0.5], [0.1, 0.9]]).log()
    ids, chosen = draw(log_probs, torch.Generator().manual_seed(0))
    assert chosen.tolist() == [log_probs[row, token] for row, token in enumerate(ids)]


def test_draw_is_torch_multinomial_to_the_token():
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(1))
    log_probs = log_distribution(logits, Sampling(top_k=40))
    for seed in range(20):
        one, other = (torch.Generator().manual_seed(seed) for _ in range(2))
        ids, _ = draw(log_probs, one)
        theirs = torch.multinomial(log_probs.exp(), 1, generator=other)
        assert torch.equal(ids, theirs[:, 0])


def test_what_is_no_distribution_is_drawn_with_a_log_prob_that_is_no_number():
    log_probs = log_distribution(torch.tensor([[0.0, math.nan], [0.0, 1.0]]), Sampling())
    chosen = draw(log_probs, torch.Generator().manual_seed(0))[1]
    assert chosen.isnan().tolist() == [True, False]


@pytest.mark.parametrize("sampling", [Sampling(top_k=2), Sampling(top_p=0.5), Sampling(0.0)])
def test_truncation_hides_nothing_that_is_no_number(sampling):
    logits = torch.tensor([[0.0, math.nan, 1.0, 2.0], [0.0, math.inf, 1.0, 2.0]])
    chosen = draw(log_distribution(logits, sampling), torch.Generator().manual_seed(0))[1]
    assert chosen.isnan().all()


def test_draw_follows_the_distribution():
    count = 4000
    log_probs = HALVES.expand(count, -1)
    ids, _ = draw(log_probs, torch.Generator().manual_seed(0))
    frequency = float((ids == 0).float().mean())
    assert abs(frequency - 0.5) <= 4 * math.sqrt(0.25 / count)  # four standard deviations
