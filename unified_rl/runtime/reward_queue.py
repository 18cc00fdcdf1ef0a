"""Rollouts that wait for a reward, and the one thread that scores them."""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from unified_rl.core.errors import ConfigError, RewardError, UserError
from unified_rl.core.protocols import Reward
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.rewards.attempts import Attempts, described
from unified_rl.rewards.wire import Scored, empty_trajectory


class BusyError(Exception):
    """Too much waits already, or the queue is closed."""


class _Job(NamedTuple):
    name: str
    rollout: Rollout | None  # None asks for the self-test
    done: Future


class RewardQueue:
    """Scores rollouts one call at a time, as rewards are no safer under threads than their models.

    Rollouts for one reward, of one group size, are joined into one call if they wait together.
    Where a joined call fails, each is scored alone, so that nobody fails for another's sake.

    Args:
        rewards: by name.
        most_rows: completions in a joined call; a single rollout may have more. 0 joins none,
            which keeps the scores of models independent of who else asks, to the last bit.
        join_wait_s: how long the first is held back for others to come.
        most_waiting: rollouts; more are refused.
        retries: see `Attempts`.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        most_rows: int,
        join_wait_s: float,
        most_waiting: int,
        retries: int,
    ) -> None:
        if most_rows < 0 or most_waiting < 1 or not 0 <= join_wait_s < 60:
            raise ConfigError(
                f"most_rows={most_rows}, join_wait_s={join_wait_s}, most_waiting={most_waiting} "
                "must be at least 0, in [0, 60) and at least 1"
            )
        self._rewards = dict(rewards)
        self._most_rows, self._join_wait_s = most_rows, join_wait_s
        self._most_waiting = most_waiting
        self._attempts = Attempts(retries, slow_after_s=float("inf"))
        self._jobs: deque[_Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="rewards", daemon=True)
        self._thread.start()

    def submit(self, name: str, rollout: Rollout | None) -> "Future[Scored | None]":
        """Puts a rollout in the queue; None asks for the reward's self-test.

        Raises:
            BusyError: too much waits already, or the queue is closed.
        """
        job = _Job(name, rollout, Future())
        with self._change:
            if self._closed or len(self._jobs) >= self._most_waiting:
                raise BusyError
            self._jobs.append(job)
            self._change.notify_all()
        return job.done

    def close(self, grace_s: float) -> None:
        """Takes nothing more, finishes what waits within so many seconds, and refuses the rest."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join(grace_s)
        with self._change:
            left, self._jobs = list(self._jobs), deque()
        for job in left:
            job.done.set_exception(BusyError())

    def _work(self) -> None:
        while jobs := self._next():
            if len(jobs) > 1 and self._joined(jobs):
                continue
            for job in jobs:
                self._alone(job)

    def _next(self) -> list[_Job]:
        """The jobs of the next call; none at the end."""
        with self._change:
            self._change.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return []
            jobs = [self._jobs.popleft()]
            if jobs[0].rollout is None or not self._most_rows:
                return jobs
            end = time.monotonic() + self._join_wait_s
            while True:
                self._gather(jobs)
                left_s = end - time.monotonic()
                if left_s <= 0 or self._closed or not self._change.wait(left_s):
                    return jobs

    def _gather(self, jobs: list[_Job]) -> None:
        """Moves those that can be joined to the first one out of the queue."""
        first, rows = jobs[0], sum(_row_count(job) for job in jobs)
        for job in list(self._jobs):
            fits = (
                job.name == first.name
                and job.rollout is not None
                and job.rollout.group_size == first.rollout.group_size
                and rows + _row_count(job) <= self._most_rows
            )
            if fits:
                self._jobs.remove(job)
                jobs.append(job)
                rows += _row_count(job)

    def _joined(self, jobs: Sequence[_Job]) -> bool:
        """Whether one call served them all."""
        rollouts = [job.rollout for job in jobs if job.rollout is not None]
        samples = tuple(sample for rollout in rollouts for sample in rollout.samples)
        completions = tuple(one for rollout in rollouts for one in rollout.completions)
        trajectory = empty_trajectory(len(samples))
        whole = Rollout(samples, completions, trajectory, rollouts[0].group_size)
        try:
            scores, counts = self._scored(jobs[0].name, whole)
            start = 0
            parts = []
            for rollout in rollouts:
                end = start + len(rollout.samples)
                parts.append(Scored(_part(scores, start, end, rollout), counts))
                start = end
        except Exception:  # whose fault it is shows when each is scored alone
            return False
        for job, part in zip(jobs, parts, strict=True):
            job.done.set_result(part)
        return True

    def _scored(self, name: str, rollout: Rollout) -> Scored:
        reward = self._rewards[name]
        scores = self._attempts(name, reward, rollout)
        return Scored(scores, reward.counts() if hasattr(reward, "counts") else {})

    def _alone(self, job: _Job) -> None:
        try:
            if job.rollout is None:
                self._rewards[job.name].self_test()
                job.done.set_result(None)
            else:
                job.done.set_result(self._scored(job.name, job.rollout))
        except UserError as error:
            job.done.set_exception(error)
        except Exception as error:
            job.done.set_exception(RewardError(described(error)))


def _row_count(job: _Job) -> int:
    return 0 if job.rollout is None else len(job.rollout.samples)


def _part(scores: RewardScores, start: int, end: int, rollout: Rollout) -> RewardScores:
    """The scores of some rows, without the columns of steps that only others have."""
    outcome, steps, judged = (None if part is None else part[start:end] for part in scores)
    if steps is not None:
        own = max(len(one.segments) for one in rollout.completions)
        if steps[:, own:].isnan().all():
            steps = steps[:, :own]
    return RewardScores(outcome, steps, judged)
