"""A judge behind an OpenAI-compatible /chat/completions endpoint: vLLM, SGLang, the vendors."""

import hashlib
import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from unified_rl.core.errors import ConfigError
from unified_rl.rewards.chat_messages import ChatReply, messages, read_reply
from unified_rl.rewards.exchange import (
    Address,
    ExchangeError,
    ExchangeTimeoutError,
    Reply,
    ReplySizeError,
    exchange,
)
from unified_rl.rewards.judge_tally import Failure, JudgeTally
from unified_rl.rewards.judging import JudgeQuestion
from unified_rl.rewards.pace import Pace
from unified_rl.rewards.reply_cache import ReplyCache

REPLY_BYTES = 1 << 20
"""Of a whole HTTP reply; a larger one is garbage."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Before the second attempt, doubled for each further one; a server that asks for a longer pause
is not waited for."""
PASSING = (408, 409, 425, 429)
"""Statuses below 500 that another attempt may mend."""
_SAID = 200
_log = logging.getLogger(__name__)


class ChatEndpoint:
    """Asks a model over HTTP, many questions at once, and pays for each only once.

    A question is asked again after a pause where that can help: no connection, a hang-up, no reply
    in time, and the statuses 408, 409, 425, 429 and 500 to 599, waiting as long as `Retry-After`
    says. Everything else is given up at once. The limits of requests, tokens and pace hold for one
    process; each rank has its own.

    Args:
        base_url: such as "http://localhost:8000/v1"; "/chat/completions" is put behind it. Neither
            proxies of the environment are used nor redirects followed.
        model: as the endpoint names it.
        key_variable: environment variable that holds the endpoint's key; None sends none. The key
            itself stands in no configuration, message, log or cache.
        temperature: of the reply, 0 or more; None leaves it out, for models that refuse it.
        max_tokens: limit of a reply, which fails if it is cut off there.
        limit_name: what the endpoint calls that limit.
        timeout_s: for one request from its start to its last byte.
        attempts: requests for one question, at most.
        requests_per_minute: 0 sets no limit.
        in_flight: requests at once.
        request_budget: requests in all, retries too, after which no question is answered; 0 sets no
            limit.
        token_budget: likewise tokens of questions and replies, as the endpoint counts them; those
            in flight when it is spent come on top. A reply that is not counted is taken for
            `max_tokens` and one token a character asked.
        cache: SQLite file of replies, see `ReplyCache`; None keeps none. A reply is found again by
            model, messages and settings, not by `base_url`: another server of the same model does.

    Raises:
        ConfigError: a setting out of its range, a variable that holds no key, or a bad cache.
    """

    waits = True
    """Whoever asks it waits for another process, see `CompletionReward`."""

    def __init__(
        self,
        base_url: str,
        model: str,
        key_variable: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int = 512,
        limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
        timeout_s: float = 60.0,
        attempts: int = 4,
        requests_per_minute: float = 0.0,
        in_flight: int = 8,
        request_budget: int = 0,
        token_budget: int = 0,
        cache: str | None = None,
    ) -> None:
        for name, value, least in (
            ("max_tokens", max_tokens, 1),
            ("attempts", attempts, 1),
            ("in_flight", in_flight, 1),
            ("requests_per_minute", requests_per_minute, 0),
            ("request_budget", request_budget, 0),
            ("token_budget", token_budget, 0),
        ):
            if not least <= value < float("inf"):
                raise ConfigError(f"{name}={value} must be finite and at least {least}")
        if not 0 < timeout_s <= threading.TIMEOUT_MAX:
            raise ConfigError(f"timeout_s={timeout_s} must be above 0 and finite")
        if temperature is not None and not 0 <= temperature < float("inf"):
            raise ConfigError(f"temperature={temperature} must be finite and at least 0")
        if limit_name not in ("max_tokens", "max_completion_tokens"):
            raise ConfigError(f"limit_name={limit_name!r} is not what endpoints call it")
        self._address = Address.parse(base_url, "base_url")
        self._key = read_key(key_variable)
        if self._key and not self._address.secure and not self._address.is_loopback:
            _log.warning("base_url=%s is not https; the key crosses the network as it is", base_url)
        self.base_url, self.model = base_url, model
        self.timeout_s, self.attempts, self.in_flight = timeout_s, attempts, in_flight
        self.request_budget, self.token_budget = request_budget, token_budget
        self._settings: dict[str, Any] = {limit_name: max_tokens}
        if temperature is not None:
            self._settings["temperature"] = temperature
        self._token_limit = max_tokens
        self._pace = Pace(requests_per_minute)
        self._cache = None if cache is None else ReplyCache(cache)
        self._budget_lock = threading.Lock()
        self._random = random.Random()  # not the run's own, which threads would draw from at random
        self.tally = JudgeTally()

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[str | None]:
        """One reply a question, in order; None where there is none, counted in `tally`.

        Equal questions of one call are asked once.
        """
        self.tally.add("questions", len(questions))
        bodies = [self._body(question) for question in questions]
        keys = [hashlib.sha256(body).hexdigest() for body in bodies]
        wanted = dict(zip(keys, bodies, strict=True))
        replies: dict[str, str | None] = {}
        if self._cache is not None:
            replies |= self._cache.find(list(wanted))
            self.tally.add("cached", len(replies))
        open_keys = [key for key in wanted if key not in replies]
        if open_keys:
            replies |= dict(zip(open_keys, self._answers(open_keys, wanted), strict=True))
        return [replies[key] for key in keys]

    def counts(self) -> dict[str, int]:
        """What became of all questions; see `JudgeTally`."""
        return self.tally.counts()

    def describe(self) -> Mapping[str, Any]:
        """Address, model and settings."""
        return {
            "judge": "ChatEndpoint",
            "base_url": self.base_url,
            "model": self.model,
            **self._settings,
        }

    def _body(self, question: JudgeQuestion) -> bytes:
        asked = {"model": self.model, "messages": messages(question), **self._settings}
        return json.dumps(asked, sort_keys=True).encode()

    def _answers(self, keys: Sequence[str], bodies: Mapping[str, bytes]) -> list[str | None]:
        stopped = threading.Event()
        pool = ThreadPoolExecutor(min(self.in_flight, len(keys)), "judge")
        try:
            futures = [pool.submit(self._answer, key, bodies[key], stopped) for key in keys]
            return [future.result() for future in futures]
        finally:
            stopped.set()  # after an interrupt nothing is asked again
            pool.shutdown(cancel_futures=True)

    def _answer(self, key: str, body: bytes, stopped: threading.Event) -> str | None:
        kind: Failure
        for attempt in range(1, self.attempts + 1):
            if not self._may_pay():
                return self._give_up("budget", "request_budget or token_budget is spent; raise it")
            self._pace.wait()
            wait_s = 0.0
            try:
                reply = self._sent(body)
            except ReplySizeError as error:
                return self._give_up("garbage", str(error))
            except ExchangeTimeoutError as error:
                kind, reason = "timeout", f"{error}; raise timeout_s"
            except ExchangeError as error:
                kind, reason = "connection", f"{self.base_url}: {error}"
            else:
                if reply.status == 200:
                    return self._read(key, reply, body)
                reason = self._described(reply)
                if reply.status not in PASSING and reply.status < 500:
                    return self._give_up("refused", reason)
                kind, wait_s = "server", retry_after(reply)
            if attempt == self.attempts or wait_s > LONGEST_PAUSE_S or stopped.is_set():
                break
            if wait_s:
                self._pace.hold(wait_s)  # what is too much from one is too much from all
            self.tally.add("retries")
            pause_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
            stopped.wait(max(wait_s, pause_s * self._random.uniform(0.75, 1.25)))
        return self._give_up(kind, reason)

    def _sent(self, body: bytes) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return exchange(
            self._address,
            "POST",
            "/chat/completions",
            self.timeout_s,
            REPLY_BYTES,
            body,
            headers,
        )

    def _read(self, key: str, reply: Reply, body: bytes) -> str | None:
        try:
            answer: ChatReply = read_reply(reply.body)
        except ValueError as error:
            self.tally.add("tokens", self._guessed(body))
            return self._give_up("length" if "cut off" in str(error) else "garbage", str(error))
        self.tally.add("tokens", self._guessed(body) if answer.tokens is None else answer.tokens)
        if self._cache is not None:
            self._cache.store(key, answer.text)
        return answer.text

    def _guessed(self, body: bytes) -> int:
        parts = json.loads(body)["messages"][-1]["content"]
        return self._token_limit + sum(len(part.get("text", "")) for part in parts)

    def _may_pay(self) -> bool:
        """Takes one request out of the budget, if there is one left."""
        with self._budget_lock:
            counts = self.tally.counts()
            if self.request_budget and counts["requests"] >= self.request_budget:
                return False
            if self.token_budget and counts["tokens"] >= self.token_budget:
                return False
            self.tally.add("requests")
            return True

    def _give_up(self, kind: Failure, reason: str) -> None:
        self.tally.fail(kind, reason)

    def _described(self, reply: Reply) -> str:
        """Status and the beginning of what was said, which may quote the key."""
        said = reply.body.decode("ascii", "replace")
        if self._key:
            said = said.replace(self._key, "[key]")
        printable = re.sub(r"[^!-~]+", " ", said[: 1 << 12])
        return f"status {reply.status}: {printable.strip()[:_SAID]}"


def read_key(variable: str | None) -> str:
    """The key in an environment variable; "" if none is named.

    Raises:
        ConfigError: there is no such variable, or what it holds cannot be sent. It names the
            variable, never what it holds.
    """
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} is not set; put the key there")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"the environment variable {variable} holds blanks or no ASCII; no key")
    return key


def retry_after(reply: Reply) -> float:
    """Seconds that a server asks to be left alone; 0 where it says nothing that can be read."""
    said = reply.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit() and len(said) < 10:
        return float(said)
    try:
        moment = parsedate_to_datetime(said[:100])
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
