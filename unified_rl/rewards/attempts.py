"""Asking a reward for its scores: again where that can help, in parts where memory is short."""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from unified_rl.core.errors import ConfigError, RewardError, UserError
from unified_rl.core.protocols import Reward
from unified_rl.core.trajectory import RewardScores, Rollout

FIRST_PAUSE_S = 0.5
"""Before the first retry; each further pause is twice as long."""
HOPELESS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of files, which another try does not mend."""
_MEMORY_SIGNS = ("out of memory", "allocate memory", "alloc_failed")
_log = logging.getLogger(__name__)


class Attempts:
    """How rewards are asked; a reward that fails is named, and never counts as 0.

    Errors of files and connections are tried again after a pause. Where memory runs out, the
    rollout is scored in halves, which are whole groups as long as there are several; so a reward
    that compares the completions of a group sees less of it only where one group is too large.

    Args:
        retries: further tries after an `OSError`, 0 or more.
        slow_after_s: seconds for one rollout after which a reward is warned of, once; inf never
            warns.

    Attributes:
        seconds: that training waited for each reward and the latest rollout, pauses included.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(self, retries: int = 2, slow_after_s: float = 60.0) -> None:
        if retries < 0:
            raise ConfigError(f"retries={retries} is negative; 0 tries once")
        if not slow_after_s >= 0:  # also NaN
            raise ConfigError(f"slow_after_s={slow_after_s} must be 0 or more; inf never warns")
        self.retries, self.slow_after_s = retries, slow_after_s
        self.seconds: dict[str, float] = {}
        self._warned: set[tuple[str, str]] = set()
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._begun: dict[str, list[tuple[Rollout, Future[RewardScores]]]] = {}

    def begin(self, name: str, reward: Reward, part: Rollout) -> None:
        """Scores a part of the next rollout beside what follows, one part after another.

        `__call__` with the rollout that has the rows of these parts, in whatever order, waits for
        them; with another one it forgets them.
        """
        if name not in self._threads:
            self._threads[name] = ThreadPoolExecutor(1, thread_name_prefix=f"reward {name}")
        score = self._threads[name].submit(self._in_parts, name, reward, part)
        self._begun.setdefault(name, []).append((part, score))

    def forget(self) -> None:
        """Asks for nothing more of what was begun."""
        for parts in self._begun.values():
            for _, score in parts:
                score.cancel()
        self._begun.clear()

    def __call__(self, name: str, reward: Reward, rollout: Rollout) -> RewardScores:
        """Scores a rollout.

        Args:
            name: of the reward, for errors.
            reward: is asked once, if all goes well.
            rollout: with a row at least.

        Returns:
            The reward's own scores, on the CPU.

        Raises:
            RewardError: naming the reward, and chained to its error, where there was no help; or
                what it gave are not scores of this rollout.
            UserError: the reward's own, as it is.
        """
        started = time.perf_counter()
        places = _places(rollout, [part for part, _ in self._begun.get(name, ())])
        if places is not None:
            scores = self._begun_ahead(name).select(places)
        else:
            self._let_go(name)
            scores = self._in_parts(name, reward, rollout)
        self.seconds[name] = time.perf_counter() - started
        if self.seconds[name] > self.slow_after_s:
            self._warn_once(
                "slow",
                name,
                f"reward {name!r} took {self.seconds[name]:.1f} s for "
                f"{len(rollout.samples)} completions; training waits for it",
            )
        return scores

    def _begun_ahead(self, name: str) -> RewardScores:
        """The scores of all parts that were begun, one behind the other."""
        try:
            found = _joined([score.result() for _, score in self._begun[name]])
        except BaseException:
            self.forget()  # what is still to be scored would be paid for in vain
            raise
        del self._begun[name]
        return found

    def _let_go(self, name: str) -> None:
        """Forgets one reward's parts, so that it is not asked twice at once."""
        wait([score for _, score in self._begun.pop(name, ()) if not score.cancel()])

    def _in_parts(self, name: str, reward: Reward, rollout: Rollout) -> RewardScores:
        scores, shortage = self._asked(name, reward, rollout)
        if scores is not None:
            return scores
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        halves = _halves(rollout)
        if len(halves) == 1:
            raise RewardError(
                f"reward {name!r} runs out of memory on a single completion ({shortage}); give it "
                "a smaller model or another device"
            )
        self._warn_once(
            "memory",
            name,
            f"reward {name!r} ran out of memory on {len(rollout.samples)} completions and scores "
            f"them in halves ({shortage}); a smaller rollout or model saves the time",
        )
        return _joined([self._in_parts(name, reward, half) for half in halves])

    def _asked(
        self, name: str, reward: Reward, rollout: Rollout
    ) -> tuple[RewardScores | None, str]:
        """The scores, or None and how memory fell short.

        The error of a shortage is let go of here: its traceback holds the tensors that were too
        many.
        """
        tried = 0
        while True:
            try:
                return _checked(name, _on_cpu(reward(rollout)), rollout), ""
            except UserError:
                raise
            except Exception as error:
                cause, tried = described(error), tried + 1
                if _is_shortage(error):
                    return None, cause
                if not isinstance(error, OSError) or isinstance(error, HOPELESS):
                    raise RewardError(f"reward {name!r} failed: {cause}") from error
                if tried > self.retries:
                    raise RewardError(
                        f"reward {name!r} failed {tried} times in a row: {cause}; check what it "
                        "reads from or connects to, or raise stage.reward.retries"
                    ) from error
            pause_s = FIRST_PAUSE_S * 2 ** (tried - 1)
            _log.warning("reward %r failed (%s); trying again in %g s", name, cause, pause_s)
            time.sleep(pause_s)

    def _warn_once(self, kind: str, name: str, message: str) -> None:
        if (kind, name) not in self._warned:
            self._warned.add((kind, name))
            _log.warning("%s", message)


def described(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _places(rollout: Rollout, parts: Sequence[Rollout]) -> list[int] | None:
    """For each row the place of this very row in the parts; None where they are of other rows."""
    places: dict[tuple[int, int], list[int]] = defaultdict(list)
    begun = [row for part in parts for row in zip(part.samples, part.completions, strict=True)]
    for place, (sample, answer) in enumerate(begun):
        places[id(sample), id(answer)].append(place)
    rows = list(zip(rollout.samples, rollout.completions, strict=True))
    found = [places[id(s), id(a)].pop(0) for s, a in rows if places.get((id(s), id(a)))]
    return found if len(found) == len(rows) == len(begun) else None


def _is_shortage(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in said for sign in _MEMORY_SIGNS)


def _on_cpu(scores: RewardScores) -> RewardScores:
    return RewardScores(*(None if part is None else part.cpu() for part in scores))


def _checked(name: str, scores: RewardScores, rollout: Rollout) -> RewardScores:
    count = len(rollout.samples)
    if scores.outcome.shape != (count,):
        raise RewardError(
            f"reward {name!r} gave outcomes of shape {tuple(scores.outcome.shape)} for "
            f"{count} completions"
        )
    for part, dimensions in (("steps", 2), ("judged", 1)):
        given = getattr(scores, part)
        if given is not None and (given.ndim != dimensions or len(given) != count):
            raise RewardError(
                f"reward {name!r} gave {part} of shape {tuple(given.shape)} for {count} completions"
            )
    return scores


def _halves(rollout: Rollout) -> list[Rollout]:
    """Two parts of whole groups, or of one group's rows; a single row stays whole."""
    rows = torch.arange(len(rollout.samples))
    if len(rows) == 1:
        return [rollout]
    group_count = len(rows) // rollout.group_size
    if group_count == 1:
        middle = len(rows) // 2
        return [rollout.select(part, len(part)) for part in (rows[:middle], rows[middle:])]
    middle = group_count // 2 * rollout.group_size
    return [rollout.select(p, rollout.group_size) for p in (rows[:middle], rows[middle:])]


def _joined(parts: list[RewardScores]) -> RewardScores:
    """The scores of parts as those of the whole; narrower steps are padded with NaN."""
    outcome = torch.cat([part.outcome for part in parts])
    judged = None
    if any(part.judged is not None for part in parts):
        judged = torch.cat([part.judged_rows for part in parts])
    if all(part.steps is None for part in parts):
        return RewardScores(outcome, None, judged)
    width = max(part.steps.shape[1] for part in parts if part.steps is not None)
    steps = torch.full((len(outcome), width), float("nan"))
    first = 0
    for part in parts:
        last = first + len(part.outcome)
        if part.steps is not None:
            steps[first:last, : part.steps.shape[1]] = part.steps
        first = last
    return RewardScores(outcome, steps, judged)
