"""InterleavedBench: interleaved answers to its questions, and five aspects of them scored."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.durable import write_text
from unified_rl.evaluation import interleavedbench as bench
from unified_rl.evaluation.answer_folder import Answered
from unified_rl.evaluation.asked_questions import AskedQuestions
from unified_rl.evaluation.asking import Progress
from unified_rl.evaluation.estimates import Estimate, estimate, macro_estimate
from unified_rl.evaluation.judgements import CachedJudge, opened, read_score
from unified_rl.evaluation.question_file import Question, json_lines
from unified_rl.evaluation.record import Evaluation
from unified_rl.models.base import UnifiedPolicy
from unified_rl.rewards.judging import Judge

ANSWERS_FOLDER, OUTPUT = "interleavedbench", "output.json"
VERDICTS = "verdicts.jsonl"
OTHER_WORDING = "asked in words of ours; not comparable with InterleavedBench's own numbers"

Scores = Mapping[tuple[str, str], tuple[int | None, str | None]]
"""Score and reply by id and aspect."""


class InterleavedBenchSuite:
    """Asks InterleavedBench's questions and scores the answers in five aspects.

    Answers are written in the layout of the benchmark's own rows, to `interleavedbench/output.json`
    with the images beside it. Without a judge the run ends there.

    Metrics from 0 (missing) to 5: `interleavedbench/<aspect>`, and `interleavedbench`, the mean of
    these; `interleavedbench/task/<task>`, the mean over a task's answers and aspects. Editing and
    subject-driven generation have no aspects of words, which are left out of all means. Unreadable
    scores are passed over, and count 0 in `interleavedbench_lower_bound`. In [0, 1]: `unscored`,
    `with_image` and `finished`.

    Args:
        path: of interleaved_bench.json.
        folder: where answers and judgements are kept; a killed run goes on.
        image_root: folder that image paths are relative to; None is that of the file.
        judge: None only writes the answers.
        model: name of the policy in the output.
        count: questions, spread evenly over the file; 0 asks all.
        seed: of the sampling.
        batch_size: questions at once.
        behaviour: how answers are drawn.
        gallery_count: answers that are kept to look at.

    Raises:
        ConfigError: numbers out of range.
        DataError: a file that cannot be read, or without a good question.
    """

    def __init__(
        self,
        path: str,
        folder: str,
        image_root: str | None = None,
        judge: Judge | None = None,
        model: str = "unified-rl",
        count: int = 0,
        seed: int = 0,
        batch_size: int = 8,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        gallery_count: int = 24,
    ) -> None:
        root = Path(path).parent if image_root is None else Path(image_root)
        self._questionnaire = AskedQuestions(
            path, folder, bench.parser(root), count, seed, batch_size, behaviour, gallery_count
        )
        self._questions = self._questionnaire.questions
        self._folder, self._model, self._judge = Path(folder), model, judge
        kinds = sorted({question.kind for question in self._questions})
        picture_tasks = [kind for kind in kinds if bench.is_picture_task(kind)]
        self.settings = {**self._questionnaire.settings, "picture_tasks": picture_tasks}

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
            ConfigError: the folder holds answers of another policy or other settings.
        """
        judge = self._questionnaire.sound_judge(self._judge, bench.sanity_set(), bench.GREATEST)
        seed = self.settings["seed"] if generator_seed is None else generator_seed
        settings = {**self.settings, "generator_seed": seed}
        kept = self._folder / ANSWERS_FOLDER
        answers = self._questionnaire.answered(policy, ANSWERS_FOLDER, settings, progress)
        self._write_output(kept, answers)
        scores = {} if judge is None else self._scores(judge, answers)
        self._write_verdicts(scores, answers)
        metrics = self._questionnaire.shares(answers)
        labels = {}
        if judge is not None:
            settings["judge"] = dict(judge.describe())
            metrics |= self._score_metrics(scores)
            labels = {"interleavedbench": OTHER_WORDING}
        return Evaluation(
            suite="interleavedbench",
            settings=settings,
            metrics=metrics,
            labels=labels,
            gallery=self._questionnaire.gallery(answers),
        )

    def _write_output(self, folder: Path, answers: Mapping[str, Answered]) -> None:
        rows = [_output_row(q, answers[q.id], folder, self._model) for q in self._questions]
        write_text(folder / OUTPUT, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")

    def _scores(self, judge: CachedJudge, answers: Mapping[str, Answered]) -> Scores:
        """Of every aspect that counts; what is missing scores 0 without asking."""
        scores: dict[tuple[str, str], tuple[int | None, str | None]] = {}
        for question in self._questions:
            answered = answers[question.id]
            if answered.unasked:
                scores |= {(question.id, a): (None, None) for a in bench.aspects_of(question.kind)}
                continue
            has = bool(answered.text), bool(answered.images)
            aspects = bench.aspects_of(question.kind)
            asked = [aspect for aspect in aspects if not bench.is_missing(aspect, *has)]
            scores |= {(question.id, a): (0, None) for a in aspects if a not in asked}
            prompt, said = opened(question.request.prompt), opened(answered.parts)
            replies = judge.ask([bench.judge_question(a, prompt, said) for a in asked])
            for aspect, reply in zip(asked, replies, strict=True):
                scores[question.id, aspect] = read_score(reply, bench.GREATEST), reply
        return scores

    def _score_metrics(self, scores: Scores) -> dict[str, Estimate]:
        by_aspect: dict[str, tuple[list[float], list[str]]] = {}
        least: dict[str, tuple[list[float], list[str]]] = {}
        by_task: dict[str, tuple[list[float], list[str]]] = {}
        kinds = {question.id: question.kind for question in self._questions}
        for (row_id, aspect), (score, _) in scores.items():
            groups = [(least, aspect)]
            if score is not None:
                groups += [(by_aspect, aspect), (by_task, kinds[row_id])]
            for group, name in groups:
                values, clusters = group.setdefault(name, ([], []))
                values.append((score or 0) / bench.GREATEST)
                clusters.append(row_id)  # the aspects of one answer are resampled together
        unscored = [float(score is None) for score, _ in scores.values()]
        metrics = {
            "unscored": estimate(unscored, [row_id for row_id, _ in scores]),
            "interleavedbench_lower_bound": macro_estimate(least).scaled(bench.GREATEST),
        }
        if by_aspect:
            metrics["interleavedbench"] = macro_estimate(by_aspect).scaled(bench.GREATEST)
        for aspect, group in by_aspect.items():
            name = f"interleavedbench/{aspect}"
            metrics[name] = estimate(*group).scaled(bench.GREATEST)
        for task, group in by_task.items():
            metrics[f"interleavedbench/task/{task}"] = estimate(*group).scaled(bench.GREATEST)
        return metrics

    def _write_verdicts(self, scores: Scores, answers: Mapping[str, Answered]) -> None:
        verdicts = [
            {
                "id": question.id,
                "task_name": question.kind,
                "unasked": answers[question.id].unasked,
                "scores": {
                    aspect: dict(zip(("score", "reply"), scores[question.id, aspect], strict=True))
                    for aspect in bench.aspects_of(question.kind)
                    if (question.id, aspect) in scores
                },
            }
            for question in self._questions
        ]
        write_text(self._folder / VERDICTS, json_lines(verdicts))


def _output_row(question: Question, answered: Answered, folder: Path, model: str) -> dict[str, Any]:
    """An answer in the benchmark's own layout: the asked turn, and ours with <image> in it."""
    asked = [bench.MARKER if isinstance(p, Path) else p for p in question.request.prompt]
    said = [bench.MARKER if isinstance(part, Path) else part for part in answered.parts]
    images = [Path(os.path.relpath(path, folder)).as_posix() for path in answered.images]
    return {
        "id": question.id,
        "task_name": question.kind,
        "model": model,
        "image": images,
        "conversations": [
            {"from": "human", "value": "\n".join(asked)},
            {"from": "gpt", "value": "\n".join(said)},
        ],
        "unasked": answered.unasked,
    }
