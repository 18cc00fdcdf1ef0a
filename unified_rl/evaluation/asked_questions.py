"""What benchmarks of interleaved answers have in common: their questions, asked once and kept."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.durable import write_text
from unified_rl.core.errors import ConfigError
from unified_rl.evaluation.answer_folder import Answered, AnswerFolder, weights_digest
from unified_rl.evaluation.asking import Progress
from unified_rl.evaluation.estimates import Estimate, estimate
from unified_rl.evaluation.judgements import CachedJudge, SanityCase, read_score, require_sound
from unified_rl.evaluation.question_file import Question, json_lines, read_questions
from unified_rl.evaluation.record import GalleryEntry
from unified_rl.evaluation.shown_answers import shown_answers
from unified_rl.models.base import UnifiedPolicy
from unified_rl.rewards.judging import Judge

SKIPPED, JUDGEMENTS = "skipped.jsonl", "judgements.jsonl"


class AskedQuestions:
    """The questions of a file, and the folder of what comes of them.

    Args:
        path: of the benchmark's file.
        folder: of answers, judgements and rows that were set aside; made when it is asked.
        parse: makes a question of a row and its place; see `read_questions`.
        count: of questions; 0 takes all.
        seed: of the sampling.
        batch_size: questions at once.
        behaviour: how they are answered.
        gallery_count: answers that are kept to look at.

    Attributes:
        questions: in order.
        settings: JSON-able, of all that an answer depends on but the weights.

    Raises:
        ConfigError: a number out of its range.
        DataError: the file cannot be read, or holds no good question.
    """

    def __init__(
        self,
        path: str,
        folder: str,
        parse: Callable[[dict[str, Any], int], Question],
        count: int,
        seed: int,
        batch_size: int,
        behaviour: Behaviour,
        gallery_count: int,
    ) -> None:
        if min(count, gallery_count) < 0 or batch_size < 1:
            raise ConfigError(
                f"count={count} and gallery_count={gallery_count} must be 0 or more, and "
                f"batch_size={batch_size} at least 1"
            )
        self.questions, self._skipped = read_questions(Path(path), parse, count)
        self.folder = Path(folder)
        self._behaviour, self._batch_size = behaviour, batch_size
        self._gallery_count = gallery_count
        self.settings: dict[str, Any] = {
            "questions": hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16],
            "question_count": len(self.questions),
            "skipped_rows": len(self._skipped),
            "count": count,
            "seed": seed,
            "batch_size": batch_size,
            "behaviour": dataclasses.asdict(behaviour),
        }

    def sound_judge(
        self, judge: Judge | None, cases: Sequence[SanityCase], greatest: int
    ) -> CachedJudge | None:
        """The judge, which keeps its replies here and tells good answers from bad ones.

        Raises:
            RewardError: it does not.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if judge is None:
            return None
        kept = CachedJudge(judge, self.folder / JUDGEMENTS)
        require_sound(kept, cases, lambda reply: read_score(reply, greatest))
        return kept

    def answered(
        self,
        policy: UnifiedPolicy,
        name: str,
        settings: Mapping[str, Any],
        progress: Progress | None,
    ) -> dict[str, Answered]:
        """An answer to every question, by id; those that are kept are not asked for again.

        Args:
            policy: to be measured.
            name: of the folder of answers in `folder`.
            settings: `settings` and all else that answers depend on, with "generator_seed".
            progress: called with the number of questions answered and in all.

        Raises:
            ConfigError: the folder holds answers of another policy or other settings.
        """
        origin = {**settings, "weights": weights_digest(policy)}
        requests = [question.request for question in self.questions]
        answers = AnswerFolder(self.folder / name, origin).ask(
            policy,
            requests,
            self._behaviour,
            self._batch_size,
            settings["generator_seed"],
            progress,
        )
        skipped = [row._asdict() for row in self._skipped]
        write_text(self.folder / SKIPPED, json_lines(skipped))
        return answers

    def shares(self, answers: Mapping[str, Answered]) -> dict[str, Estimate]:
        """`with_image` and `finished` of the questions that could be asked; empty if none could."""
        asked = [answers[q.id] for q in self.questions if not answers[q.id].unasked]
        if not asked:
            return {}
        return {
            "with_image": estimate([float(bool(answer.images)) for answer in asked]),
            "finished": estimate([float(answer.finished) for answer in asked]),
        }

    def gallery(self, answers: Mapping[str, Answered]) -> tuple[GalleryEntry, ...]:
        """Some of the answers, to look at."""
        return shown_answers(self.questions, answers, self._gallery_count)
