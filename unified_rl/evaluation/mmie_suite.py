"""MMIE: interleaved answers to its questions, files for its scorer, and scores."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.durable import write_text
from unified_rl.core.sample import Image
from unified_rl.evaluation import mmie
from unified_rl.evaluation.answer_folder import Answered
from unified_rl.evaluation.asked_questions import AskedQuestions
from unified_rl.evaluation.asking import Progress
from unified_rl.evaluation.estimates import Estimate, estimate, macro_estimate
from unified_rl.evaluation.judgements import (
    CachedJudge,
    check_scoring,
    opened,
    read_score,
    read_score_as_released,
)
from unified_rl.evaluation.question_file import Question, json_lines
from unified_rl.evaluation.record import Evaluation
from unified_rl.models.base import UnifiedPolicy
from unified_rl.rewards.judging import Judge

SCORER_FOLDER, SCORER_INPUT = "mmie", "data.json"
VERDICTS = "verdicts.jsonl"
OTHER_JUDGE = "scored by a judge and a rubric of ours; not comparable with MMIE's own scorer"


class MmieSuite:
    """Asks MMIE's questions, answers interleaved, and scores the answers or has them scored.

    With neither judge nor feedback the run ends with the files for the released scorer, in the
    folder `mmie`: `data.json` and the images. What that writes is read back by `feedback`.

    Metrics in percent of the best score: `mmie` (mean over samples, as the released code has it),
    `mmie/<class>`, `mmie_class_mean` (of the classes' means); unreadable scores are passed over in
    these, as in the released code, and count 0 in `mmie_lower_bound`. `mmie_as_released` reads
    scores as loosely as that code does. In [0, 1]: `unscored`, `with_image` and `finished`.

    Args:
        path: of MMIE's JSON file.
        folder: where answers, judgements and files for the scorer are kept; a killed run goes on.
        image_root: folder that image paths are relative to; None is that of the file.
        judge: None leaves scoring to the released scorer.
        feedback: the file that the released scorer wrote of these answers.
        model: name of the policy in the scorer's input.
        count: questions, spread evenly over the file; 0 asks all.
        seed: of the sampling.
        batch_size: questions at once.
        behaviour: how answers are drawn.
        gallery_count: answers that are kept to look at.

    Raises:
        ConfigError: numbers out of range, or both a judge and feedback.
        DataError: a file that cannot be read, or without a good question.
    """

    def __init__(
        self,
        path: str,
        folder: str,
        image_root: str | None = None,
        judge: Judge | None = None,
        feedback: str | None = None,
        model: str = "unified-rl",
        count: int = 0,
        seed: int = 0,
        batch_size: int = 8,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        gallery_count: int = 24,
    ) -> None:
        check_scoring(judge, feedback)
        self._root = Path(path).parent if image_root is None else Path(image_root)
        self._questionnaire = AskedQuestions(
            path, folder, mmie.parser(self._root), count, seed, batch_size, behaviour, gallery_count
        )
        self._questions = self._questionnaire.questions
        self.settings = self._questionnaire.settings
        self._folder, self._feedback, self._model = Path(folder), feedback, model
        self._judge, self._batch_size = judge, batch_size

    def run(
        self,
        policy: UnifiedPolicy,
        generator_seed: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Answers what is not answered yet, and scores.

        Args:
            policy: to be measured.
            generator_seed: of its sampling; None takes the suite's seed.
            progress: called with the number of questions answered and in all.

        Raises:
            RewardError: the judge does not tell good answers from bad ones.
            DataError: the feedback is to other answers.
            ConfigError: the folder holds answers of another policy or other settings.
        """
        judge = self._questionnaire.sound_judge(self._judge, mmie.sanity_set(), mmie.GREATEST)
        seed = self.settings["seed"] if generator_seed is None else generator_seed
        settings = {**self.settings, "generator_seed": seed}
        scorer = self._folder / SCORER_FOLDER
        answers = self._questionnaire.answered(policy, SCORER_FOLDER, settings, progress)
        rows = self._write_scorer_input(scorer, answers)
        replies = self._replies(judge, rows, answers)
        self._write_verdicts(replies, answers)
        labels = {}
        if judge is not None:
            settings["judge"] = dict(judge.describe())
            labels = dict.fromkeys(("mmie", "mmie_class_mean"), OTHER_JUDGE)
        return Evaluation(
            suite="mmie",
            settings=settings,
            metrics=self._metrics(answers, replies),
            labels=labels,
            gallery=self._questionnaire.gallery(answers),
        )

    def _write_scorer_input(
        self, scorer: Path, answers: Mapping[str, Answered]
    ) -> list[dict[str, Any]]:
        link = scorer / mmie.QUESTION_IMAGES
        root = self._root.resolve()
        if link.is_symlink() and link.resolve() != root:  # the images have moved
            link.unlink()
        if not link.exists():
            link.symlink_to(root, target_is_directory=True)
        rows = [
            mmie.scorer_row(question, answers[question.id], scorer, self._model)
            for question in self._questions
            if not answers[question.id].unasked
        ]
        write_text(scorer / SCORER_INPUT, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        return rows

    def _replies(
        self,
        judge: CachedJudge | None,
        rows: Sequence[Mapping[str, Any]],
        answers: Mapping[str, Answered],
    ) -> dict[str, str | None] | None:
        """What was said of each answer; None where nobody was asked."""
        if self._feedback is not None:
            return dict(mmie.read_feedback(Path(self._feedback), rows))
        if judge is None:
            return None
        scored = {
            row["id"] for row in rows if mmie.seen_by_scorer(row)[2] <= mmie.MOST_IMAGES
        }  # as the released scorer leaves the others out
        replies: dict[str, str | None] = {}
        questions = [question for question in self._questions if question.id in scored]
        for start in range(0, len(questions), self._batch_size):
            batch = questions[start : start + self._batch_size]
            asked = [self._asked(question, answers[question.id]) for question in batch]
            replies |= zip((q.id for q in batch), judge.ask(asked), strict=True)
        return replies

    def _asked(self, question: Question, answered: Answered) -> Any:
        reference = " ".join(part for part in question.reference if isinstance(part, str))
        asked, said = (opened(parts) for parts in (question.request.prompt, answered.parts))
        shown = mmie.ANSWER_IMAGES - sum(isinstance(part, Image) for part in asked)
        return mmie.judge_question(question.kind, asked, _first(said, shown), reference)

    def _metrics(
        self, answers: Mapping[str, Answered], replies: Mapping[str, str | None] | None
    ) -> dict[str, Estimate]:
        metrics = self._questionnaire.shares(answers)
        if replies is None:
            return metrics
        said = [replies.get(question.id) for question in self._questions]
        scores = [read_score(reply, mmie.GREATEST) for reply in said]
        metrics["unscored"] = estimate([float(score is None) for score in scores])
        least = [(score or 0) / mmie.GREATEST for score in scores]
        metrics["mmie_lower_bound"] = estimate(least).scaled(100)
        readings = {"mmie": scores}
        if self._feedback is not None:
            loose = [read_score_as_released(reply, mmie.GREATEST) for reply in said]
            readings["mmie_as_released"] = loose
        for name, values in readings.items():
            shares = [value / mmie.GREATEST for value in values if value is not None]
            if shares:
                metrics[name] = estimate(shares).scaled(100)
        classes: dict[str, tuple[list[float], None]] = {}
        for question, score in zip(self._questions, scores, strict=True):
            if score is not None:
                classes.setdefault(question.kind, ([], None))[0].append(score / mmie.GREATEST)
        for kind, (shares, _) in classes.items():
            metrics[f"mmie/{kind}"] = estimate(shares).scaled(100)
        if len(classes) == len(mmie.CLASSES):
            metrics["mmie_class_mean"] = macro_estimate(classes).scaled(100)
        return metrics

    def _write_verdicts(
        self, replies: Mapping[str, str | None] | None, answers: Mapping[str, Answered]
    ) -> None:
        verdicts = [
            {
                "id": question.id,
                "class": question.kind,
                "unasked": answers[question.id].unasked,
                "score": read_score((replies or {}).get(question.id), mmie.GREATEST),
                "reply": (replies or {}).get(question.id),
            }
            for question in self._questions
        ]
        write_text(self._folder / VERDICTS, json_lines(verdicts))


def _first(parts: Sequence[str | Image], image_count: int) -> list[str | Image]:
    """The parts of an answer up to so many images; a text at least."""
    kept: list[str | Image] = []
    for part in parts:
        if isinstance(part, Image):
            if image_count < 1:
                break
            image_count -= 1
        elif image_count < 1 and kept:
            break
        kept.append(part)
    return kept
