"""What rewards by a judge have in common: one call a rollout, strict reading, counted failures."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch

from unified_rl.core.errors import ConfigError, RewardError, nearest
from unified_rl.core.sample import Completion, Sample
from unified_rl.core.trajectory import RewardScores, Rollout
from unified_rl.rewards.base import CompletionReward, Silence, StepwiseScore
from unified_rl.rewards.failure_watch import FailureWatch
from unified_rl.rewards.judge_templates import TEMPLATES
from unified_rl.rewards.judging import Judge, JudgeQuestion
from unified_rl.rewards.score_statements import read_score

UNANSWERED = 0.0
"""The score of what the judge does not score: the lowest there is, so that breaking the judge never
pays. Were it left out of its group instead, a completion worse than its group's mean would gain by
it. Failures that have nothing to do with a completion strike all alike, so that at a share p of
them expected scores shrink by the factor 1 - p and keep their order; what they cost is noise."""


class Plan(NamedTuple):
    """What to ask about a completion.

    Attributes:
        questions: each is answered with a score in [0, 1].
        settle: makes what the reward says of the scores, one a question in order.
    """

    questions: tuple[JudgeQuestion, ...]
    settle: Callable[[Sequence[float]], StepwiseScore]


class JudgedReward(CompletionReward):
    """A reward whose scores a judge states, out of 100, in the form that it is asked for.

    All questions of a rollout are put in one call. A question without an answer, or with one that
    states no score or several (see `read_score`), counts as `UNANSWERED` and as a failure.

    Args:
        judge: see `Judge`.
        weight: factor in a hybrid reward.
        template: "score_line" or "llava_critic"; see `score_question`.
        text_limit: characters of a text that the judge is shown.
        failure_limit: share of failures in [0, 1] above which the run ends.
        failure_window: questions over which that share is taken.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        judge: Judge,
        weight: float = 1.0,
        template: Literal["score_line", "llava_critic"] = "score_line",
        text_limit: int = 2000,
        failure_limit: float = 0.2,
        failure_window: int = 200,
    ) -> None:
        super().__init__(weight)
        if template not in TEMPLATES:
            raise ConfigError(f"template={template!r} is unknown; {nearest(template, TEMPLATES)}")
        if text_limit < 1:
            raise ConfigError(f"text_limit={text_limit} must be at least 1")
        self.judge, self.template, self.text_limit = judge, template, text_limit
        self.waits = bool(getattr(judge, "waits", False))
        self._watch = FailureWatch(failure_limit, failure_window)
        self._asked = self._failed = self._unreadable = 0

    @abstractmethod
    def plan(self, sample: Sample, completion: Completion) -> Plan:
        """What to ask about a completion; nothing where there is nothing to judge."""

    @property
    def has_steps(self) -> bool:
        """Whether the reward says anything of single steps."""
        return True

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Scores one completion; counts as a rollout of its own."""
        return self._scores([sample], [completion])[0]

    def __call__(self, rollout: Rollout) -> RewardScores:
        """Outcomes (B,) and steps (B, K), K the most segments of a completion, NaN padded.

        Raises:
            RewardError: the judge has failed too often.
        """
        scores = self._scores(rollout.samples, rollout.completions)
        outcomes = torch.tensor([score.outcome for score in scores], dtype=torch.float32)
        judged = torch.tensor([not isinstance(score, Silence) for score in scores])
        if not self.has_steps:
            return RewardScores(outcomes, None, judged)
        longest = max((len(score.steps) for score in scores), default=0)
        padded = [(*score.steps, *[math.nan] * (longest - len(score.steps))) for score in scores]
        steps = torch.tensor(padded, dtype=torch.float32).reshape(len(scores), longest)
        return RewardScores(outcomes, steps, judged)

    def counts(self) -> dict[str, float]:
        """What to log of the judge.

        Returns:
            Of the latest rollout, or of its last part where parts are scored ahead: `questions`;
            `unanswered`, those without a usable score; `unreadable`, those of them that were
            answered. `unanswered_share` in [0, 1] of the questions in the window. And what the
            judge itself counts since its start, under `judge_<name>`.
        """
        counts = {
            "questions": float(self._asked),
            "unanswered": float(self._failed),
            "unreadable": float(self._unreadable),
            "unanswered_share": self._watch.share,
        }
        own = self.judge.counts() if hasattr(self.judge, "counts") else {}
        return counts | {f"judge_{name}": float(value) for name, value in own.items()}

    def self_test(self) -> None:
        """The better of two golden answers has the higher score, by however little.

        Raises:
            RewardError: it has not, or the judge gives no score; it says why.
        """
        for sample, good, bad in self.golden():
            high, low = (score.outcome for score in self._scores([sample, sample], [good, bad]))
            if self._failed:
                raise RewardError(
                    f"{type(self).__name__}: the judge left {self._failed} of {self._asked} golden "
                    f"questions without a usable score; {self._latest() or 'it states none'}"
                )
            if high <= low:
                raise RewardError(
                    f"{type(self).__name__} cannot tell a good answer to {sample.id!r} from a bad "
                    f"one: {high:.2f} against {low:.2f}; choose another judge or template"
                )

    def _scores(
        self, samples: Sequence[Sample], completions: Sequence[Completion]
    ) -> list[StepwiseScore]:
        plans = [self.plan(*pair) for pair in zip(samples, completions, strict=True)]
        questions = [question for plan in plans for question in plan.questions]
        replies = self.judge.ask(questions) if questions else []
        form: Literal["line", "anywhere"] = "line" if self.template == "score_line" else "anywhere"
        found = [None if reply is None else read_score(reply, form) for reply in replies]
        self._asked, self._failed = len(found), found.count(None)
        self._unreadable = self._failed - list(replies).count(None)
        self._watch.watch([value is None for value in found], self._latest())
        values = iter([UNANSWERED if value is None else value for value in found])
        return [plan.settle([next(values) for _ in plan.questions]) for plan in plans]

    def _latest(self) -> str:
        if self._unreadable == self._failed:
            return "a reply that does not state one score in the form asked for"
        return getattr(getattr(self.judge, "tally", None), "latest", "")


def shared(value: float, required: int, given: int) -> float:
    """A sum over what was given as a mean, with 0 for what is missing or superfluous."""
    return value / max(required, given, 1)
