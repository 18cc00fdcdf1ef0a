"""A score that is not finite never becomes an advantage (D13)."""

import json
import math

import pytest
import torch

from tests.rewards.cases import FIRST, GOLD, Given, rollout, scores, told
from tests.stages.training import Brightness, gradients, grpo, run
from unified_rl.core.errors import RewardError
from unified_rl.rewards.finiteness import PATIENCE
from unified_rl.rewards.hybrid import HybridReward

NAN = math.nan
FOUR = rollout([told(*GOLD), told(FIRST)] * 2, group_size=2)


def test_the_group_of_an_unknown_score_is_judged_by_nobody():
    # Groups (0, 1) and (2, 3); row 1 is unknown, so both rows of its group count as 0.
    hybrid = HybridReward({"fine": Given(scores([1, 0, 1, 3])), "b": Given(scores([0, NAN, 2, 0]))})
    got = hybrid(FOUR)
    assert got.outcome.tolist() == [0, 0, 3, 3]
    assert got.components["fine"].judged_rows.tolist() == [False, False, True, True]
    metrics = hybrid.metrics(got)
    assert metrics["nonfinite_rewards"] == 1
    assert metrics["fine"] == 2  # of 1 and 3


def test_a_held_out_judge_loses_its_own_score_alone():
    judge = Given(scores([5, NAN, 7, 9]), weight=0)
    hybrid = HybridReward({"fine": Given(scores([1, 0, 1, 3])), "judge": judge})
    got = hybrid(FOUR)
    assert got.outcome.tolist() == [1, 0, 1, 3]
    assert hybrid.metrics(got)["judge"] == 7  # of 5, 7 and 9


def test_an_infinite_step_is_not_finite_but_a_lacking_one_is():
    steps = [[math.inf], [1.0], [NAN], [2.0]]
    hybrid = HybridReward({"a": Given(scores([0, 1, 0, 1], steps))})
    got = hybrid(FOUR)
    assert got.steps[:, 0].tolist() == pytest.approx([NAN, NAN, NAN, 2.0], nan_ok=True)


@pytest.mark.parametrize("wrong", [NAN, math.inf, -math.inf])
def test_rollouts_on_end_are_refused(wrong, caplog):
    hybrid = HybridReward({"a": Given(scores([1, 0, 1, 0])), "b": Given(scores([0, wrong, 1, 0]))})
    for _ in range(PATIENCE - 1):
        hybrid(FOUR)
    assert caplog.text.count(f"'b' is {wrong} for a completion of 'story'; its group") == 1
    with pytest.raises(RewardError, match=f"'b' is {wrong} .*in 5 rollouts in a row"):
        hybrid(FOUR)


def test_a_finite_rollout_ends_the_count():
    wrong, right = scores([0, NAN, 1, 0]), scores([0, 1, 1, 0])
    hybrid = HybridReward({"b": Given(*([wrong] * (PATIENCE - 1) + [right]) * 2)})
    for _ in range(2 * PATIENCE):
        hybrid(FOUR)


def test_the_count_survives_a_resume():
    def fresh() -> HybridReward:
        return HybridReward({"b": Given(scores([0, NAN, 1, 0]))})

    first, second = fresh(), fresh()
    for _ in range(PATIENCE - 1):
        first(FOUR)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    with pytest.raises(RewardError, match="in 5 rollouts"):
        second(FOUR)


class Unknown(Brightness):
    """NaN for everything."""

    def __call__(self, rollout):
        found = super().__call__(rollout)
        return found._replace(outcome=torch.full_like(found.outcome, NAN))


@pytest.mark.parametrize("level", ["outcome", "process"])
def test_an_unknown_reward_moves_nothing(level):
    found = gradients(grpo("janus", reward=Unknown(), level=level))
    assert found and not any(gradient.any() for gradient in found.values())


def test_training_with_unknown_rewards_is_given_up():
    with pytest.raises(RewardError, match="'brightness' is nan"):
        run(grpo("janus", reward=Unknown()), batches=PATIENCE)
