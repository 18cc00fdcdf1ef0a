"""What a reward does not judge is no part of its figures, nor of what is made of its scores."""

import logging
import math
from dataclasses import replace

import pytest
import torch

from tests.rewards.cases import (
    DRAWING_SAMPLE,
    FIRST,
    GOLD,
    QUESTION_SAMPLE,
    RED_CIRCLE,
    Given,
    image,
    rollout,
    scores,
    told,
)
from unified_rl.core.errors import RewardError
from unified_rl.core.sample import Text
from unified_rl.core.trajectory import RewardScores
from unified_rl.rewards.accuracy import AccuracyReward
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.rewards.visual import VisualReward

NAN = math.nan
PAIR = rollout([told(*GOLD), told(FIRST)], group_size=2)


def flat(tensor: torch.Tensor) -> list[float]:
    return tensor.flatten().tolist()


def of_some(outcome: list[float], judged: list[bool]) -> RewardScores:
    return RewardScores(torch.tensor(outcome), None, torch.tensor(judged))


FOUR = rollout([told(FIRST)] * 4, group_size=2)
DRAWN, ASKED = [True, True, False, False], [False, False, True, True]


def test_figures_are_of_the_completions_that_are_judged():
    components = {
        "cycle": Given(of_some([1, 3, 0, 0], DRAWN)),
        "accuracy": Given(of_some([0, 0, 0, 1], ASKED), weight=2),
        "format": Given(scores([1, 1, 1, 0])),
        "unasked": Given(of_some([0, 0, 0, 0], [False] * 4)),
    }
    hybrid = HybridReward(components)
    got = hybrid(FOUR)
    assert flat(got.outcome) == [2, 4, 1, 2]  # 1 + 1, 3 + 1, 0 + 1, 2 + 0
    metrics = {k: v for k, v in hybrid.metrics(got).items() if not k.endswith("_s")}
    # Means 2, 1/2 and 3/4 weigh 2, 1 and 3/4 of 15/4. The std of 1 1 1 0 is sqrt(3/4 - 9/16).
    # Totals 2 4 1 2: mean 9/4, mean square 25/4, less 81/16 gives 19/16.
    assert metrics == pytest.approx(
        {
            "cycle": 2, "cycle_std": 1, "cycle_share": 8 / 15,
            "accuracy": 0.5, "accuracy_std": 0.5, "accuracy_share": 4 / 15,
            "format": 0.75, "format_std": 3**0.5 / 4, "format_share": 3 / 15,
            "reward": 2.25, "reward_std": 19**0.5 / 4, "nonfinite_rewards": 0,
        }
    )  # fmt: skip


def test_what_no_counting_reward_judges_is_no_part_of_the_total():
    components = {
        "accuracy": Given(of_some([0, 0, 0, 1], ASKED)),
        "judge": Given(scores([5, 5, 5, 5]), weight=0),
    }
    hybrid = HybridReward(components)
    metrics = hybrid.metrics(hybrid(FOUR))
    assert (metrics["reward"], metrics["reward_std"]) == (0.5, 0.5)
    assert metrics["judge"] == 5


def test_a_rollout_without_any_judgement_has_no_figures():
    hybrid = HybridReward({"accuracy": Given(of_some([0] * 4, [False] * 4))}, flat_patience=1)
    assert hybrid.metrics(hybrid(FOUR)) == {"nonfinite_rewards": 0}


def test_standardising_takes_only_what_is_judged():
    # 1 and 3: mean 2, std 1 -> -1, 1; all four would have a mean of 1. The others add nothing.
    components = {"cycle": Given(of_some([1, 3, 0, 0], DRAWN)), "format": Given(scores([0] * 4))}
    assert flat(HybridReward(components, "standardise")(FOUR).outcome) == [-1, 1, 0, 0]


def test_outcomes_that_are_no_judgement_put_nothing_on_the_last_step():
    # One segment each, of which "a" has a score; "b" has none and judges rows 0 and 1 alone.
    components = {
        "a": Given(scores([0] * 4, [[1.0], [2.0], [NAN], [4.0]])),
        "b": Given(of_some([10, 20, 0, 0], DRAWN)),
    }
    steps = HybridReward(components)(FOUR).steps
    assert flat(steps) == pytest.approx([11, 22, NAN, 4], nan_ok=True)


def test_flat_judgements_are_flat_beside_completions_that_are_not_judged(caplog):
    components = {
        "cycle": Given(of_some([0.5, 0.5, 0, 0], DRAWN)),
        "format": Given(scores([0, 0, 0, 1])),
    }
    hybrid = HybridReward(components, flat_patience=2)
    with caplog.at_level(logging.WARNING):
        hybrid(FOUR), hybrid(FOUR)
    (message,) = caplog.messages
    assert "'cycle' was 0.5 for every completion of 2 rollouts" in message


def test_a_rollout_without_a_judgement_is_no_part_of_a_flat_spell():
    nothing, flat_one = of_some([0] * 4, [False] * 4), of_some([0, 0, 1, 1], ASKED)
    hybrid = HybridReward({"x": Given(flat_one, nothing, nothing, flat_one)}, flat_patience=2)
    for _ in range(3):
        hybrid(FOUR)
    with pytest.raises(RewardError, match=r"was 1 \(interleaved\) for every completion of 2"):
        hybrid(FOUR)


def test_real_rewards_are_silent_on_other_tasks_and_not_on_bad_answers():
    # The accuracy of drawings is nobody's business; a drawing that is none has earned its 0.
    samples = (DRAWING_SAMPLE, DRAWING_SAMPLE, QUESTION_SAMPLE, QUESTION_SAMPLE)
    right = Text("<think>i look</think><answer>the square is right of the circle</answer>")
    answers = [told(image(RED_CIRCLE)), told(), told(right), told(Text("right"))]
    mixed = replace(rollout(answers, group_size=2), samples=samples)
    hybrid = HybridReward({"visual": VisualReward(), "accuracy": AccuracyReward()})
    got = hybrid(mixed)
    assert flat(got.outcome) == [1, 0, 1, 0]
    assert got.components["visual"].judged_rows.tolist() == DRAWN
    assert got.components["accuracy"].judged_rows.tolist() == ASKED
    metrics = hybrid.metrics(got)
    assert (metrics["visual"], metrics["accuracy"], metrics["reward"]) == (0.5, 0.5, 0.5)


def test_a_story_without_pictures_counts_as_one_without_pictures():
    hybrid = HybridReward({"visual": VisualReward()})
    assert hybrid.metrics(hybrid(PAIR))["visual"] == 0.5  # gold 1, a lone thought 0


def test_chosen_rows_keep_what_is_judged():
    hybrid = HybridReward({"x": Given(of_some([0, 0, 3, 1], ASKED))})
    chosen = hybrid(FOUR).select(torch.tensor([1, 2]))
    assert chosen.components["x"].judged.tolist() == [False, True]
    assert hybrid.metrics(chosen)["x"] == 3
