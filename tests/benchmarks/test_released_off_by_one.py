"""D5 on recorded tensors: CoRL's released losses come out with its bug switched on, only then."""

from dataclasses import replace

import pytest
import torch

from benchmarks.parity import janus
from benchmarks.parity.janus_ulm import answer_logprobs, image_logprobs, losses, released
from tests.benchmarks.golden_folders import golden_of

TOLERANCE = 1e-5
LOSSES = [
    f"ulm.grpo_loss_{name}"
    for name in ("unify_reward", "unify_reward_iter1", "unify_advantage", "separate")
]


@pytest.fixture(scope="module")
def golden():
    golden = golden_of("Janus")
    if "ulm" not in golden.config:
        pytest.skip("these recorded tensors of Janus hold none of ULM-R1")
    return golden


@pytest.fixture(scope="module")
def policy(golden):
    return janus.golden_policy(golden)


@torch.no_grad()
def gaps(policy, golden, behaviour):
    """Distances of the four losses from the recorded ones."""
    of_images = image_logprobs(policy, golden, behaviour)
    found = losses(golden, of_images, answer_logprobs(policy, golden)[0])
    return {name: abs(float(loss - golden.io[name])) for name, loss in found.items()}


def test_with_the_bug_the_losses_are_the_recorded_ones(policy, golden):
    found = gaps(policy, golden, released(golden))
    assert sorted(found) == sorted(LOSSES)
    assert max(found.values()) <= TOLERANCE


def test_without_it_none_of_them_is(policy, golden):
    right = replace(released(golden), image_logprob_shift="none")
    found = gaps(policy, golden, right)
    first = found.pop("ulm.grpo_loss_unify_reward_iter1")
    assert first > 20 * TOLERANCE  # every ratio is 1, so that the KL alone shows the bug
    assert min(found.values()) > 100 * TOLERANCE, found


@torch.no_grad()
def test_scores_of_the_bug_are_no_distribution(policy, golden):
    # All first codes an image could have: their probabilities add up to 1 only without the bug.
    count = policy.capabilities.codebook_size
    sums = {}
    for shift in ("none", "released_off_by_one"):
        behaviour = replace(released(golden), image_logprob_shift=shift)
        every = golden._replace(io=_first_codes(golden.io, count))
        sums[shift] = float(image_logprobs(policy, every, behaviour)[:, 0].exp().sum())
    assert sums["none"] == pytest.approx(1, abs=TOLERANCE)
    assert abs(sums["released_off_by_one"] - 1) > 100 * TOLERANCE


def _first_codes(io, count):
    """The first recorded drawing once for each code that it could start with."""
    names = ("t2i.image_ids", "ulm.t2i_input_ids", "ulm.t2i_attention_mask")
    rows = {name: io[name][:1].repeat(count, 1) for name in names}
    rows["t2i.image_ids"][:, 0] = torch.arange(count)
    return rows
