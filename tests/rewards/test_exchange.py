"""One request: bounded in time and size, whatever the server does."""

import socket
import threading
import time

import pytest

from tests.rewards.chat_server import drips, fails, hangs_up, never_ends, says, serving, sleeps
from unified_rl.core.errors import ConfigError
from unified_rl.rewards.exchange import (
    Address,
    ExchangeError,
    ExchangeTimeoutError,
    ReplySizeError,
    exchange,
)


def asked(server, timeout_s=5.0, most_bytes=1 << 20):
    address = Address.parse(server.url, "url")
    return exchange(address, "POST", "/chat/completions", timeout_s, most_bytes, b"{}")


def test_a_whole_reply():
    with serving(fails(404, b"gone", Retry_After="3")) as server:
        reply = asked(server)
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (404, b"gone", "3")


@pytest.mark.parametrize("act", [sleeps, drips])
def test_time_is_total(act):
    """Dripping takes 3 s in steps of 0.05 s: each read is quick, the whole is not."""
    started = time.monotonic()
    with serving(act) as server, pytest.raises(ExchangeTimeoutError, match=r"within 0\.3 s"):
        asked(server, timeout_s=0.3)
    assert time.monotonic() - started < 1.5


def test_headers_that_drip_are_cut_off_too():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                    for _ in range(60):
                        connection.sendall(b"x")
                        time.sleep(0.05)
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        address = Address.parse(f"http://127.0.0.1:{listener.getsockname()[1]}", "url")
        started = time.monotonic()
        with pytest.raises(ExchangeTimeoutError):
            exchange(address, "GET", "/", 0.3, 10)
        assert time.monotonic() - started < 1.5
        thread.join()


def test_a_body_that_never_ends_is_left():
    with serving(never_ends) as server, pytest.raises(ReplySizeError, match="more than 100000 "):
        asked(server, most_bytes=100_000)


def test_a_body_of_just_the_limit_is_whole():
    with serving(fails(200, b"x" * 1000)) as server:
        assert len(asked(server, most_bytes=1000).body) == 1000
        with pytest.raises(ReplySizeError):
            asked(server, most_bytes=999)


@pytest.mark.parametrize("act", [hangs_up, fails(200, b"short", Content_Length="100")])
def test_half_a_reply_is_none(act):
    with serving(act) as server, pytest.raises(ExchangeError) as caught:
        asked(server)
    assert not isinstance(caught.value, ExchangeTimeoutError)


def test_what_is_no_http_is_not_repeated():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"secret SSH-2.0\r\n\r\n")
                connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        address = Address.parse(f"http://127.0.0.1:{listener.getsockname()[1]}", "url")
        with pytest.raises(ExchangeError) as caught:
            exchange(address, "GET", "/", 2, 10)
        thread.join()
    assert "secret" not in str(caught.value)


def test_a_redirect_is_not_followed():
    with serving(says("never")) as other:
        with serving(fails(307, b"", Location=other.url)) as server:
            assert asked(server).status == 307
        assert other.asked == []


def test_who_speaks_no_tls_is_not_spoken_to():
    with serving(says("never")) as server:
        address = Address.parse(server.url.replace("http:", "https:"), "url")
        with pytest.raises(ExchangeError, match="SSL"):
            exchange(address, "POST", "/", 2, 10, b"secret")
        assert server.asked == []


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ExchangeError, match="Connection refused"):
        exchange(Address.parse(f"http://127.0.0.1:{port}", "url"), "GET", "/", 2, 10)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/v1", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"),
        ("host:8000/v1", "must begin with http"),
        ("http:///v1", "scheme://host:port/path"),
        ("http://host:0/v1", "scheme://host:port/path"),
        ("http://host:99999/v1", "is no URL"),
        ("http://a..b/v1", "is no URL"),
        (f"http://{'a' * 64}/v1", "is no URL"),
        ("http://[::1/v1", "is no URL"),
        ("http://host/v1?key=1", "scheme://host:port/path"),
        ("http://user:secret@host/v1", "keys come from the environment"),
        ("http://host/v1\r\nX: y", "no URL has"),
        ("http://höst/v1", "no URL has"),
    ],
)
def test_urls_that_are_refused(url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Address.parse(url, "base_url")
    assert "secret" not in str(caught.value)


def test_urls_that_are_read():
    assert Address.parse("https://api.host/v1/", "url") == (True, "api.host", 443, "/v1")
    assert Address.parse("http://[::1]:81", "url") == (False, "::1", 81, "")
