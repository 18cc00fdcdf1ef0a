"""Rollouts and scores as bytes: whole, exact, and safe to read from anybody."""

import json
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from tests.rewards.cases import (
    BOTH,
    DRAWING_SAMPLE,
    END,
    GOLD,
    ONE,
    QUESTION_SAMPLE,
    STORY_SAMPLE,
    told,
)
from unified_rl.core.sample import DrawnImage, Image, Sample, Task, Text
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.rewards.wire import (
    Scored,
    WireError,
    empty_trajectory,
    pack_rollout,
    pack_scored,
    unpack_rollout,
    unpack_scored,
)

CODES = DrawnImage(np.arange(6, dtype=np.int64).reshape(3, 2) - 2**40)
ODD = Sample(
    "odd \ud800 \x00 'id'",
    Task.TEXT,
    (CODES, Text("\ud800 ünd \u2028"), Image(np.zeros((1, 3, 3), np.uint8))),
    target=(BOTH, Text("")),
    facts={"a": [1, 0.1, None, True, {"b": "ü"}], "c": -0.0},
)
SAMPLES = (STORY_SAMPLE, STORY_SAMPLE, ODD, ODD)
COMPLETIONS = (told(*GOLD, END), told(finished=False), told(ONE, BOTH), told(Text("x"), CODES))
ROLLOUT = Rollout(SAMPLES, COMPLETIONS, empty_trajectory(4), 2)
MESSAGE = pack_rollout(ROLLOUT)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Text):
            assert one == other
        else:
            name = "pixels" if isinstance(one, Image) else "codes"
            assert np.array_equal(getattr(one, name), getattr(other, name))


def test_a_rollout_arrives_whole():
    found = unpack_rollout(MESSAGE)
    assert found.group_size == 2
    assert found.trajectory.row_count == 4
    assert found.samples[0] is found.samples[1], "a group has one sample"
    for one, other in zip(found.samples, SAMPLES, strict=True):
        assert (one.id, one.task) == (other.id, other.task)
        assert one.facts == json.loads(json.dumps(dict(other.facts)))
        assert_same(one.prompt, other.prompt)
        assert_same(one.target, other.target)
    for one, other in zip(found.completions, COMPLETIONS, strict=True):
        assert one.finished is other.finished
        assert_same(one.segments, other.segments)
    found.completions[0].images[0][0, 0, 0] = 1  # writable, as elsewhere


def test_a_picture_shown_twice_is_sent_once():
    twice = pack_rollout(Rollout((DRAWING_SAMPLE,) * 2, (told(ONE),) * 2, empty_trajectory(2), 2))
    once = pack_rollout(Rollout((DRAWING_SAMPLE,), (told(ONE),), empty_trajectory(1), 1))
    assert len(twice) - len(once) < ONE.pixels.nbytes


def test_facts_must_be_json():
    for fact in ({1, 2}, math.nan, b"x", object()):
        sample = Sample("s", Task.TEXT, (), facts={"fact": fact})
        with pytest.raises(WireError, match="facts that are not JSON"):
            pack_rollout(Rollout((sample,), (told(),), empty_trajectory(1), 1))


@pytest.mark.parametrize(
    "scores",
    [
        RewardScores(torch.tensor([0.1, -0.0, math.nan, math.inf, 1e-45])),
        RewardScores(torch.zeros(2), torch.tensor([[0.1, math.nan], [1 / 3, -math.inf]])),
        RewardScores(torch.zeros(2), torch.zeros(2, 0), torch.tensor([True, False])),
    ],
)
def test_scores_arrive_to_the_last_bit(scores):
    found, counts = unpack_scored(pack_scored(Scored(scores, {"a": 1 / 3})), len(scores.outcome))
    assert counts == {"a": 1 / 3}
    for one, other in zip(found, scores, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.numpy().tobytes() == other.numpy().tobytes()


def test_scores_of_others_are_refused():
    message = pack_scored(Scored(RewardScores(torch.zeros(3)), {}))
    with pytest.raises(WireError, match=r"outcome float32 \(3,\) for 2 completions"):
        unpack_scored(message, 2)
    for tensors in (
        {},
        {"outcome": np.zeros(2)},
        {"outcome": np.zeros((2, 1), np.float32)},
        {"outcome": np.zeros(2, np.float32), "judged": np.zeros(2, np.float32)},
        {"outcome": np.zeros(2, np.float32), "steps": np.zeros(2, np.float32)},
    ):
        with pytest.raises(WireError):
            unpack_scored(save(tensors | said({"counts": {}})), 2)


def said(content):
    return {"json": np.frombuffer(json.dumps(content).encode(), np.uint8)}


@pytest.mark.parametrize(
    "counts",
    [
        None,
        [],
        {"a b": 1.0},
        {"a": "1"},
        {"a": True},
        {"a": math.inf},
        {f"a{n}": 0.0 for n in range(101)},
    ],
    ids=str,
)
def test_counts_are_a_few_numbers_by_name(counts):
    outcome = {"outcome": np.zeros(2, np.float32)}
    assert unpack_scored(save(outcome | said({"counts": {"a": 2.0}})), 2).counts == {"a": 2}
    with pytest.raises(WireError):
        unpack_scored(save(outcome | said({"counts": counts})), 2)


def changed(**changes):
    tensors = load(MESSAGE)
    content = json.loads(tensors["json"].tobytes())
    for path, value in changes.items():
        *way, last = path.split("__")
        place = content
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[int(last) if last.isdigit() else last] = value
    tensors["json"] = np.frombuffer(json.dumps(content).encode(), np.uint8)
    return save(tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": "x" * 10**6},
        {"group_size": 3},
        {"group_size": 0},
        {"group_size": True},
        {"group_size": 2.0},
        {"rows": []},
        {"rows": [0, 0, 1]},
        {"rows": [0, 0, 1, 9]},
        {"rows": [0, 0, 1, -1]},
        {"rows": [0, 0, 1, "1"]},
        {"rows": {"0": 0}},
        {"rows": 4},
        {"rows": [0] * (1 << 16) + [0]},
        {"samples": None},
        {"samples__0": "x"},
        {"samples__0__id": 3},
        {"samples__0__task": "sing"},
        {"samples__0__task": ["text"]},
        {"samples__0__facts": []},
        {"samples__0__prompt": [{}]},
        {"samples__0__prompt": [{"text": 1}]},
        {"samples__0__prompt": [{"text": "a", "pixels": "b"}]},
        {"samples__0__prompt": [{"path": "/etc/passwd"}]},
        {"samples__0__prompt": [{"pixels": "json"}]},
        {"samples__0__prompt": [{"pixels": "missing"}]},
        {"samples__0__prompt": [{"pixels": ["a"]}]},
        {"samples__0__prompt": ["text"]},
        {"completions__0__finished": 1},
        {"completions__0__segments": 7},
    ],
    ids=str,
)
def test_other_contents_are_refused(changes):
    with pytest.raises(WireError) as caught:
        unpack_rollout(changed(**changes))
    assert len(str(caught.value)) < 200


def test_the_unchanged_message_is_read():
    assert unpack_rollout(changed(group_size=4)).group_size == 4


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00" * 100,
        b"\xff" * 100,
        pickle.dumps(Bomb()),
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        save({"json": np.frombuffer(b"[" * 10**6, np.uint8)}),
        save({"json": np.frombuffer(b"{}", np.uint8)}),
        save({"json": np.frombuffer(b"[]", np.uint8)}),
        save({"json": np.frombuffer(b"\xff\xfe", np.uint8)}),
        save({"json": np.zeros((0,), np.float32)}),
        save({"else": np.zeros(1)}),
    ],
    ids=range(12),
)
def test_other_bytes_are_refused(message):
    with pytest.raises(WireError):
        unpack_rollout(message)
    with pytest.raises(WireError):
        unpack_scored(message, 1)


@settings(max_examples=60)
@given(st.integers(0, len(MESSAGE) - 1), st.binary(min_size=1, max_size=20), st.booleans())
def test_damage_is_refused_or_harmless(place, junk, cut):
    damaged = MESSAGE[:place] if cut else MESSAGE[:place] + junk + MESSAGE[place + len(junk) :]
    try:
        found = unpack_rollout(damaged)
    except WireError:
        return
    assert not cut
    assert found.trajectory.row_count == 4


def test_questions_and_drawings_arrive_too():
    for sample in (QUESTION_SAMPLE, DRAWING_SAMPLE):
        found = unpack_rollout(pack_rollout(Rollout((sample,), (told(),), empty_trajectory(1), 1)))
        assert found.samples[0].facts == dict(sample.facts)
