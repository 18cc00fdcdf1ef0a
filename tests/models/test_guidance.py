"""Guidance is for drawings: answers that draw nothing have no unconditional twins to pay for."""

from dataclasses import replace

import pytest
import torch

from tests.suites.trajectories import BEHAVIOURS, PLAIN, seeded
from tests.toys import FAMILIES, build
from tests.toys.samples import drawings, mixed, questions, stories, sums
from tests.toys.watching import rows_read
from unified_rl.core.trajectory import Modality
from unified_rl.models import shared_prompts

GUIDED = replace(PLAIN, guidance_scale=5.0)


@pytest.fixture(scope="module", params=FAMILIES)
def policy(request):
    return build(request.param)


def watched(policy, monkeypatch, name):
    """What the method of this name returned, call by call."""
    seen, method = [], getattr(policy, name)

    def keep(*arguments):
        seen.append(method(*arguments))
        return seen[-1]

    monkeypatch.setattr(policy, name, keep)
    return seen


@pytest.mark.parametrize(
    ("samples", "rows"),
    [
        ([*questions(2), *sums(1)], 3),
        (drawings(2), 4),
        (stories(1), 2),
        ([*questions(1), *drawings(1)], 3),
    ],
)
def test_only_a_rollout_that_may_draw_is_decoded_twice(policy, samples, rows, monkeypatch):
    read = rows_read(policy, monkeypatch)
    trajectory, _ = policy.sample(samples, GUIDED, seeded())
    assert max(read) == rows
    assert trajectory.behaviour == GUIDED


@torch.no_grad()
def test_words_do_not_know_of_guidance(policy):
    plain, guided = (
        policy.sample([*questions(2), *sums(1)], behaviour, seeded())[0]
        for behaviour in (PLAIN, GUIDED)
    )
    assert torch.equal(plain.tape["ids"], guided.tape["ids"])
    assert torch.equal(plain.logprobs, guided.logprobs)
    assert torch.equal(policy.logprobs(plain), policy.logprobs(guided))
    assert (policy.logprobs(guided) - guided.logprobs).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["guided", "conditional"])
@torch.no_grad()
def test_replay_reads_the_twins_of_drawings_only(policy, name, monkeypatch):
    if policy.capabilities.likelihood == "mask_predict":
        pytest.skip("reads the steps of its images besides")
    trajectory, _ = policy.sample(mixed(), BEHAVIOURS[name], seeded())
    drawn = int(trajectory.mask_of(Modality.IMAGE).flatten(1).any(1).sum())
    assert 2 <= drawn < 6  # two drawings and what stories drew, but no question and no sum
    monkeypatch.setattr(shared_prompts, "WORTH", 0.0)  # each tape in one pass
    states = watched(policy, monkeypatch, "backbone")
    replayed = policy.logprobs(trajectory)
    assert [len(hidden) for hidden in states] == ([6, drawn] if name == "guided" else [6])
    assert (replayed - trajectory.logprobs).abs().max() <= 1e-5
