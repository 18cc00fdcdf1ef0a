"""Advantages of pairs by hand, and the whole joint objective against its written-out gradient."""

import math

import numpy as np
import pytest
import torch

from unified_rl.core.trajectory import Modality
from unified_rl.objectives.advantages import group_advantages
from unified_rl.objectives.grpo import GrpoObjective
from unified_rl.objectives.joint import HALVES, joint_advantages, joint_outcome, pair_rows
from unified_rl.objectives.selection import most_spread

ROOT = math.sqrt(2)
REWARDS = torch.tensor([1.0, 3.0, 5.0, 1.0, 0.0, 0.0, 2.0, 8.0])
"""Two pairs of two candidates: drawings 1 3, answers 5 1; drawings 0 0, answers 2 8."""


def test_rewards_of_candidates_by_hand():
    # 1 + 5, 3 + 1; 0 + 2, 0 + 8
    assert joint_outcome(REWARDS, 2).tolist() == [6, 4, 2, 8]


def test_joint_rewards_are_compared_by_hand():
    # 6 4: mean 5, sample std sqrt(1 + 1) -> +-1 / sqrt 2; 2 8: mean 5, std sqrt 18 = 3 sqrt 2
    # -> -+ 3 / (3 sqrt 2). Both rows of a candidate have its advantage.
    want = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0]) / ROOT
    torch.testing.assert_close(joint_advantages(REWARDS, 2, "reward"), want)


def test_centred_joint_rewards_by_hand():
    want = [1, -1, 1, -1, -3, 3, -3, 3]
    assert joint_advantages(REWARDS, 2, "reward", scale="none").tolist() == want


def test_advantages_are_added_by_hand():
    # Pair 1: drawings -1 +1, answers +1 -1, each over sqrt 2: -1 + .8 = -.2, +1 - .8 = .2.
    # Pair 2: drawings alike -> 0; answers -1 +1: -.8, .8.
    want = torch.tensor([-0.2, 0.2, -0.2, 0.2, -0.8, 0.8, -0.8, 0.8]) / ROOT
    got = joint_advantages(REWARDS, 2, "advantage", answer_weight=0.8)
    torch.testing.assert_close(got, want)


def test_halves_apart_by_hand():
    want = torch.tensor([-1.0, 1.0, 1.0, -1.0, 0.0, 0.0, -1.0, 1.0]) / ROOT
    torch.testing.assert_close(joint_advantages(REWARDS, 2, "none"), want)


def test_standardising_removes_a_weight_of_the_answers_but_not_from_a_joint_reward():
    lighter = REWARDS.view(2, 2, 2) * torch.tensor([1.0, 0.8])[:, None]
    lighter = lighter.flatten()
    for joint in ("advantage", "none"):
        got = joint_advantages(lighter, 2, joint)
        torch.testing.assert_close(got, joint_advantages(REWARDS, 2, joint))
    # 1 + .8 * 5 = 5, 3 + .8 = 3.8: the lead of the first is 1.2, centred .6 (1 without a weight)
    got = joint_advantages(lighter, 2, "reward", scale="none")
    torch.testing.assert_close(got[:2], torch.tensor([0.6, -0.6]))


def test_epsilon_and_divisor_reach_the_groups():
    # 6 4: mean 5, population std 1, plus 1/4 -> .8; 2 8: 3 / 3.25
    got = joint_advantages(REWARDS, 2, "reward", epsilon=0.25, unbiased=False)
    other = 3 / 3.25
    want = torch.tensor([0.8, -0.8, 0.8, -0.8, -other, other, -other, other])
    torch.testing.assert_close(got, want)


def test_halves_that_cancel_teach_nothing_together_and_something_apart():
    rewards = torch.tensor([0.0, 1.0, 1.0, 0.0])  # sums 1 and 1
    assert torch.equal(joint_advantages(rewards, 2, "reward"), torch.zeros(4))
    assert torch.equal(joint_advantages(rewards, 2, "advantage"), torch.zeros(4))
    assert joint_advantages(rewards, 2, "none").abs().min() > 0.7


def test_pairs_do_not_mix():
    changed = REWARDS.clone()
    changed[4:] *= 100
    for joint in ("reward", "advantage", "none"):
        before, after = (joint_advantages(r, 2, joint) for r in (REWARDS, changed))
        assert torch.equal(before[:4], after[:4])


# -- choosing candidates ---------------------------------------------------------------------------


def test_rows_of_candidates_by_hand():
    # G = 3: pair 0 has drawings 0 1 2 and answers 3 4 5, pair 1 drawings 6 7 8, answers 9 10 11.
    rows = pair_rows(torch.tensor([0, 2, 4, 5]), 3, 2)
    assert rows.tolist() == [0, 2, 3, 5, 7, 8, 10, 11]


def test_the_most_spread_candidates_keep_both_halves():
    # sums 0+5 2+2 9+9 | 1+1 1+0 1+1: worst and best of each pair are 1 2 and (first of ties) 1 0|2
    rewards = torch.tensor([0.0, 2.0, 9.0, 5.0, 2.0, 9.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    candidates = most_spread(joint_outcome(rewards, 3), 3, 2)
    rows = pair_rows(candidates, 3, 2)
    assert rows[:4].tolist() == [1, 2, 4, 5]
    chosen = joint_outcome(rewards[rows], 2)
    assert sorted(chosen[:2].tolist()) == [4, 18] and sorted(chosen[2:].tolist()) == [1, 2]


def test_all_candidates_are_all_rows():
    assert pair_rows(torch.arange(6), 3, 3).tolist() == list(range(12))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair_rows(torch.tensor([0, 3]), 3, 2), r"\[0, 3\] are not 2 of each pair"),
        (lambda: pair_rows(torch.tensor([0, 1, 2]), 3, 2), "kept=2 does not divide 3"),
        (lambda: joint_outcome(torch.zeros(6), 2), "give a multiple of 4"),
        (lambda: joint_outcome(torch.zeros(4, 1), 2), "give a multiple of 4"),
        (lambda: joint_advantages(torch.zeros(6), 2, "none"), "give a multiple of 4"),
        (lambda: joint_advantages(REWARDS, 2, "both"), "joint='both' is none of"),
        (lambda: joint_advantages(REWARDS, 2, answer_weight=-1.0), "answer_weight=-1.0 must be"),
        (lambda: joint_advantages(torch.zeros(4), 1), "group_size=1 leaves nothing"),
    ],
)
def test_what_cannot_hold_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- the whole objective ---------------------------------------------------------------------------

PAIRS, GROUP, LENGTH, KINDS = 2, 3, 4, 5
TEXT_LENGTHS = (4, 1, 3, 2, 4, 2)
"""Tokens of each candidate's answer; drawings all have `LENGTH`."""


def written_out(logits, old_logits, tokens, lengths, advantages):
    """Loss and gradient of one half of the candidates in double precision, without autograd.

    Of 1/C sum_c 1/n_c sum_t r_ct A_c, with d r / d logits = r (onehot - softmax).
    """
    loss, gradient = 0.0, np.zeros_like(logits)
    for c, length in enumerate(lengths):
        for t in range(length):
            now, before = (np.exp(x[c, t]) / np.exp(x[c, t]).sum() for x in (logits, old_logits))
            ratio = now[tokens[c, t]] / before[tokens[c, t]]
            share = ratio * advantages[c] / length / len(lengths)
            loss -= share
            gradient[c, t] += share * now
            gradient[c, t, tokens[c, t]] -= share
    return loss, gradient


@pytest.mark.parametrize("joint", ["reward", "advantage", "none"])
def test_objective_and_gradient_equal_the_written_out_ones(joint):
    rng = np.random.default_rng(0)
    count, shape = PAIRS * GROUP, (HALVES, PAIRS * GROUP, LENGTH, KINDS)  # half, candidate, ...
    logits, old_logits = rng.normal(size=shape), rng.normal(size=shape)
    tokens = rng.integers(KINDS, size=shape[:3])
    rewards = rng.normal(size=(HALVES, count)).round(2)
    lengths = ((LENGTH,) * count, TEXT_LENGTHS)

    # Advantages once more, candidate by candidate.
    def standardised(values):
        groups = values.reshape(PAIRS, GROUP)
        centred = groups - groups.mean(1, keepdims=True)
        return (centred / groups.std(1, ddof=1, keepdims=True)).ravel()

    own = [standardised(rewards[half]) for half in range(HALVES)]
    advantages = {
        "reward": [standardised(rewards[0] + 0.8 * rewards[1])] * HALVES,
        "advantage": [own[0] + 0.8 * own[1]] * HALVES,
        "none": own,
    }[joint]
    parts = [
        written_out(logits[half], old_logits[half], tokens[half], lengths[half], advantages[half])
        for half in range(HALVES)
    ]

    # Ours: rows are pair by pair, drawings before answers.
    def rows(array):
        array = np.moveaxis(array.reshape(HALVES, PAIRS, GROUP, *array.shape[2:]), 0, 1)
        return torch.from_numpy(array.reshape(HALVES * count, *array.shape[3:]).copy())

    policy = rows(logits).requires_grad_()
    chosen = rows(tokens)[..., None]
    logprobs = policy.log_softmax(-1).gather(-1, chosen)  # (2 P G, L, 1)
    behaviour = rows(old_logits).log_softmax(-1).gather(-1, chosen)
    mask = torch.arange(LENGTH) < rows(np.array(lengths))[:, None]
    is_image = rows(np.array([[1] * count, [0] * count])).bool()
    modality = torch.where(is_image, int(Modality.IMAGE), int(Modality.TEXT))[:, None]
    modality = modality.expand(-1, LENGTH)
    objective = GrpoObjective(clip_low=1.0, clip_high=math.inf, beta=0.0)
    terms = objective.loss(
        logprobs,
        behaviour,
        None,
        joint_advantages(rows(rewards).float(), GROUP, joint, answer_weight=0.8),
        HALVES * objective.weights(mask[..., None], modality),  # a mean over candidates, not rows
        mask[..., None],
    )
    (gradient,) = torch.autograd.grad(terms.loss, policy)
    assert float(terms.loss.detach()) == pytest.approx(sum(loss for loss, _ in parts), abs=1e-6)
    want = rows(np.stack([part for _, part in parts]))
    assert (gradient - want).abs().max() < 1e-6
    assert want.abs().max() > 0.05
    assert terms.clip_fraction == 0 and terms.ratio_mean != 1


def test_a_first_update_pushes_both_halves_of_the_better_candidate():
    # Answers alike: alone they teach nothing, jointly they follow their drawings.
    rewards = torch.tensor([0.0, 1.0, 0.5, 0.5])
    assert joint_advantages(rewards, 2, "none")[2:].tolist() == [0, 0]
    joint = joint_advantages(rewards, 2, "reward")
    assert torch.equal(joint[:2], joint[2:])
    assert torch.equal(joint[:2], group_advantages(rewards[:2], 2))
