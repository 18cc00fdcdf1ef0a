"""Rewards that fail: in halves where memory is short, again where that can help, and named."""

import logging
import math
import threading
import time

import pytest
import torch

from tests.rewards.cases import FIRST, GOLD, Given, rollout, scores, told
from unified_rl.core.errors import CapabilityError, DataError, RewardError
from unified_rl.core.trajectory import RewardScores
from unified_rl.rewards import attempts
from unified_rl.rewards.attempts import Attempts
from unified_rl.rewards.format import FormatReward
from unified_rl.rewards.hybrid import HybridReward

SIX = rollout([told(*GOLD), *[told(FIRST)] * 5], group_size=2)
"""Three groups of two; only the first completion has four segments, the others have one."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(attempts, "FIRST_PAUSE_S", 0.0)


class Hungry(FormatReward):
    """The format reward, for as many completions at once as memory holds."""

    def __init__(self, room, error=None):
        super().__init__()
        self.room, self.seen = room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def __call__(self, rollout):
        self.seen.append((len(rollout.samples), rollout.group_size))
        if len(rollout.samples) > self.room:
            raise self.error
        return super().__call__(rollout)


class Failing(Given):
    """Raises the given errors, one a call, and then scores."""

    def __init__(self, *errors):
        super().__init__(scores([1, 0]))
        self.errors = list(errors)

    def __call__(self, rollout):
        if self.errors:
            self.calls += 1
            raise self.errors.pop(0)
        return super().__call__(rollout)


PAIR = rollout([told(*GOLD), told(FIRST)], group_size=2)
OTHERS = rollout(
    [told(*GOLD), told(FIRST), told(*GOLD), told(FIRST), told(FIRST), told(FIRST)], group_size=2
)
"""Six completions, none of which is another's very self."""


class Held(Given):
    """Fails, the first time once it may, and then at the end."""

    def __init__(self):
        super().__init__(scores([1, 0]))
        self.is_asked, self.may_fail, self.is_over = (threading.Event() for _ in range(3))

    def __call__(self, rollout):
        self.calls += 1
        self.is_asked.set()
        assert (self.may_fail if self.calls == 1 else self.is_over).wait(20)
        raise ValueError("no")


# -- ahead of the rollout --------------------------------------------------------------------------


def test_parts_begun_ahead_are_the_scores_of_the_rollout():
    attempts, reward = Attempts(), Hungry(6)
    for rows in ([0, 1, 2, 3], [4, 5]):
        attempts.begin("format", reward, SIX.select(torch.tensor(rows), 1))
    found = attempts("format", reward, SIX)
    assert reward.seen == [(4, 1), (2, 1)]  # not asked again
    assert found.outcome.tolist() == [1, 0, 0, 0, 0, 0]
    assert found.steps.shape == (6, 4)


def test_parts_may_be_rows_of_the_rollout_in_any_order():
    attempts, reward = Attempts(), Hungry(6)
    for rows in ([4, 2], [5, 0, 1, 3]):
        attempts.begin("format", reward, OTHERS.select(torch.tensor(rows), 1))
    found = attempts("format", reward, OTHERS)
    assert reward.seen == [(2, 1), (4, 1)]
    assert found.outcome.tolist() == [1, 0, 1, 0, 0, 0]


def test_parts_of_which_the_rollout_has_only_some_are_forgotten():
    attempts, reward = Attempts(), Hungry(6)
    attempts.begin("format", reward, OTHERS.select(torch.tensor([0, 1, 2, 3]), 1))
    half = OTHERS.select(torch.tensor([0, 1]), 2)
    assert attempts("format", reward, half).outcome.tolist() == [1, 0]
    assert reward.seen == [(4, 1), (2, 2)]


@pytest.mark.parametrize("is_given_up", [True, False])
def test_after_a_failure_nothing_more_is_asked(is_given_up):
    attempts, held = Attempts(), Held()
    for rows in ([0, 1], [2, 3], [4, 5]):
        attempts.begin("critic", held, OTHERS.select(torch.tensor(rows), 1))
    assert held.is_asked.wait(20)
    if is_given_up:
        attempts.forget()
        held.may_fail.set()
        expected = 1
    else:
        threading.Timer(0.05, held.may_fail.set).start()
        with pytest.raises(RewardError, match="'critic' failed: ValueError: no"):
            attempts("critic", held, OTHERS)
        expected = 2  # the second part may begin before the first one's failure is read
    held.is_over.set()
    attempts._threads["critic"].shutdown()
    assert held.calls <= expected


def test_parts_of_a_rollout_that_was_given_up_are_forgotten():
    attempts, reward = Attempts(), Hungry(6)
    attempts.begin("format", reward, SIX.select(torch.tensor([0, 1]), 1))
    assert attempts("format", reward, PAIR).outcome.tolist() == [1, 0]
    assert reward.seen == [(2, 1), (2, 2)]


def test_a_part_with_too_few_scores_is_named():
    attempts, reward = Attempts(), Given(scores([1]))
    for rows in ([0, 1], [2, 3], [4, 5]):
        attempts.begin("critic", reward, OTHERS.select(torch.tensor(rows), 1))
    with pytest.raises(RewardError, match=r"'critic' gave outcomes of shape \(1,\) for 2 compl"):
        attempts("critic", reward, OTHERS)


def test_what_fails_ahead_is_named():
    attempts, reward = Attempts(), Failing(ValueError("no such host"))
    attempts.begin("critic", reward, PAIR)
    with pytest.raises(RewardError, match="'critic' failed: ValueError: no such host"):
        attempts("critic", reward, PAIR)


# -- memory ----------------------------------------------------------------------------------------


def same(one: RewardScores, other: RewardScores) -> bool:
    return all(
        torch.equal(a.nan_to_num(-7), b.nan_to_num(-7)) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    ("room", "seen"),
    [
        (6, [(6, 2)]),
        # three groups: one and two; then the two one by one
        (2, [(6, 2), (2, 2), (4, 2), (2, 2), (2, 2)]),
        (5, [(6, 2), (2, 2), (4, 2)]),
        # each group into single rows
        (1, [(6, 2), (2, 2), (1, 1), (1, 1), (4, 2), *[(2, 2), (1, 1), (1, 1)] * 2]),
    ],
)
def test_a_rollout_too_large_is_scored_in_halves(room, seen):
    whole, hungry = FormatReward()(SIX), Hungry(room)
    got = Attempts()("format", hungry, SIX)
    assert hungry.seen == seen
    assert got.steps.shape == (6, 4)  # as wide as the widest half
    assert same(got, whole)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        MemoryError(),
    ],
)
def test_memory_falls_short_in_many_words(error):
    assert same(Attempts()("format", Hungry(2, error), SIX), FormatReward()(SIX))


def test_a_single_completion_too_large_is_named_with_the_mend():
    with pytest.raises(
        RewardError, match=r"'critic' runs out of memory on a single .* 2 GiB.*a sm"
    ):
        Attempts()("critic", Hungry(0), SIX)


def test_halves_are_told_of_once(caplog):
    asked = Attempts()
    for _ in range(3):
        asked("format", Hungry(1), SIX)
    (message,) = caplog.messages
    assert "'format' ran out of memory on 6 completions" in message


def test_halves_without_steps_beside_halves_with_some():
    class Some:
        weight = 1.0

        def __call__(self, rollout):
            if len(rollout.samples) > 2:
                raise torch.OutOfMemoryError("out of memory")
            first = len(rollout.completions[0].segments) == 4
            steps = torch.tensor([[1.0, 2.0], [3.0, math.nan]]) if first else None
            judged = None if first else torch.tensor([False, True])
            return RewardScores(torch.tensor([5.0, 6.0]), steps, judged)

        def self_test(self):
            pass

    outcome, steps, judged = Attempts()("some", Some(), SIX)
    assert outcome.tolist() == [5, 6] * 3
    nan = math.nan
    want = [1, 2, 3, nan, *[nan] * 8]
    assert steps.flatten().tolist() == pytest.approx(want, nan_ok=True)
    assert judged.tolist() == [True, True, False, True, False, True]


def test_a_shortage_lets_go_of_what_was_too_much():
    # While the halves are scored, nothing of the failed call is alive.
    import weakref

    alive = []

    class Holding(FormatReward):
        def __call__(self, rollout):
            alive.append([ref for ref in kept if ref() is not None])
            if len(rollout.samples) > 2:
                large = torch.zeros(8)
                kept.append(weakref.ref(large))
                raise torch.OutOfMemoryError("out of memory")
            return super().__call__(rollout)

    kept: list = []
    Attempts()("format", Holding(), SIX)
    assert len(kept) == 2 and not any(alive)


# -- errors that pass ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("reset"), ConnectionError("reset"), TimeoutError()])
def test_what_may_pass_is_tried_again(error, caplog):
    reward = Failing(error, error)
    assert Attempts()("critic", reward, PAIR).outcome.tolist() == [1, 0]
    assert reward.calls == 3
    assert len(caplog.messages) == 2
    assert all(f"'critic' failed ({type(error).__name__}" in m for m in caplog.messages)


def test_pauses_grow(monkeypatch):
    slept = []
    monkeypatch.setattr(attempts, "FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr(time, "sleep", slept.append)
    Attempts(retries=3)("critic", Failing(*[OSError()] * 3), PAIR)
    assert slept == [0.5, 1.0, 2.0]


def test_what_does_not_pass_is_named_with_its_cause():
    cause = ConnectionError("no route\nto judge:8000")
    with pytest.raises(RewardError) as caught:
        Attempts(retries=1)("critic", Failing(cause, cause), PAIR)
    assert "'critic' failed 2 times in a row: ConnectionError: no route to judge:8000;" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is cause


def test_no_retry_is_a_choice():
    reward = Failing(OSError("x"))
    with pytest.raises(RewardError, match="1 times in a row"):
        Attempts(retries=0)("critic", reward, PAIR)
    assert reward.calls == 1


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("critic.safetensors"),
        ValueError("bad"),
        KeyError("x"),
        RuntimeError("nan"),
    ],
)
def test_what_another_try_does_not_mend_is_named_at_once(error):
    reward = Failing(error)
    with pytest.raises(RewardError, match=f"'critic' failed: {type(error).__name__}") as caught:
        Attempts()("critic", reward, PAIR)
    assert reward.calls == 1
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [DataError("row 3"), CapabilityError("no"), RewardError("gold")])
def test_what_a_reward_tells_its_user_is_left_alone(error):
    with pytest.raises(type(error)) as caught:
        Attempts()("critic", Failing(error), PAIR)
    assert caught.value is error


def test_a_reward_that_gives_no_scores_is_named():
    with pytest.raises(RewardError, match="'critic' failed: TypeError"):
        Attempts()("critic", Given(None), PAIR)


def test_an_interrupt_is_one():
    with pytest.raises(KeyboardInterrupt):
        Attempts()("critic", Failing(KeyboardInterrupt()), PAIR)


# -- time ------------------------------------------------------------------------------------------


def test_a_slow_reward_is_told_of_once_by_name(caplog):
    asked, reward = Attempts(slow_after_s=0.0), Given(scores([1, 0]))
    with caplog.at_level(logging.WARNING):
        asked("critic", reward, PAIR), asked("critic", reward, PAIR), asked("other", reward, PAIR)
    first, second = caplog.messages
    assert "'critic' took 0.0 s for 2 completions" in first and "'other'" in second


def test_a_fast_one_is_not(caplog):
    Attempts(slow_after_s=60.0)("critic", Given(scores([1, 0])), PAIR)
    assert not caplog.messages


def test_seconds_are_of_the_latest_rollout():
    class Sleeping(Given):
        def __call__(self, rollout):
            time.sleep(0.2 if self.calls == 0 else 0.0)
            return super().__call__(rollout)

    asked, reward = Attempts(), Sleeping(scores([1, 0]))
    asked("critic", reward, PAIR)
    assert 0.2 <= asked.seconds["critic"] < 5
    asked("critic", reward, PAIR)
    assert asked.seconds["critic"] < 0.2


# -- the whole -------------------------------------------------------------------------------------


def test_a_hybrid_reward_survives_what_passes_and_counts_it_once():
    hybrid = HybridReward({"format": Hungry(1), "critic": Failing(OSError("x"))})
    # The format of gold 1 and of a lone thought 0, plus 1 and 0.
    assert hybrid(PAIR).outcome.tolist() == [2, 0]


def test_a_hybrid_reward_gives_up_when_told_to():
    hybrid = HybridReward({"critic": Failing(OSError("x"))}, retries=0)
    with pytest.raises(RewardError, match="'critic'"):
        hybrid(PAIR)


def test_a_self_test_that_breaks_is_named():
    class Missing(Given):
        def self_test(self):
            raise FileNotFoundError("critic.safetensors")

    hybrid = HybridReward({"critic": Missing(scores([1, 0]))})
    with pytest.raises(RewardError, match="'critic' fails its self-test: FileNotFoundError: crit"):
        hybrid.self_test()
