"""Self-tests pass as things are, and fail when what a reward looks with is broken."""

import pytest

from tests.rewards.cases import GOLD, STORY_SAMPLE, rollout, told
from unified_rl.core.errors import RewardError
from unified_rl.microworld.verify import Verdict
from unified_rl.rewards import (
    accuracy,
    alignment,
    coherence,
    format,
    keywords,
    reasoning_format,
    sight,
    textual,
    visual,
)
from unified_rl.rewards.base import StepwiseScore
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.rewards.statements import Statement

REWARDS = (
    format.FormatReward,
    textual.TextualReward,
    visual.VisualReward,
    alignment.AlignmentReward,
    coherence.CoherenceReward,
    accuracy.AccuracyReward,
    reasoning_format.ReasoningFormatReward,
    keywords.KeywordReward,
)
BLIND = (
    (format.FormatReward, format, "is_well_formed", lambda completion: True),
    (textual.TextualReward, textual, "thought_score", lambda text, step, story: 0.5),
    (textual.TextualReward, textual, "judge_answer", lambda question, text: True),
    (visual.VisualReward, sight, "verify", lambda image, facts: Verdict(True, 1.0, ())),
    (visual.VisualReward, sight, "verify", lambda image, facts: Verdict(False, 0.3, ())),
    (visual.VisualReward, sight, "verify", lambda i, f: Verdict(False, float("nan"), ())),
    (alignment.AlignmentReward, sight, "verify", lambda image, facts: Verdict(True, 1.0, ())),
    (alignment.AlignmentReward, alignment, "said_facts", lambda text: None),
    (coherence.CoherenceReward, sight, "detect", lambda image: ()),
    (accuracy.AccuracyReward, accuracy, "same_answer", lambda answer, gold: True),
    (accuracy.AccuracyReward, accuracy, "chosen_option", lambda answer, options: "B"),
    (accuracy.AccuracyReward, accuracy, "split_reasoning", lambda text: None),
    (reasoning_format.ReasoningFormatReward, reasoning_format, "is_reasoned", lambda answer: True),
    (keywords.KeywordReward, keywords, "read_answer", lambda *told, **how: Statement()),
)


@pytest.mark.parametrize("reward", REWARDS)
def test_sound_rewards_pass(reward):
    reward().self_test()


@pytest.mark.parametrize(("reward", "module", "name", "broken"), BLIND)
def test_blind_rewards_fail(reward, module, name, broken, monkeypatch):
    monkeypatch.setattr(module, name, broken)
    with pytest.raises(RewardError, match=reward.__name__):
        reward().self_test()


def test_hybrid_names_the_component(monkeypatch):
    hybrid = HybridReward({"format": format.FormatReward(), "visual": visual.VisualReward()})
    hybrid.self_test()
    monkeypatch.setattr(sight, "verify", lambda image, facts: Verdict(True, 1.0, ()))
    with pytest.raises(RewardError, match="reward 'visual' fails its self-test"):
        hybrid.self_test()


def test_steps_must_match_the_segments():
    class Short(format.FormatReward):
        def score(self, sample, completion):
            return StepwiseScore(1.0, ())

    with pytest.raises(RewardError, match="0 step scores for the 4 segments of 'story'"):
        Short()(rollout([told(*GOLD)], STORY_SAMPLE))
