"""Rewards over HTTP, for trainers whose GPUs have no room for them.

    GET  /health             JSON: which rewards there are, with their fingerprints
    POST /score/<name>       a rollout, see `wire`; the scores
    POST /self_test/<name>   empty; empty if the reward passes

Errors are JSON with a key "error". Statuses: 400 not a rollout, 401 no or another token, 404 no
such reward, 411 and 413 a body of unknown size or too large, 415 another content type (so that no
web page can post here), 422 the reward failed, 503 too much waits or the server ends.
"""

import hmac
import ipaddress
import json
import logging
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from unified_rl.core.errors import ConfigError, UserError
from unified_rl.core.protocols import Reward
from unified_rl.rewards.chat_endpoint import read_key
from unified_rl.rewards.remote import FINGERPRINT_HEADER, MESSAGE_TYPE
from unified_rl.rewards.wire import VERSION, WireError, pack_scored, unpack_rollout
from unified_rl.runtime.reward_queue import BusyError, RewardQueue

CONNECTIONS = 64
"""At once; further ones are hung up on."""
LEAST_TOKEN = 16
_LINGER_S = 2.0
_log = logging.getLogger(__name__)


class RewardServer:
    """Listens from its construction on, and serves from `start` to `stop`.

    Args:
        rewards: by name.
        fingerprints: of the same, see `RemoteReward`.
        host: address to listen at; one that others can reach needs a token.
        port: 0 takes any that is free.
        token_variable: environment variable that holds the token which clients must show; None
            asks for none.
        body_limit_mb: MiB of a rollout.
        upload_timeout_s: for a request to arrive as a whole.
        most_rows, join_wait_s, most_waiting, retries: see `RewardQueue`.

    Raises:
        ConfigError: a setting out of its range, an address that is not there or taken, or one that
            others can reach without a token.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        fingerprints: Mapping[str, str],
        host: str = "127.0.0.1",
        port: int = 8600,
        token_variable: str | None = None,
        body_limit_mb: int = 1024,
        upload_timeout_s: float = 120.0,
        most_rows: int = 0,
        join_wait_s: float = 0.02,
        most_waiting: int = 64,
        retries: int = 2,
    ) -> None:
        if not 0 < upload_timeout_s <= threading.TIMEOUT_MAX or body_limit_mb < 1:
            raise ConfigError(
                f"upload_timeout_s={upload_timeout_s}, body_limit_mb={body_limit_mb} must be above "
                "0 and at least 1"
            )
        self.token = _token(host, token_variable)
        self.fingerprints = dict(fingerprints)
        self.body_limit, self.upload_timeout_s = body_limit_mb << 20, upload_timeout_s
        self.queue = RewardQueue(rewards, most_rows, join_wait_s, most_waiting, retries)
        try:
            self._listener = _Listener(self, host, port)
        except (OSError, OverflowError) as error:
            self.queue.close(0)
            raise ConfigError(
                f"host={host}, port={port} cannot be listened at ({error}); choose another port"
            ) from error
        self._thread = threading.Thread(target=self._listener.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._listener.server_address[:2]
        return f"http://{f'[{host}]' if ':' in str(host) else host}:{port}"

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Takes no further request, finishes those in hand within so many seconds, and ends."""
        end = time.monotonic() + grace_s
        if self._thread.is_alive():  # else nobody would say that it has stopped
            self._listener.shutdown()
        self.queue.close(grace_s)
        self._listener.drain(max(0.0, end - time.monotonic()) + 1)
        self._listener.server_close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, server: RewardServer, host: str, port: int) -> None:
        self.rewards = server
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open = 0
        self._change = threading.Condition()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:  # without the look-up of a name that the base class makes
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._change:
            if self._open >= CONNECTIONS:
                self.shutdown_request(request)
                return
            self._open += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._change:
                self._open -= 1
                self._change.notify_all()

    def drain(self, timeout_s: float) -> None:
        """Waits until no connection is open."""
        with self._change:
            self._change.wait_for(lambda: not self._open, timeout_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a request failed", exc_info=True)  # most often a client that hung up


class _Handler(BaseHTTPRequestHandler):
    """One request; HTTP/1.0, so that a connection ends with it."""

    server: _Listener
    server_version, sys_version = "rewards", ""

    def setup(self) -> None:
        self.timeout = self.server.rewards.upload_timeout_s
        super().setup()
        # the socket's own timeout begins anew with every byte
        self._cut = threading.Timer(self.timeout, self._hang_up)
        self._cut.daemon = True
        self._cut.start()

    def finish(self) -> None:
        self._cut.cancel()
        super().finish()

    def do_GET(self) -> None:
        if self._is_allowed():
            if self.path != "/health":
                self._refuse(404, "GET knows /health only")
                return
            rewards = self.server.rewards.fingerprints
            content = {"status": "ok", "version": VERSION, "rewards": rewards}
            self._send(200, json.dumps(content).encode(), "application/json")

    def do_POST(self) -> None:
        if not self._is_allowed():
            return
        what, _, name = self.path.removeprefix("/").partition("/")
        if what not in ("score", "self_test") or name not in self.server.rewards.fingerprints:
            known = ", ".join(sorted(self.server.rewards.fingerprints))
            self._refuse(404, f"no such reward is served here; known: {known}")
            return
        body = self._body()
        if body is None:
            return
        try:
            rollout = unpack_rollout(body) if what == "score" else None
            scored = self.server.rewards.queue.submit(name, rollout).result()
            packed = b"" if scored is None else pack_scored(scored)
        except WireError as error:
            self._refuse(400, f"the body is {error}")
        except BusyError:
            self._refuse(503, "too much waits here, or the server ends; ask again")
        except UserError as error:
            self._refuse(422, " ".join(str(error).split()))
        else:
            headers = {FINGERPRINT_HEADER: self.server.rewards.fingerprints[name]}
            self._send(200, packed, MESSAGE_TYPE, headers)

    def _is_allowed(self) -> bool:
        token = self.server.rewards.token
        shown = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if not token or hmac.compare_digest(shown, f"Bearer {token}".encode()):
            return True
        self._refuse(401, "this server wants its token; set token_variable")
        return False

    def _body(self) -> bytes | None:
        """The body, or None where it was refused."""
        stated, limit = self.headers.get("Content-Length", ""), self.server.rewards.body_limit
        if self.headers.get("Content-Type") != MESSAGE_TYPE:
            self._refuse(415, f"the content type must be {MESSAGE_TYPE}")
        elif not (stated.isascii() and stated.isdigit() and len(stated) < 16):
            self._refuse(411, "the size of the body must be stated")
        elif int(stated) > limit:
            self._refuse(413, f"the body has {stated} bytes, the limit is {limit}; raise it there")
        else:
            body = self.rfile.read(int(stated))
            self._cut.cancel()
            if len(body) == int(stated):
                return body
            self._refuse(400, "the body ends in its middle")
        return None

    def _refuse(self, status: int, reason: str) -> None:
        self._send(status, json.dumps({"error": reason}).encode(), "application/json")
        self._linger()

    def _send(
        self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _linger(self) -> None:
        """Reads on for a moment, as a connection closed with bytes unread takes the reply away."""
        end = time.monotonic() + _LINGER_S
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_S)
            while self.connection.recv(1 << 16) and time.monotonic() < end:
                pass

    def _hang_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("%r", args)  # what a client sent is no line of a log


def _token(host: str, variable: str | None) -> str:
    """The token that clients must show; "" for none."""
    token = read_key(variable)
    if token and len(token) < LEAST_TOKEN:
        raise ConfigError(
            f"the token in {variable} has {len(token)} characters; take {LEAST_TOKEN} at least"
        )
    try:
        is_own = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = False
    if not is_own and not token:
        raise ConfigError(
            f"host={host} can be reached by others; put a token into an environment variable and "
            "name it with token_variable=..., or keep host=127.0.0.1"
        )
    return token
