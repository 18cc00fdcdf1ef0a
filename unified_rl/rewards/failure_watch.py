"""Judges that leave too much unanswered to be learned from."""

from collections import deque

from unified_rl.core.errors import ConfigError, RewardError


class FailureWatch:
    """The share of the latest questions that got no usable answer.

    Args:
        limit: share in [0, 1] above which the run ends; 1 never ends it.
        window: questions looked back on; before there are so many nothing ends.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(self, limit: float, window: int) -> None:
        if not 0 <= limit <= 1:
            raise ConfigError(f"failure_limit={limit} is outside [0, 1]; 1 never ends the run")
        if window < 1:
            raise ConfigError(f"failure_window={window} must be at least 1")
        self.limit = limit
        self._failed: deque[bool] = deque(maxlen=window)

    @property
    def share(self) -> float:
        """Of the questions in the window, in [0, 1]; 0 before the first."""
        return sum(self._failed) / len(self._failed) if self._failed else 0.0

    def watch(self, failed: list[bool], reason: str) -> None:
        """Counts questions.

        Args:
            failed: one a question, in order.
            reason: what went wrong last, for the message.

        Raises:
            RewardError: the window is full and the share above the limit.
        """
        self._failed.extend(failed)
        if len(self._failed) == self._failed.maxlen and self.share > self.limit:
            raise RewardError(
                f"the judge left {self.share:.0%} of its latest {len(self._failed)} questions "
                f"without a usable score, more than failure_limit={self.limit:g}"
                f"{f'; the latest: {reason}' if reason else ''}"
            )
