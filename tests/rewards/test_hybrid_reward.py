"""Sums, standardised sums (D14), steps, and what is refused (D13)."""

import dataclasses
import json
import logging
import math

import pytest
import torch

from tests.rewards.cases import (
    END,
    FIRST,
    GOLD,
    QUESTION_SAMPLE,
    STORY_SAMPLE,
    Given,
    rollout,
    scores,
    told,
)
from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.trajectory import RewardScores
from unified_rl.rewards.coherence import CoherenceReward
from unified_rl.rewards.format import FormatReward
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.rewards.textual import TextualReward
from unified_rl.rewards.visual import VisualReward

NAN = math.nan
PAIR = rollout([told(*GOLD), told(FIRST)], group_size=2)


def flat(tensor: torch.Tensor) -> list[float]:
    return tensor.flatten().tolist()


def test_sum_by_hand_and_one_call_each():
    # 1 * 1 + 2 * 0.5 = 2;  1 * 0 + 2 * 3 = 6
    small, wide = Given(scores([1, 0])), Given(scores([0.5, 3]), weight=2)
    held_out = Given(scores([100, 7]), weight=0)
    got = HybridReward({"small": small, "wide": wide, "judge": held_out})(PAIR)
    assert flat(got.outcome) == [2, 6]
    assert got.steps is None
    assert flat(got.components["judge"].outcome) == [100, 7]
    assert small.calls == wide.calls == held_out.calls == 1


def test_scales_rule_a_sum_but_not_a_standardised_one():
    # Two rewards that disagree, one a hundred times as wide.
    components = {"small": Given(scores([1, 0])), "wide": Given(scores([0, 100]))}
    assert flat(HybridReward(components)(PAIR).outcome) == [1, 100]
    # (1, 0): mean 1/2, std 1/2 -> (1, -1); (0, 100): mean 50, std 50 -> (-1, 1)
    assert flat(HybridReward(components, "standardise")(PAIR).outcome) == [0, 0]
    heavier = {"small": Given(scores([1, 0]), weight=3), "wide": components["wide"]}
    assert flat(HybridReward(heavier, "standardise")(PAIR).outcome) == [2, -2]


def test_a_constant_component_standardises_to_zero():
    components = {"constant": Given(scores([5, 5])), "other": Given(scores([0, 4]))}
    assert flat(HybridReward(components, "standardise")(PAIR).outcome) == [-1, 1]


STEPPED = scores([1, 2], [[1, NAN, 3, NAN], [NAN, NAN, NAN, NAN]])


def test_steps_add_up_and_outcomes_without_steps_go_last():
    # Row 0: 4 segments, so the outcome 10 lands on index 3; row 1 has one, so 20 lands on 0.
    components = {
        "a": Given(STEPPED),
        "b": Given(scores([0, 0], [[5, NAN, NAN, NAN], [NAN, NAN, NAN, NAN]]), weight=2),
        "outcome": Given(scores([10, 20])),
        "judge": Given(scores([0, 0], [[9, 9, 9, 9], [9, 9, 9, 9]]), weight=0),
    }
    got = HybridReward(components)(PAIR)
    want = [1 + 2 * 5, NAN, 3, 10, 20, NAN, NAN, NAN]
    assert flat(got.steps) == pytest.approx(want, nan_ok=True)


def test_steps_standardise_over_all_their_scores():
    # Steps 1 and 3: mean 2, std 1 -> -1, 1. Outcomes 10 and 20 -> -1, 1 on the last steps.
    got = HybridReward({"a": Given(STEPPED), "b": Given(scores([10, 20]))}, "standardise")(PAIR)
    assert flat(got.steps) == pytest.approx([-1, NAN, 1, -1, 1, NAN, NAN, NAN], nan_ok=True)


def test_a_completion_without_segments_has_no_step():
    got = HybridReward({"a": Given(STEPPED), "b": Given(scores([10, 20]))})(
        rollout([told(*GOLD), told()], group_size=2)
    )
    assert flat(got.steps) == pytest.approx([1, NAN, 3, 10] + [NAN] * 4, nan_ok=True)


def test_the_papers_sum_on_real_rewards():
    hybrid = HybridReward(
        {
            "textual": TextualReward(),
            "visual": VisualReward(),
            "format": FormatReward(),
            "coherence": CoherenceReward(weight=0),
        }
    )
    # Gold: 1 + 1 + 1. A lone thought: text 1/2, no picture, no grammar.
    got = hybrid(rollout([told(*GOLD, END), told(FIRST)], group_size=2))
    assert flat(got.outcome) == [3, 0.5]
    # texts have textual + format, pictures visual
    want = [2, 1, 2, 1, NAN, 1, NAN, NAN, NAN, NAN]
    assert flat(got.steps) == pytest.approx(want, nan_ok=True)


def test_outcomes_of_the_wrong_shape_are_refused():
    with pytest.raises(RewardError, match=r"'a' gave outcomes of shape \(3,\) for 2"):
        HybridReward({"a": Given(scores([1, 2, 3]))})(PAIR)


def test_a_flat_total_aborts_after_its_patience():
    hybrid = HybridReward({"x": Given(scores([0, 0]))}, flat_patience=3)
    hybrid(PAIR)
    hybrid(PAIR)
    with pytest.raises(
        RewardError, match=r"was 0 \(interleaved\) for every completion of 3 rollouts \('x' 0\)"
    ):
        hybrid(PAIR)


def test_a_total_that_moves_between_rollouts_is_not_flat():
    changing = [scores([v, v]) for v in (0, 1, 0, 1, 0, 1)]
    hybrid = HybridReward({"x": Given(*changing)}, "standardise", flat_patience=2)
    for _ in changing:
        hybrid(PAIR)


def test_one_flat_reward_is_told_of_once(caplog):
    format_like, other = Given(scores([1, 1])), Given(scores([0, 1]))
    judge = Given(scores([0, 0]), weight=0)
    hybrid = HybridReward({"format": format_like, "other": other, "judge": judge}, flat_patience=2)
    with caplog.at_level(logging.WARNING):
        for _ in range(6):
            hybrid(PAIR)
    assert len(caplog.messages) == 1
    assert "'format' was 1 for every completion of 2 rollouts" in caplog.messages[0]


def test_constants_of_two_tasks_are_flat_though_they_differ():
    mixed = dataclasses.replace(PAIR, samples=(STORY_SAMPLE, QUESTION_SAMPLE))
    hybrid = HybridReward({"x": Given(scores([1, 0]))}, flat_patience=2)
    hybrid(mixed)
    with pytest.raises(RewardError, match=r"was 1 \(interleaved\), 0 \(understanding\) for every"):
        hybrid(mixed)


def test_a_task_that_still_teaches_keeps_training_going():
    samples = (STORY_SAMPLE, QUESTION_SAMPLE, QUESTION_SAMPLE)
    told_thrice = rollout([told(*GOLD), told(FIRST), told(FIRST)])
    mixed = dataclasses.replace(told_thrice, samples=samples)
    hybrid = HybridReward({"x": Given(scores([1, 0, 1]))}, flat_patience=2)
    for _ in range(4):
        hybrid(mixed)


def test_flat_counters_survive_a_resume():
    def fresh() -> HybridReward:
        return HybridReward({"x": Given(scores([0.5, 0.5]))}, flat_patience=3)

    first, second = fresh(), fresh()
    first(PAIR)
    first(PAIR)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    with pytest.raises(RewardError, match=r"0.5 \(interleaved\) for every completion of 3"):
        second(PAIR)


def test_metrics_by_hand():
    components = {
        "a": Given(scores([1, 3])),
        "b": Given(scores([0, 4]), weight=3),
        "judge": Given(scores([8, 8]), weight=0),
    }
    hybrid = HybridReward(components)
    # Means 2 and 2 weigh 2 and 6 of 8; totals 1 and 15.
    metrics = hybrid.metrics(hybrid(PAIR))
    seconds = {name: metrics.pop(f"{name}_s") for name in components}
    assert all(0 < value < 10 for value in seconds.values())
    assert metrics == pytest.approx(
        {
            "a": 2, "a_std": 1, "a_share": 0.25,
            "b": 2, "b_std": 2, "b_share": 0.75,
            "judge": 8, "judge_std": 0, "judge_share": 0,
            "reward": 8, "reward_std": 7, "nonfinite_rewards": 0,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            RewardScores(torch.zeros(2), torch.zeros(3, 1)),
            r"'a' gave steps of shape \(3, 1\) for 2",
        ),
        (RewardScores(torch.zeros(2), torch.zeros(2)), r"'a' gave steps of shape \(2,\) for 2"),
        (RewardScores(torch.zeros(2), None, torch.ones(1).bool()), r"'a' gave judged of shape"),
    ],
)
def test_parts_of_the_wrong_shape_are_refused(given, message):
    with pytest.raises(RewardError, match=message):
        HybridReward({"a": Given(given)})(PAIR)


@pytest.mark.parametrize(
    "settings",
    [
        {"components": {}},
        {"components": {"reward": Given()}},
        {"components": {"judge": Given(weight=0)}},
        {"components": {"a": Given()}, "normalisation": "std"},
        {"components": {"a": Given()}, "flat_patience": 0},
        {"components": {"a": Given()}, "retries": -1},
        {"components": {"a": Given()}, "slow_after_s": -1.0},
        {"components": {"a": Given()}, "slow_after_s": NAN},
    ],
)
def test_settings_that_cannot_work(settings):
    with pytest.raises(ConfigError):
        HybridReward(**settings)
