"""A judge over HTTP: what it is sent, what is tried again, what is counted, what is paid."""

import base64
import io
import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.rewards.chat_server import (
    chat,
    drips,
    echoes_headers,
    fails,
    hangs_up,
    never_ends,
    says,
    serving,
    sleeps,
)
from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Image, Text
from unified_rl.rewards import chat_endpoint
from unified_rl.rewards.chat_endpoint import ChatEndpoint, retry_after
from unified_rl.rewards.exchange import Reply
from unified_rl.rewards.judging import JudgeQuestion
from unified_rl.rewards.reply_cache import ReplyCache

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
SEEN = JudgeQuestion((Image(PIXELS), Text("what is it?")), "you judge")


def question(words="well?"):
    return JudgeQuestion((Text(words),))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(chat_endpoint, "FIRST_PAUSE_S", 0.01)


def judge(server, **settings):
    return ChatEndpoint(server.url, "critic", **settings)


def failures(endpoint):
    counts = endpoint.counts()
    return {k.removeprefix("failed_"): n for k, n in counts.items() if n and k.startswith("failed")}


def test_what_is_sent():
    with serving(says("fine")) as server:
        endpoint = judge(server, max_tokens=7)
        assert endpoint.ask([SEEN]) == ["fine"]
    assert server.paths == ["/v1/chat/completions"]
    (asked,) = server.asked
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("critic", 0.0, 7)
    system, user = asked["messages"]
    assert system == {"role": "system", "content": "you judge"}
    picture, words = user["content"]
    assert words == {"type": "text", "text": "what is it?"}
    kind, _, data = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    shown = np.asarray(PillowImage.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(shown, PIXELS)
    assert "Authorization" not in server.headers[0]
    counts = {"questions": 1, "cached": 0, "requests": 1, "retries": 0, "tokens": 10}
    assert {k: n for k, n in endpoint.counts().items() if not k.startswith("failed")} == counts


def test_settings_that_some_endpoints_want():
    with serving(says("fine")) as server:
        judge(server, temperature=None, limit_name="max_completion_tokens").ask([question()])
    assert "temperature" not in server.asked[0]
    assert server.asked[0]["max_completion_tokens"] == 512


def test_the_key_is_sent_and_never_told(monkeypatch, caplog, tmp_path):
    key = "sk-abcdefghijklmnopqrstuvwxyz"
    monkeypatch.setenv("JUDGE_KEY", key)
    with serving(echoes_headers) as server, caplog.at_level(logging.DEBUG):
        endpoint = judge(server, key_variable="JUDGE_KEY", cache=str(tmp_path / "c.sqlite"))
        assert endpoint.ask([question()]) == [None]
    assert server.headers[0]["Authorization"] == f"Bearer {key}"
    told = caplog.text + endpoint.tally.latest + str(endpoint.describe()) + repr(endpoint)
    assert "your key Bearer [key] is wrong" in told
    assert key not in told
    assert key.encode() not in (tmp_path / "c.sqlite").read_bytes()
    assert failures(endpoint) == {"refused": 1}
    assert endpoint.counts()["requests"] == 1  # another try mends no key


@pytest.mark.parametrize("value", ["", "sk\nX-Evil: 1", "sk-ä", "a b"])
def test_variables_that_hold_no_key(monkeypatch, value):
    monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(ConfigError, match="environment variable JUDGE_KEY") as caught:
        ChatEndpoint("http://localhost:1", "critic", key_variable="JUDGE_KEY")
    assert not value or value not in str(caught.value)


GARBAGE = [
    b"",
    b"<html>busy</html>",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"choices": []}',
    b'{"choices": {"0": 1}}',
    b'{"choices": [{"message": null, "finish_reason": "stop"}]}',
    b"[" * 100_000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b"\xff\xfe\x00",
    chat(None),
    chat(""),
    chat(" \n"),
    chat(["Score: 100"]),
    chat({"text": "Score: 100"}),
    chat("\ud800"),
    chat("x" * 100_001),
]


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_reply(body, tmp_path):
    with serving(fails(200, body)) as server:
        endpoint = judge(server, cache=str(tmp_path / "c.sqlite"))
        assert endpoint.ask([question()]) == [None]
        assert failures(endpoint) == {"garbage": 1}
        endpoint.ask([question()])  # and is not kept
        assert len(server.asked) == 2


@pytest.mark.parametrize("end", ["length", "content_filter", None, 3, "a b\n"])
def test_what_is_cut_off_is_no_reply(end):
    with serving(says("Score: 10", finish_reason=end)) as server:  # of "Score: 100"
        endpoint = judge(server)
        assert endpoint.ask([question()]) == [None]
    assert failures(endpoint) == {"length": 1}


@pytest.mark.parametrize("act", [sleeps, drips])
def test_a_slow_endpoint_costs_its_time_and_no_more(act):
    with serving(act) as server:
        endpoint = judge(server, timeout_s=0.2, attempts=2, in_flight=4)
        started = time.monotonic()
        assert endpoint.ask([question(str(n)) for n in range(4)]) == [None] * 4
        assert time.monotonic() - started < 2.5  # two attempts of 0.2 s, all at once
    assert failures(endpoint) == {"timeout": 4}
    assert endpoint.counts()["retries"] == 4


def test_an_endless_reply_is_garbage():
    with serving(never_ends) as server:
        endpoint = judge(server)
        assert endpoint.ask([question()]) == [None]
    assert failures(endpoint) == {"garbage": 1}
    assert endpoint.counts()["requests"] == 1


@pytest.mark.parametrize("act", [hangs_up, fails(500), fails(503), fails(429)])
def test_what_passes_is_tried_again(act):
    with serving(act, act, says("fine")) as server:
        endpoint = judge(server)
        assert endpoint.ask([question()]) == ["fine"]
    assert failures(endpoint) == {}
    assert endpoint.counts()["retries"] == 2


@pytest.mark.parametrize(("act", "kind"), [(hangs_up, "connection"), (fails(500), "server")])
def test_what_does_not_pass_is_given_up(act, kind):
    with serving(act) as server:
        endpoint = judge(server, attempts=3)
        assert endpoint.ask([question()]) == [None]
        assert len(server.asked) == 3
    assert failures(endpoint) == {kind: 1}


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 418])
def test_what_no_further_attempt_mends(status):
    with serving(says("never")) as other:
        with serving(fails(status, Location=other.url)) as server:
            endpoint = judge(server)
            assert endpoint.ask([question()]) == [None]
            assert len(server.asked) == 1
        assert other.asked == []
    assert failures(endpoint) == {"refused": 1}
    assert endpoint.tally.latest == f"status {status}: no"


def test_retry_after_is_waited_for_by_all():
    with serving(fails(429, Retry_After="1"), says("fine")) as server:
        endpoint = judge(server, in_flight=1)
        started = time.monotonic()
        assert endpoint.ask([question("a"), question("b")]) == ["fine", "fine"]
        assert time.monotonic() - started >= 1


def test_a_server_that_wants_to_be_left_alone_is():
    with serving(fails(429, Retry_After="86400")) as server:
        endpoint = judge(server)
        started = time.monotonic()
        assert endpoint.ask([question()]) == [None]
        assert time.monotonic() - started < 2
    assert failures(endpoint) == {"server": 1}


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("3", 3),
        (" 7 ", 7),
        ("", 0),
        ("-3", 0),
        ("soon", 0),
        ("١", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),  # long past
        ("9" * 5000, 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_what_retry_after_may_be(said, seconds):
    assert retry_after(Reply(429, {"retry-after": said}, b"")) == seconds


def test_so_many_at_once_and_in_order():
    active, most, lock = [0], [0], threading.Lock()

    def act(handler):
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.05)
        with lock:
            active[0] -= 1
        handler.say(200, chat("fine"))

    with serving(act) as server:
        endpoint = judge(server, in_flight=3)
        assert endpoint.ask([question(str(n)) for n in range(9)]) == ["fine"] * 9
    assert most[0] == 3
    assert endpoint.ask([]) == []


def test_replies_stand_where_their_questions_do():
    def act(handler):
        with handler.server.lock:
            words = [asked["messages"][0]["content"][0]["text"] for asked in handler.server.asked]
        time.sleep(0.02)
        handler.say(200, chat(f"re {words[-1]}"))

    with serving(act) as server:
        asked = ["a", "b", "a", "c"]
        endpoint = judge(server, in_flight=1)
        assert endpoint.ask([question(words) for words in asked]) == [
            "re a",
            "re b",
            "re a",
            "re c",
        ]
        assert len(server.asked) == 3  # equal questions are asked once


def test_the_budget_of_requests_ends_in_counts(caplog):
    with serving(says("fine")) as server:
        endpoint = judge(server, request_budget=2, in_flight=1)
        replies = endpoint.ask([question(str(n)) for n in range(5)])
        assert replies == ["fine", "fine", None, None, None]
        assert len(server.asked) == 2
    assert failures(endpoint) == {"budget": 3}
    assert caplog.text.count("budget is spent") == 1


def test_retries_are_paid_for_too():
    with serving(fails(500)) as server:
        endpoint = judge(server, request_budget=2, attempts=4)
        assert endpoint.ask([question()]) == [None]
        assert len(server.asked) == 2
    assert failures(endpoint) == {"budget": 1}


@pytest.mark.parametrize(
    ("tokens", "answered"),
    # of a budget of 25: 10 + 10 + 10 is above it after three; uncounted replies count for
    # max_tokens=10 and 1 character each, which is 11 + 11 + 11
    [(10, 3), (None, 3), (-5, 3), (True, 3), ("9", 3), (25, 1)],
)
def test_the_budget_of_tokens(tokens, answered):
    with serving(says("fine", tokens=tokens)) as server:
        endpoint = judge(server, token_budget=25, max_tokens=10, in_flight=1)
        replies = endpoint.ask([question(str(n)) for n in range(5)])
    assert replies == ["fine"] * answered + [None] * (5 - answered)


def test_the_cache_outlives_the_judge(tmp_path):
    cache = str(tmp_path / "judges" / "c.sqlite")
    with serving(says("fine")) as server:
        assert judge(server, cache=cache).ask([question(), SEEN]) == ["fine", "fine"]
    with serving(says("other")) as server:  # another address, the same model
        again = judge(server, cache=cache, request_budget=1)
        assert again.ask([SEEN, question(), question("new")]) == ["fine", "fine", "other"]
        assert len(server.asked) == 1
        assert again.counts()["cached"] == 2
        # other settings are other questions
        assert judge(server, cache=cache, max_tokens=9).ask([question()]) == ["other"]
        darker = JudgeQuestion((Image(PIXELS // 2), *SEEN.parts[1:]), SEEN.instruction)
        assert judge(server, cache=cache).ask([darker]) == ["other"]


ASKING = """
import sys
from unified_rl.core.sample import Text
from unified_rl.rewards.chat_endpoint import ChatEndpoint
from unified_rl.rewards.judging import JudgeQuestion
from unified_rl.rewards.reply_cache import ReplyCache
url, cache, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
judge = ChatEndpoint(url, "critic", cache=cache, in_flight=1)
print("ready", flush=True)
for n in range(first, first + 1000):
    judge.ask([JudgeQuestion((Text(str(n)),))])
"""


def test_several_processes_and_kills_leave_the_cache_whole(tmp_path):
    cache = tmp_path / "c.sqlite"
    with serving(says("fine")) as server:
        command = [sys.executable, "-c", ASKING, server.url, str(cache)]
        processes = [
            subprocess.Popen([*command, str(first)], stdout=subprocess.PIPE)
            for first in (0, 500)  # which overlap
        ]
        for process in processes:
            process.stdout.readline()
        while len(server.asked) < 40:
            time.sleep(0.01)
        for process in processes:
            process.kill()
            process.communicate()
        paid = len(server.asked)
        endpoint = judge(server, cache=str(cache))
        whole = [body for body in server.asked if body]  # a killed asker may leave half of one
        asked = {body["messages"][0]["content"][0]["text"] for body in whole}
        endpoint.ask([question(words) for words in sorted(asked)])
        assert len(server.asked) <= paid + 2  # what each was killed in
    with sqlite3.connect(cache) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_many_may_make_the_cache_at_once(tmp_path):
    for attempt in range(10):
        start = threading.Barrier(8)

        def make(path=tmp_path / f"{attempt}.sqlite", start=start):
            start.wait()
            ReplyCache(str(path)).store(str(threading.get_ident()), "fine")

        with ThreadPoolExecutor(8) as pool:
            for made in [pool.submit(make) for _ in range(8)]:
                made.result()


def test_files_that_are_no_cache(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look like one " * 100)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    for path in (text, other, tmp_path):
        with pytest.raises(ConfigError, match="cache="):
            ChatEndpoint("http://localhost:1", "critic", cache=str(path))
    assert text.read_text().startswith("not a database")


def test_a_cache_that_breaks_costs_money_and_nothing_else(tmp_path, caplog):
    cache = tmp_path / "c.sqlite"
    with serving(says("fine")) as server:
        endpoint = judge(server, cache=str(cache))
        cache.write_bytes(b"broken " * 1000)
        assert endpoint.ask([question("a")]) == ["fine"]
        assert endpoint.ask([question("a")]) == ["fine"]
        assert len(server.asked) == 2
    assert caplog.text.count("replies are paid for again") == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "file:///etc"}, "must begin with http"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"attempts": 0}, "attempts=0"),
        ({"in_flight": 0}, "in_flight=0"),
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"timeout_s": float("nan")}, "timeout_s=nan"),
        ({"temperature": -1}, "temperature=-1"),
        ({"requests_per_minute": -1}, "requests_per_minute=-1"),
        ({"request_budget": -1}, "request_budget=-1"),
        ({"limit_name": "limit"}, "limit_name='limit'"),
        ({"key_variable": "NO_SUCH_KEY"}, "NO_SUCH_KEY is not set"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        ChatEndpoint(**({"base_url": "http://localhost:1", "model": "critic"} | settings))


def test_a_key_over_plain_http_is_warned_of(monkeypatch, caplog):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    ChatEndpoint("http://127.0.0.1:1", "critic", key_variable="JUDGE_KEY")
    ChatEndpoint("https://judge.example", "critic", key_variable="JUDGE_KEY")
    assert not caplog.text
    ChatEndpoint("http://judge.example", "critic", key_variable="JUDGE_KEY")
    assert "not https" in caplog.text
    assert "sk-secret" not in caplog.text


def test_it_says_what_it_is():
    described = ChatEndpoint("http://localhost:1/v1", "critic").describe()
    assert json.loads(json.dumps(described)) == {
        "judge": "ChatEndpoint",
        "base_url": "http://localhost:1/v1",
        "model": "critic",
        "max_tokens": 512,
        "temperature": 0.0,
    }
