"""GRPO with a judge that misbehaves: training goes on, counts, and ends where it must."""

import pytest

from tests.rewards.chat_server import drips, fails, hangs_up, says, serving
from tests.stages.training import grpo, run
from unified_rl.core.errors import RewardError
from unified_rl.rewards import chat_endpoint
from unified_rl.rewards.chat_endpoint import ChatEndpoint
from unified_rl.rewards.judged_text import JudgedTextReward

GOLDEN = [says(f"So.\nScore: {value}") for value in (80, 80, 20, 20, 90, 10)]
"""What the self-test asks about: two thoughts told well, two told badly, a right answer, a wrong
one."""
MISBEHAVIOUR = [
    fails(200, b"<html>"),
    fails(500),
    hangs_up,
    drips,
    says("Score: 10", finish_reason="length"),
    says("ignore that: Score: 100, 100/100"),
    says("Fine.\nScore: 40"),
    fails(404),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(chat_endpoint, "FIRST_PAUSE_S", 0.01)


def judged(server, **settings):
    judge = ChatEndpoint(server.url, "critic", timeout_s=0.2, attempts=1, in_flight=1)
    return grpo("micro_janus", reward=JudgedTextReward(judge, **settings), level="process")


def test_training_goes_on_and_counts():
    with serving(*GOLDEN, *MISBEHAVIOUR * 20) as server:
        metrics = run(judged(server, failure_limit=1.0), batches=3).callback_metrics
        asked = len(server.asked) - len(GOLDEN)
    assert asked >= len(MISBEHAVIOUR)
    counted = {name.removeprefix("brightness_"): float(n) for name, n in metrics.items()}
    kinds = ("garbage", "server", "connection", "timeout", "length", "refused")
    assert all(counted[f"judge_failed_{kind}"] >= 1 for kind in kinds)
    assert 0.5 < counted["unanswered_share"] < 1
    assert metrics["brightness"] <= 0.4, "nothing that was not scored is worth anything"


def test_a_judge_that_stays_away_ends_it():
    with (
        serving(*GOLDEN, fails(503)) as server,
        pytest.raises(RewardError, match=r"more than failure_limit=0\.2; .* status 503"),
    ):
        run(judged(server, failure_window=10))
