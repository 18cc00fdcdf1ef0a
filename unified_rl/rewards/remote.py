"""A reward whose scores come from a reward server."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.rewards.chat_endpoint import read_key
from unified_rl.rewards.exchange import (
    Address,
    ExchangeError,
    ExchangeTimeoutError,
    Reply,
    ReplySizeError,
    exchange,
)
from unified_rl.rewards.wire import WireError, pack_rollout, unpack_scored

SCORES_BYTES = 1 << 26
"""Of a reply; 65,536 completions of 250 steps need no more."""
MESSAGE_TYPE = "application/octet-stream"
FINGERPRINT_HEADER = "X-Reward-Fingerprint"
AWAY = (502, 503, 504)
"""Statuses of a server that is full, ends or begins."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
_HEALTH_BYTES = 1 << 20
_log = logging.getLogger(__name__)


class RemoteReward:
    """Scores of a reward that `python -m unified_rl.serve` holds, in one request a rollout or part.

    The scores are those of the reward itself, to the last bit, as long as the server does not join
    the requests of several trainers. A server that is away is waited for, with a message; what was
    asked is then asked again. A server that comes back with another reward, or with other settings
    of it, ends the run, as its scores could not be compared with those before.

    Args:
        reward: name of the reward on the server.
        url: of the server, such as "http://127.0.0.1:8600". Neither proxies of the environment are
            used nor redirects followed.
        weight: factor in a hybrid reward; that of the server's configuration is not looked at.
        fingerprint: of the reward and its settings, as the server's health check prints it; None
            takes the one that is found first.
        timeout_s: for scoring one rollout, waiting in the server's queue included.
        restart_wait_s: how long a server that is away is waited for.
        token_variable: environment variable that holds the server's token; None sends none.

    Raises:
        ConfigError: a setting out of its range, or a variable that holds no token.
    """

    waits = True
    """See `CompletionReward`."""

    def __init__(
        self,
        reward: str,
        url: str = "http://127.0.0.1:8600",
        weight: float = 1.0,
        fingerprint: str | None = None,
        timeout_s: float = 600.0,
        restart_wait_s: float = 600.0,
        token_variable: str | None = None,
    ) -> None:
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"weight={weight} must be finite and at least 0 (0: logged only)")
        if not 0 < timeout_s <= threading.TIMEOUT_MAX:
            raise ConfigError(f"timeout_s={timeout_s} must be above 0 and finite")
        if not restart_wait_s >= 0:
            raise ConfigError(f"restart_wait_s={restart_wait_s} must be at least 0; 0 never waits")
        if not reward.isidentifier() or not reward.isascii():
            raise ConfigError(f"reward={reward!r} is no name of a reward on a server")
        self.weight, self.reward, self.url = weight, reward, url
        self.timeout_s, self.restart_wait_s = timeout_s, restart_wait_s
        self._address = Address.parse(url, "url")
        self._token = read_key(token_variable)
        self._fingerprint = fingerprint
        self._counts: Mapping[str, float] = {}

    def __call__(self, rollout: Rollout) -> RewardScores:
        """The scores of the server's reward.

        Raises:
            RewardError: the reward failed there, the server stays away or is too slow, it holds
                another reward, or what it says are no scores.
        """
        try:
            message = pack_rollout(rollout)
        except WireError as error:
            raise RewardError(f"reward {self.reward!r} cannot be asked with {error}") from error
        reply = self._asked("POST", f"/score/{self.reward}", message)
        try:
            scores, self._counts = unpack_scored(reply.body, len(rollout.samples))
        except WireError as error:
            raise RewardError(f"{self.url} sent scores {error}; is it a reward server?") from error
        return scores

    def counts(self) -> Mapping[str, float]:
        """What the reward counted itself at its latest call, see `JudgedReward.counts`."""
        return self._counts

    def self_test(self) -> None:
        """Lets the server test its reward.

        Raises:
            RewardError: as above, or the reward fails its test.
        """
        health = self._asked("GET", "/health")
        try:
            names = sorted(json.loads(health.body)["rewards"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise RewardError(f"{self.url} is no reward server; check url") from None
        if self.reward not in names:
            served = " ".join(str(name)[:40] for name in names[:10])
            raise RewardError(f"{self.url} serves no reward {self.reward!r}, but {served!r}")
        self._asked("POST", f"/self_test/{self.reward}", b"")

    def _asked(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """The reply with status 200, however long the server was away before."""
        headers = {"Content-Type": MESSAGE_TYPE}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        most = SCORES_BYTES if method == "POST" else _HEALTH_BYTES
        away = _Away(self.url, self.restart_wait_s)
        while True:
            try:
                reply = exchange(self._address, method, path, self.timeout_s, most, body, headers)
            except ExchangeTimeoutError as error:
                raise RewardError(
                    f"{self.url}{path}: {error}; raise reward.*.timeout_s, or look at the server"
                ) from error
            except ReplySizeError as error:
                raise RewardError(f"{self.url}{path}: {error}; is it a reward server?") from error
            except ExchangeError as error:
                away.wait(str(error))
                continue
            if reply.status in AWAY:
                away.wait(f"status {reply.status}")
                continue
            away.over()
            if reply.status != 200:
                raise RewardError(f"{self.url}{path}: {_reason(reply)}")
            if method == "POST":
                self._check(reply)
            return reply

    def _check(self, reply: Reply) -> None:
        found = reply.headers.get(FINGERPRINT_HEADER.lower(), "")
        if self._fingerprint is None:
            self._fingerprint = found
        if found != self._fingerprint or not found:
            raise RewardError(
                f"{self.url} serves another reward {self.reward!r}, or another setting of it: "
                f"fingerprint {found[:64]!r}, not {self._fingerprint!r}; start the server as before"
            )


class _Away:
    """A server that does not answer, since when, and when to ask it again."""

    def __init__(self, url: str, limit_s: float) -> None:
        self._url, self._limit_s = url, limit_s
        self._since: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def wait(self, reason: str) -> None:
        """Pauses, or raises RewardError where the server has been away for too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            if self._limit_s:
                _log.warning(
                    "the reward server %s is away (%s); waiting %g s for it, start it with "
                    "python -m unified_rl.serve",
                    self._url,
                    reason,
                    self._limit_s,
                )
        if now - self._since >= self._limit_s:
            raise RewardError(
                f"the reward server {self._url} has been away for {now - self._since:.0f} s "
                f"({reason}); start it with python -m unified_rl.serve, or raise restart_wait_s"
            )
        time.sleep(min(self._pause_s, self._since + self._limit_s - now))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def over(self) -> None:
        """Says that the server is back, if it was away."""
        if self._since is not None:
            away_s = time.monotonic() - self._since
            _log.warning("the reward server %s is back after %.0f s", self._url, away_s)


def _reason(reply: Reply) -> str:
    try:
        said: Any = json.loads(reply.body[: 1 << 16])["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        said = ""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(said)[:500])
    return f"{shown} (status {reply.status})" if shown else f"status {reply.status}"
