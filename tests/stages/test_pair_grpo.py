"""CoRL's unified RL through Lightning: pairs, their advantages, the gradient of eq. 6."""

import pytest
import torch

from tests.stages.training import Brightness, Constant, Gradients, gradients, pair_grpo, run, run_on
from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Task
from unified_rl.core.trajectory import Modality
from unified_rl.data.mixture import SampleDataModule
from unified_rl.data.reasoning import ReasonedSource

PAIRS, GROUP = 2, 3


def improved(stage, monkeypatch, **settings):
    """What the first batch gave to the objective: trajectory and (B, L) advantages."""
    seen = []
    improve = stage.improve

    def keep(trajectory, advantages):
        seen.append((trajectory, advantages))
        return improve(trajectory, advantages)

    monkeypatch.setattr(stage, "improve", keep)
    run(stage, batches=1, batch_size=PAIRS, **settings)
    return seen[0]


def per_row(trajectory, advantages):
    """(B,): the one advantage of each row."""
    mask = trajectory.action_mask.any(-1)
    rows = [values[kept].unique() for values, kept in zip(advantages, mask, strict=True)]
    assert all(len(values) <= 1 for values in rows)
    return torch.stack([values[0] if len(values) else torch.tensor(0.0) for values in rows])


def standardised(rewards):
    """Of (P, G) rewards, by hand."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / rewards.std(1, keepdim=True)


def test_a_rollout_is_pictures_then_answers_of_each_pair(family, monkeypatch):
    stage = pair_grpo(family, group_size=GROUP)
    improved(stage, monkeypatch)
    rollout, _ = stage.latest
    tasks = [sample.task for sample in rollout.samples]
    assert tasks == ([Task.TEXT_TO_IMAGE] * GROUP + [Task.UNDERSTANDING] * GROUP) * PAIRS
    assert all(len(c.images) == 1 for c in rollout.completions[:GROUP])
    assert not any(c.images for c in rollout.completions[GROUP : 2 * GROUP])


class Elsewhere(Brightness):
    """Waits for another machine."""

    waits = True

    def __init__(self):
        self.sizes = []

    def __call__(self, rollout):
        self.sizes.append(len(rollout.samples))
        return super().__call__(rollout)


def test_a_reward_that_waits_scores_each_half_once(family):
    reward = Elsewhere()
    beside = pair_grpo(family, group_size=GROUP, reward=reward, rollout_batch_size=4)
    run(beside, batches=1, batch_size=PAIRS)
    assert reward.sizes == [4, 2, 4, 2]  # two pairs in groups of three: six drawings, six answers
    alone = pair_grpo(family, group_size=GROUP, rollout_batch_size=4)
    run(alone, batches=1, batch_size=PAIRS)
    assert beside.latest[1].outcome.tolist() == alone.latest[1].outcome.tolist()


@pytest.mark.parametrize("joint", ["reward", "advantage", "none"])
def test_advantages_are_those_of_the_joint_reward(joint, monkeypatch):
    stage = pair_grpo("janus", group_size=GROUP, joint=joint, answer_weight=0.5)
    trajectory, advantages = improved(stage, monkeypatch)
    _, scores = stage.latest
    drawn, answered = scores.outcome.view(PAIRS, 2, GROUP).double().unbind(1)
    own = standardised(drawn), standardised(answered)
    both = {
        "reward": (standardised(drawn + 0.5 * answered),) * 2,
        "advantage": (own[0] + 0.5 * own[1],) * 2,
        "none": own,
    }[joint]
    want = torch.stack(both, 1).flatten().float()
    has_actions = trajectory.action_mask.flatten(1).any(1)
    found = per_row(trajectory, advantages)
    assert torch.allclose(found[has_actions], want[has_actions], atol=1e-5)


@pytest.mark.parametrize("updates", [1, 2])
def test_the_first_ratio_is_exactly_one(family, updates):
    stage = pair_grpo(family, updates_per_rollout=updates)
    run(stage, batches=1)
    assert stage.objective.gaps[0] == 0.0
    assert float(stage.objective.terms[0].ratio_mean) == 1.0


def test_both_halves_are_replayed_as_they_were_drawn(family):
    metrics = run(pair_grpo(family, micro_batch_size=5), batches=1).callback_metrics
    assert metrics["replay_error"] <= 1e-5


@pytest.mark.parametrize("micro_batch_size", [0, 5])
def test_the_gradient_is_that_of_eq_6_in_double_precision(family, micro_batch_size, monkeypatch):
    stage = pair_grpo(
        family,
        group_size=GROUP,
        micro_batch_size=micro_batch_size,
        change=lambda policy: policy.double(),
    )
    kept = Gradients()
    trajectory, advantages = improved(stage, monkeypatch, callbacks=[kept])
    of_rows = per_row(trajectory, advantages)

    # -1/(P G) sum over candidates of the mean over the picture's positions plus the mean over the
    # answer's tokens of ratio * A, written out row by row; the weights moved since, so start anew.
    policy = pair_grpo(family, change=lambda policy: policy.double())._make_policy()
    total = torch.zeros((), dtype=torch.float64)
    for row, advantage in enumerate(of_rows):
        part = trajectory.select(slice(row, row + 1))
        positions = part.action_mask.any(-1)[0]
        if not positions.any():
            continue
        logprobs = policy.logprobs(part).masked_fill(~part.action_mask, 0.0).sum(-1)[0]
        ratio = (logprobs - logprobs.detach()).exp()[positions]
        total = total - ratio.mean() * advantage / (PAIRS * GROUP)
    names, parameters = zip(*policy.named_parameters(), strict=True)
    wanted = [p.requires_grad for p in parameters]
    used = [p for p, wants in zip(parameters, wanted, strict=True) if wants]
    found = iter(torch.autograd.grad(total, used, allow_unused=True))
    want = {
        f"policy.{n}": g
        for n, wants in zip(names, wanted, strict=True)
        if wants and (g := next(found)) is not None
    }
    (ours,) = kept.steps
    assert want.keys() <= ours.keys()
    scale = max(gradient.abs().max() for gradient in want.values())
    assert scale > 1e-3
    assert max((ours[name] - want[name]).abs().max() for name in want) <= 1e-6 * scale


def test_a_pair_counts_once_however_its_halves_count(family, monkeypatch):
    trajectory, _ = improved(pair_grpo(family, group_size=GROUP), monkeypatch)
    stage = pair_grpo(family, group_size=GROUP)
    weights = stage.weights_of(trajectory.action_mask, trajectory.modality)
    rows = weights.flatten(1).sum(1)
    acting = trajectory.action_mask.flatten(1).any(1)
    assert torch.allclose(rows[acting], torch.full_like(rows[acting], 1 / (PAIRS * GROUP)))


def test_a_constant_reward_has_no_gradient(family):
    assert not any(g.any() for g in gradients(pair_grpo(family, reward=Constant())).values())


def test_candidates_are_chosen_whole(family, monkeypatch):
    stage = pair_grpo(family, group_size=4, trained_per_group=2)
    trajectory, _ = improved(stage, monkeypatch)
    assert trajectory.row_count == PAIRS * 2 * 2
    has_picture = trajectory.mask_of(Modality.IMAGE).flatten(1).any(1).tolist()
    if family != "showo":  # of which some pictures may have no action left to score
        assert has_picture == [True, True, False, False] * PAIRS
    rollout, scores = stage.latest
    drawn, answered = scores.outcome.view(PAIRS, 2, 4).unbind(1)
    joint = drawn + 0.8 * answered
    for pair in range(PAIRS):  # of two, those of greatest variance are the best and the worst
        best, worst = int(joint[pair].argmax()), int(joint[pair].argmin())
        rows = [2 * 4 * pair + place for place in sorted((best, worst))]
        first = trajectory.select(slice(4 * pair, 4 * pair + 2))
        kept = rollout.trajectory.select(torch.tensor(rows))
        assert torch.equal(first.logprobs, kept.logprobs)


def test_halves_without_their_partners_are_refused(family):
    data = SampleDataModule({"half": ReasonedSource("train", unit="drawing")}, {"half": 1}, 2, 0)
    with pytest.raises(ConfigError, match="learns from pairs"):
        run_on(pair_grpo(family), data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"joint": "both"}, "stage.joint='both'"),
        ({"answer_weight": -0.1}, "stage.answer_weight=-0.1"),
        ({"group_size": 1}, "stage.group_size=1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        pair_grpo("janus", **settings)
