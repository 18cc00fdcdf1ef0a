"""What became of the questions that a judge was asked."""

import logging
import threading
from typing import Literal

Failure = Literal["timeout", "connection", "server", "refused", "garbage", "budget", "length"]
FAILURES: tuple[Failure, ...] = (
    "timeout",
    "connection",
    "server",
    "refused",
    "garbage",
    "budget",
    "length",
)
"""No whole reply in time; no connection or a hang-up; errors of the server, or too many requests;
another status; a reply that is none; nothing left to pay with; a question or reply too long."""
_log = logging.getLogger(__name__)


class JudgeTally:
    """Counts since the judge was made; safe under threads.

    Attributes:
        latest: what went wrong last, in one line; "" if nothing has.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("questions", "cached", "requests", "retries", "tokens"), 0)
        self._counts |= dict.fromkeys((f"failed_{kind}" for kind in FAILURES), 0)
        self.latest = ""

    def add(
        self, name: Literal["questions", "cached", "requests", "retries", "tokens"], count: int = 1
    ) -> None:
        """Counts up."""
        with self._lock:
            self._counts[name] += count

    def fail(self, kind: Failure, reason: str) -> None:
        """Counts a question that was given up; the first of each kind is warned of."""
        with self._lock:
            self._counts[f"failed_{kind}"] += 1
            first = self._counts[f"failed_{kind}"] == 1
            self.latest = reason
        if first:
            _log.warning("the judge leaves a question unanswered (%s): %s", kind, reason)

    def counts(self) -> dict[str, int]:
        """All counts by name; failures are `failed_<kind>`, one a question."""
        with self._lock:
            return dict(self._counts)
