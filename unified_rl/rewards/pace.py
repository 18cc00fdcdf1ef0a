"""How fast a server is asked, whoever asks."""

import threading
import time
from collections.abc import Callable


class Pace:
    """Spaces requests evenly, and holds all of them back where a server asks for it.

    Args:
        per_minute: requests, at most, in any minute; 0 sets no limit.
        clock: seconds that only grow.
        sleep: waits for seconds.
    """

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_s = 60 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._next = self._held_until = float("-inf")

    def wait(self) -> None:
        """Returns when the next request may be sent; each call is one request."""
        while True:
            with self._lock:
                now = self._clock()
                slot = max(now, self._next, self._held_until)
                self._next = slot + self._interval_s
            if slot > now:
                self._sleep(slot - now)
            with self._lock:
                if self._held_until <= slot:  # not held back while this one slept
                    return

    def hold(self, seconds: float) -> None:
        """No request is sent for so long."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)
