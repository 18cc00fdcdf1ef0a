"""The policy as the judge of its own answers, as it is now or as it was at the start."""

from collections.abc import Callable
from typing import Literal

from unified_rl.core.errors import ConfigError, RewardError
from unified_rl.core.protocols import Policy

JUDGES = ("live", "frozen")


class OwnPolicy:
    """Which weights of the policy a reward asks.

    A reward that has `bind` is given the policy before the first step, by `HybridReward.bind`.

    Args:
        judge: "live" asks the policy in training, so that the reward drifts with it, as in CoRL's
            released code; "frozen" asks a copy of its start.

    Raises:
        ConfigError: an unknown judge.
    """

    def __init__(self, judge: Literal["live", "frozen"]) -> None:
        if judge not in JUDGES:
            raise ConfigError(f"judge={judge!r} is none of {', '.join(JUDGES)}")
        self.judge = judge
        self._policy: tuple[Policy, ...] = ()  # a tuple, so that no module ever owns it

    def bind(self, policy: Policy, start: Callable[[], Policy]) -> None:
        """Takes the policy.

        Args:
            policy: in training.
            start: gives the frozen copy of its start, one for all who ask.
        """
        self._policy = (policy if self.judge == "live" else start(),)

    @property
    def policy(self) -> Policy:
        """The judge; the caller switches it to evaluation mode and takes no gradient.

        Raises:
            RewardError: none is bound yet.
        """
        if not self._policy:
            raise RewardError("no policy is bound to this reward; a stage does it at its start")
        return self._policy[0]
