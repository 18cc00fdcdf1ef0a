"""D5: the released code's off-by-one, which only replay knows, and only when it is asked for."""

from dataclasses import replace

import pytest
import torch

from tests.stages.training import SHORT, grpo, run
from tests.suites.trajectories import PLAIN, all_candidates, seeded
from tests.toys import build
from tests.toys.samples import drawings, mixed
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import CapabilityError
from unified_rl.core.trajectory import Modality
from unified_rl.decoding.tape import Kind

RIGHT = replace(PLAIN, guidance_scale=3.0, logprob="conditional")
SHIFTED = replace(RIGHT, image_logprob_shift="released_off_by_one")
CLEAR = 1e-2
IN_READING_ORDER = ("janus", "vila_u")


@pytest.fixture(scope="module", params=IN_READING_ORDER)
def policy(request):
    return build(request.param)


def drawn(policy, samples, behaviour):
    return policy.sample(samples, behaviour, seeded())[0]


def test_drawing_and_its_record_do_not_know_of_it(policy):
    right, shifted = (drawn(policy, mixed(), behaviour) for behaviour in (RIGHT, SHIFTED))
    assert torch.equal(right.tape["ids"], shifted.tape["ids"])
    assert torch.equal(right.logprobs, shifted.logprobs)
    assert shifted.behaviour == SHIFTED


@torch.no_grad()
def test_replay_moves_images_and_no_text(policy):
    trajectory = drawn(policy, mixed(), SHIFTED)
    moved = (policy.logprobs(trajectory) - trajectory.logprobs).abs()
    right = policy.logprobs(trajectory._replace(behaviour=RIGHT))
    assert (right - trajectory.logprobs).abs().max() <= 1e-5
    assert moved[trajectory.mask_of(Modality.TEXT)].max() <= 1e-5
    assert moved[trajectory.mask_of(Modality.IMAGE)].max() > CLEAR
    assert not moved[~trajectory.action_mask].any()


@pytest.mark.parametrize("place", [0, 4, 8])  # of 9 positions
@torch.no_grad()
def test_a_shifted_score_has_seen_its_code(policy, place):
    # Scores of all candidates add up to 1 only if they come from one distribution, and states that
    # have read the candidates are as many.
    trajectory = drawn(policy, drawings(1), SHIFTED)
    column = int((trajectory.tape["kind"][0] == Kind.CODE).nonzero()[place])
    every = all_candidates(trajectory, column, policy.capabilities.codebook_size)
    sums = {
        behaviour: float(
            policy.logprobs(every._replace(behaviour=behaviour))[:, column, 0].exp().sum()
        )
        for behaviour in (RIGHT, SHIFTED)
    }
    assert sums[RIGHT] == pytest.approx(1, abs=1e-5)
    assert abs(sums[SHIFTED] - 1) > CLEAR


@torch.no_grad()
def test_a_shifted_score_is_that_of_the_code_read_twice(policy):
    # The state behind a code, asked once more for the code, by inserting a copy of it behind it:
    # the copy's own, right score is the shifted score of the first.
    trajectory = drawn(policy, drawings(1), SHIFTED)
    first = int((trajectory.tape["kind"][0] == Kind.CODE).nonzero()[0])
    ids = trajectory.tape["ids"].clone()
    ids[0, first + 1] = ids[0, first]
    twice = trajectory._replace(tape={**trajectory.tape, "ids": ids})
    shifted = policy.logprobs(twice)[0, first]
    right = policy.logprobs(twice._replace(behaviour=RIGHT))[0, first + 1]
    torch.testing.assert_close(shifted, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("updates", [1, 2])
def test_the_first_ratio_is_1_though_replay_does_not_agree_with_sampling(updates):
    behaviour = replace(SHORT, logprob="conditional", image_logprob_shift="released_off_by_one")
    stage = grpo("janus", behaviour=behaviour, updates_per_rollout=updates)
    metrics = run(stage, batches=1).callback_metrics
    assert stage.objective.terms[0].ratio_mean == 1
    assert stage.objective.gaps[0] == 0
    assert metrics["replay_error"] > CLEAR


def test_a_family_that_draws_in_another_order_refuses_at_its_first_drawing():
    with pytest.raises(CapabilityError, match="image_logprob_shift=released_off_by_one"):
        drawn(build("showo"), drawings(1), SHIFTED)


def test_a_family_that_draws_in_another_order_refuses_to_replay():
    policy = build("showo")
    trajectory = drawn(policy, drawings(1), RIGHT)
    with pytest.raises(CapabilityError, match="set it to none"):
        policy.logprobs(trajectory._replace(behaviour=SHIFTED))


def test_it_needs_unguided_scores():
    with pytest.raises(ValueError, match="not by logprob='guided'; set logprob='conditional'"):
        Behaviour(guidance_scale=5.0, image_logprob_shift="released_off_by_one")


def test_it_must_be_known():
    with pytest.raises(ValueError, match="image_logprob_shift='off' is none of none, released"):
        Behaviour(image_logprob_shift="off")
