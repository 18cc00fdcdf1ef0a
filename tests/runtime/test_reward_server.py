"""A reward over HTTP: equal scores, hostile clients, ends and restarts."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch

from tests.rewards.cases import (
    BOTH,
    DRAWING_SAMPLE,
    END,
    FIRST,
    GOLD,
    ONE,
    QUESTION_SAMPLE,
    Given,
    rollout,
    scores,
    told,
)
from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.sample import Text
from unified_rl.core.trajectory import RewardScores
from unified_rl.rewards import remote
from unified_rl.rewards.clip_score import ClipScoreReward
from unified_rl.rewards.hybrid import HybridReward
from unified_rl.rewards.remote import MESSAGE_TYPE, RemoteReward
from unified_rl.rewards.specimens import clip_folder
from unified_rl.rewards.textual import TextualReward
from unified_rl.rewards.visual import VisualReward
from unified_rl.rewards.wire import pack_rollout
from unified_rl.runtime.reward_queue import BusyError, RewardQueue
from unified_rl.runtime.reward_server import CONNECTIONS, RewardServer

TOKEN = "0123456789abcdef"
STORIES = rollout([told(*GOLD, END), told(FIRST, ONE, END), told(FIRST), told()], group_size=2)


@contextmanager
def serving(rewards, prints=None, port=0, **settings):
    prints = prints or {name: f"print of {name}" for name in rewards}
    server = RewardServer(rewards, prints, port=port, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop(grace_s=2)


def asked(server, method, path, body=None, **headers):
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content


def same(found, expected):
    return all(
        (a is None) == (b is None)
        and (a is None or (a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()))
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("most_rows", [0, 64])
def test_scores_are_those_of_the_reward_itself(most_rows):
    rewards = {"visual": VisualReward(), "textual": TextualReward()}
    with serving(rewards, most_rows=most_rows) as server:
        for name, reward in rewards.items():
            there = RemoteReward(name, server.url)
            there.self_test()
            for asking in (
                STORIES,
                rollout([told(ONE)], DRAWING_SAMPLE),
                rollout([told(Text("left"))], QUESTION_SAMPLE),
            ):
                assert same(there(asking), reward(asking))


def test_scores_of_a_model_are_the_same_to_the_last_bit(tmp_path):
    reward = ClipScoreReward(str(clip_folder(tmp_path)), batch_size=2)
    asking = rollout([told(ONE), told(BOTH), told(), told(ONE)], DRAWING_SAMPLE, 4)
    with serving({"clip_score": reward}) as server:
        found = RemoteReward("clip_score", server.url)(asking)
    assert same(found, reward(asking))
    assert found.outcome[0] != found.outcome[1]


def test_one_request_a_rollout():
    reward = Given(scores([0.5] * 4))
    with serving({"given": reward}) as server:
        there = RemoteReward("given", server.url)
        for _ in range(3):
            there(STORIES)
    assert reward.calls == 3


class Counting(VisualReward):
    def counts(self):
        return {"unanswered": 3.0}


def test_what_a_reward_counts_is_logged_by_the_trainer():
    with serving({"visual": Counting()}) as server:
        hybrid = HybridReward({"remote": RemoteReward("visual", server.url)})
        metrics = hybrid.metrics(hybrid(STORIES))
    assert metrics["remote_unanswered"] == 3


def test_health():
    with serving({"visual": VisualReward()}) as server:
        status, content = asked(server, "GET", "/health")
    assert status == 200
    assert json.loads(content) == {
        "status": "ok",
        "version": 1,
        "rewards": {"visual": "print of visual"},
    }


GOOD = {"Content_Type": MESSAGE_TYPE}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "reason"),
    [
        ("GET", "/", None, {}, 404, "/health only"),
        ("GET", "/../../etc/passwd", None, {}, 404, "/health only"),
        ("POST", "/score/other", b"x", GOOD, 404, "known: visual"),
        ("POST", "/score/visual/x", b"x", GOOD, 404, "known: visual"),
        ("POST", "/exec/visual", b"x", GOOD, 404, "known: visual"),
        ("POST", "/score/visual", b"x", {}, 415, "octet-stream"),
        ("POST", "/score/visual", b"x", {"Content_Type": "text/plain"}, 415, "octet-stream"),
        ("POST", "/score/visual", iter([b"x"]), GOOD, 411, "must be stated"),
        ("POST", "/score/visual", b"x", GOOD | {"Content_Length": "-1"}, 411, "must be stated"),
        ("POST", "/score/visual", b"x", GOOD | {"Content_Length": "1e3"}, 411, "must be stated"),
        ("POST", "/score/visual", b"x", GOOD | {"Content_Length": "9" * 15}, 413, "raise it"),
        ("POST", "/score/visual", b"x" * 3_000_000, GOOD, 413, "the limit is 1048576"),
        ("POST", "/score/visual", b"garbage", GOOD, 400, "no safetensors"),
        ("POST", "/score/visual", b"", GOOD, 400, "no safetensors"),
    ],
)
def test_requests_that_are_refused(method, path, body, headers, status, reason):
    with serving({"visual": VisualReward()}, body_limit_mb=1) as server:
        found, content = asked(server, method, path, body, **headers)
        assert found == status
        assert reason in json.loads(content)["error"]
        assert same(RemoteReward("visual", server.url)(STORIES), VisualReward()(STORIES))


def test_other_methods_are_unknown():
    with serving({"visual": VisualReward()}) as server:
        assert asked(server, "DELETE", "/score/visual")[0] == 501


def test_without_the_token_nothing_is_told(monkeypatch):
    monkeypatch.setenv("REWARD_TOKEN", TOKEN)
    with serving({"visual": VisualReward()}, token_variable="REWARD_TOKEN") as server:
        for shown in ({}, {"Authorization": f"Bearer {TOKEN[:-1]}"}, {"Authorization": TOKEN}):
            for method, path in (("GET", "/health"), ("POST", "/score/visual")):
                status, content = asked(server, method, path, b"x", **GOOD, **shown)
                assert status == 401
                assert b"print" not in content
        with pytest.raises(RewardError, match="wants its token"):
            RemoteReward("visual", server.url).self_test()
        with pytest.raises(RewardError, match="wants its token"):  # and is not waited for
            RemoteReward("visual", server.url)(STORIES)
        there = RemoteReward("visual", server.url, token_variable="REWARD_TOKEN")
        there.self_test()
        assert same(there(STORIES), VisualReward()(STORIES))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "reward-node", ""])
def test_others_are_let_in_with_a_token_only(host, monkeypatch):
    with pytest.raises(ConfigError, match="can be reached by others"):
        RewardServer({}, {}, host=host, port=0)
    monkeypatch.setenv("REWARD_TOKEN", "short")
    with pytest.raises(ConfigError, match="has 5 characters"):
        RewardServer({}, {}, host=host, port=0, token_variable="REWARD_TOKEN")


def test_with_a_token_any_address_will_do(monkeypatch):
    monkeypatch.setenv("REWARD_TOKEN", TOKEN)
    settings = {"host": "0.0.0.0", "token_variable": "REWARD_TOKEN"}
    with serving({"visual": VisualReward()}, **settings) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        RemoteReward("visual", url, token_variable="REWARD_TOKEN").self_test()


def test_a_port_that_is_taken():
    with serving({}) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"port={port} cannot be listened at"):
            RewardServer({}, {}, port=port)


def test_one_that_never_began_ends_too():
    RewardServer({}, {}, port=0).stop(grace_s=1)


def raw(server):
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.parametrize(
    "start",
    [
        b"POST /score/visual HTTP/1.1\r\n",  # headers that never end
        b"POST /score/visual HTTP/1.1\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Length: 1000\r\n\r\n",  # a body that never ends
    ],
)
def test_who_drips_is_cut_off(start):
    with serving({"visual": VisualReward()}, upload_timeout_s=0.4) as server, raw(server) as client:
        client.sendall(start)
        started = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken, as the system likes
            while time.monotonic() - started < 5:
                client.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() - started < 3
        assert asked(server, "GET", "/health")[0] == 200


def test_noise_and_hang_ups_do_no_harm():
    with serving({"visual": VisualReward()}, upload_timeout_s=2) as server:
        for noise in (b"", b"\x16\x03\x01\x02", b"GET", b"\r\n" * 50, b"x" * 100_000):
            with raw(server) as client:
                client.sendall(noise)
        assert asked(server, "GET", "/health")[0] == 200


def test_too_many_connections_are_hung_up_on():
    with serving({"visual": VisualReward()}, upload_timeout_s=5) as server:
        idle = [raw(server) for _ in range(CONNECTIONS)]
        time.sleep(0.2)
        with raw(server) as client:
            assert client.recv(1) == b""
        for client in idle:
            client.close()
        there = RemoteReward("visual", server.url, restart_wait_s=10)
        assert same(there(STORIES), VisualReward()(STORIES))


class Gate(Given):
    """Answers 0, 1, ... once it is let; fails where a sample is named so."""

    def __init__(self):
        super().__init__()
        self.sizes, self.let = [], threading.Event()

    def __call__(self, asking):
        assert self.let.wait(10)
        self.sizes.append(len(asking.samples))
        if any(not one.segments for one in asking.completions):
            raise ValueError("poison")
        steps = torch.full((len(asking.samples), 5), float("nan"))
        steps[:, 0] = 0.5
        return RewardScores(torch.arange(len(asking.samples)).float(), steps)


def waiting_for(queue, count):
    for _ in range(500):
        if len(queue._jobs) == count:
            return
        time.sleep(0.01)
    pytest.fail(f"{len(queue._jobs)} wait, not {count}")


def test_what_waits_together_is_scored_together():
    gate = Gate()
    queue = RewardQueue({"gate": gate}, most_rows=5, join_wait_s=0, most_waiting=9, retries=0)
    two, pairs = rollout([told(FIRST)] * 2), rollout([told(ONE)] * 2, group_size=2)
    first = queue.submit("gate", two)
    waiting_for(queue, 0)  # in hand
    asked = [queue.submit("gate", one) for one in (two, pairs, two, two)]
    gate.let.set()
    found = [future.result(5).scores for future in (first, *asked)]
    # alone; two that fit into five rows, past the one of another group size; that; the last
    assert gate.sizes == [2, 4, 2, 2]
    assert [scores.outcome.tolist() for scores in found] == [
        [0, 1],
        [0, 1],
        [0, 1],
        [2, 3],
        [0, 1],
    ]
    assert found[1].steps.tolist() == [[0.5], [0.5]]  # no wider than its own answers
    queue.close(1)


def test_nobody_fails_for_anothers_sake():
    gate = Gate()
    queue = RewardQueue({"gate": gate}, most_rows=9, join_wait_s=0, most_waiting=9, retries=0)
    good, poison = rollout([told(FIRST)]), rollout([told()])
    first = queue.submit("gate", good)
    waiting_for(queue, 0)
    asked = [queue.submit("gate", one) for one in (good, poison, good)]
    gate.let.set()
    for future in (first, asked[0], asked[2]):
        assert future.result(5).scores.outcome.tolist() == [0]
    with pytest.raises(RewardError, match="ValueError: poison"):
        asked[1].result(5)
    assert gate.sizes == [1, 3, 1, 1, 1]
    queue.close(1)


def test_a_full_queue_refuses_and_a_closed_one_too():
    gate = Gate()
    queue = RewardQueue({"gate": gate}, most_rows=0, join_wait_s=0, most_waiting=1, retries=0)
    one = rollout([told(FIRST)])
    first = queue.submit("gate", one)
    waiting_for(queue, 0)
    second = queue.submit("gate", one)
    with pytest.raises(BusyError):
        queue.submit("gate", one)
    queue.close(0.1)
    with pytest.raises(BusyError):
        second.result(5)
    gate.let.set()
    assert first.result(5).scores.outcome.tolist() == [0]
    with pytest.raises(BusyError):
        queue.submit("gate", one)


def test_what_is_in_hand_is_finished():
    gate = Gate()
    with serving({"gate": gate}) as server:
        found = []
        there = RemoteReward("gate", server.url, restart_wait_s=0)
        client = threading.Thread(target=lambda: found.append(there(rollout([told(FIRST)]))))
        client.start()
        time.sleep(0.3)
        threading.Timer(0.2, gate.let.set).start()
        server.stop(grace_s=5)
        client.join(5)
    assert found[0].outcome.tolist() == [0]


class Failing(Given):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def __call__(self, asking):
        raise self.error

    def self_test(self):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RewardError("one line\nanother"), "one line another"),
        (ValueError("broken\x1b[2J"), "ValueError: broken"),
        (MemoryError(), "runs out of memory on a single completion"),
    ],
)
def test_a_reward_that_fails_there_fails_here(error, said):
    with serving({"failing": Failing(error)}, retries=0) as server:
        there = RemoteReward("failing", server.url)
        with pytest.raises(RewardError) as caught:
            there(rollout([told(FIRST)]))
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
        with pytest.raises(RewardError):
            there.self_test()


def test_a_server_of_other_rewards_is_refused():
    with serving({"visual": VisualReward()}) as server:
        with pytest.raises(RewardError, match="serves no reward 'textual', but 'visual'"):
            RemoteReward("textual", server.url).self_test()
        with pytest.raises(RewardError, match="known: visual"):
            RemoteReward("textual", server.url)(STORIES)
        pinned = RemoteReward("visual", server.url, fingerprint="abc")
        with pytest.raises(RewardError, match="'print of visual', not 'abc'"):
            pinned(STORIES)


def test_a_slow_server_is_given_up():
    gate = Gate()
    with serving({"gate": gate}) as server:
        started = time.monotonic()
        with pytest.raises(RewardError, match=r"within 0\.3 s; raise reward\.\*\.timeout_s"):
            RemoteReward("gate", server.url, timeout_s=0.3)(STORIES)
        assert time.monotonic() - started < 2
        gate.let.set()


def test_a_server_that_stays_away(caplog):
    with serving({}) as server:
        url = server.url
    with pytest.raises(RewardError, match=r"has been away for .* raise restart_wait_s"):
        RemoteReward("visual", url, restart_wait_s=0.5)(STORIES)
    assert "waiting 0.5 s for it" in caplog.text
    with pytest.raises(RewardError, match="away for 0 s"):
        RemoteReward("visual", url, restart_wait_s=0)(STORIES)


SLOW = """
import sys, time
from pathlib import Path
from unified_rl.rewards.visual import VisualReward
from unified_rl.runtime.reward_server import RewardServer
class Slow(VisualReward):
    def __call__(self, rollout):
        Path(sys.argv[1]).touch()
        time.sleep(60)
server = RewardServer({"visual": Slow()}, {"visual": "a"}, port=0)
server.start()
print(server.url, flush=True)
time.sleep(60)
"""


def test_a_server_killed_in_the_middle_is_waited_for(tmp_path, caplog):
    marker = tmp_path / "scoring"
    first = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(marker)], stdout=subprocess.PIPE, text=True
    )
    url = first.stdout.readline().strip()
    found = []
    there = RemoteReward("visual", url, restart_wait_s=60)
    trainer = threading.Thread(target=lambda: found.append(there(STORIES)))
    trainer.start()
    while not marker.exists():
        time.sleep(0.01)
    first.kill()
    first.communicate()
    port = int(url.rpartition(":")[2])
    with serving({"visual": VisualReward()}, {"visual": "a"}, port=port):
        trainer.join(30)
    assert same(found[0], VisualReward()(STORIES))
    assert "is away" in caplog.text
    assert "is back after" in caplog.text
    other = {"visual": "b"}  # with other settings
    with (
        serving({"visual": VisualReward()}, other, port=port),
        pytest.raises(RewardError, match="fingerprint 'b', not 'a'; start the server as before"),
    ):
        there(STORIES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1}, "weight=-1"),
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"restart_wait_s": -1}, "restart_wait_s=-1"),
        ({"reward": "../x"}, "no name of a reward"),
        ({"url": "unix:///x"}, "must begin with http"),
        ({"token_variable": "NO_SUCH_TOKEN"}, "NO_SUCH_TOKEN is not set"),
    ],
)
def test_settings_of_a_remote_reward(settings, message):
    with pytest.raises(ConfigError, match=message):
        RemoteReward(**({"reward": "visual"} | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"body_limit_mb": 0}, "body_limit_mb=0"),
        ({"upload_timeout_s": 0}, "upload_timeout_s=0"),
        ({"most_rows": -1}, "most_rows=-1"),
        ({"most_waiting": 0}, "most_waiting=0"),
        ({"port": 99999}, "port=99999"),
    ],
)
def test_settings_of_the_server(settings, message):
    with pytest.raises(ConfigError, match=message):
        RewardServer({}, {}, **({"port": 0} | settings))


def test_something_else_that_answers(monkeypatch):
    from tests.rewards.chat_server import fails, never_ends
    from tests.rewards.chat_server import serving as chatting

    for act, message in (
        (fails(200, b"<html>", X_Reward_Fingerprint="a"), "sent scores no safetensors"),
        (fails(200, b"x"), "serves another reward"),
        (fails(302, b"", Location="http://127.0.0.1:1"), "status 302"),
        (fails(400, b"[" * 100_000), "status 400"),
        (fails(400, b'{"error": "' + b"x" * 10**5 + b'"}'), "status 400"),
    ):
        with chatting(act) as server:
            port = server.server_port
            with pytest.raises(RewardError, match=message) as caught:
                RemoteReward("visual", f"http://127.0.0.1:{port}", restart_wait_s=0)(STORIES)
            assert len(str(caught.value)) < 1000
    monkeypatch.setattr(remote, "SCORES_BYTES", 1 << 17)
    with chatting(never_ends) as server, pytest.raises(RewardError, match="more than 131072"):
        RemoteReward("visual", f"http://127.0.0.1:{server.server_port}")(STORIES)


def test_a_message_is_not_much_larger_than_its_pictures():
    assert len(pack_rollout(STORIES)) < 5000 + sum(
        image.nbytes for one in STORIES.completions for image in one.images
    )
