"""Asks all questions about a picture, each of them once for ever."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unified_rl.evaluation.drawings.protocol import model_name
from unified_rl.evaluation.drawings.question_graphs import QuestionGraph
from unified_rl.evaluation.drawings.vqa import PictureQuestion, QuestionAnswerer
from unified_rl.evaluation.kept_answers import KeptAnswers


class QuestionRound:
    """Answers to the questions of one picture after another.

    Answers are kept in a file; what got none is asked again by the next run. In this run it counts
    as no.

    Args:
        answerer: answers.
        kept: file of answers.

    Attributes:
        asked_count: questions so far.
        failure_count: of which got no answer.
    """

    def __init__(self, answerer: QuestionAnswerer, kept: Path) -> None:
        self._answerer = answerer
        self._kept = KeptAnswers(kept, answerer.describe())
        self.asked_count = self.failure_count = 0

    def __call__(self, pixels: np.ndarray, graph: QuestionGraph) -> dict[int, bool]:
        """The answer to each question by its number, True for yes.

        Args:
            pixels: uint8 (height, width, 3).
            graph: of its prompt.
        """
        keys = {number: self._kept.key(pixels, text) for number, text in graph.questions.items()}
        missing = [number for number, key in keys.items() if self._kept.get(key) is None]
        questions = [PictureQuestion(pixels, graph.questions[number]) for number in missing]
        for number, answer in zip(missing, self._answerer(questions), strict=True):
            if answer is None:
                self.failure_count += 1
            else:
                self._kept.put(keys[number], answer)
        self.asked_count += len(keys)
        return {number: self._kept.get(key) is True for number, key in keys.items()}

    def failures(self) -> str:
        """For readers."""
        return f"{self.failure_count} of {self.asked_count} questions got no answer, counted as no"


def answerer_difference(described: Mapping[str, Any], benchmark: str, published: str) -> list[str]:
    """The difference that another model answers than the benchmark's own, if it does.

    Args:
        described: by the answerer; empty for none.
        benchmark: "dpg" or "dsg".
        published: what answers there.
    """
    if not described or benchmark in described.get("official", ()):
        return []
    name = model_name({**described, **described.get("judge", {})})
    return [f"questions are answered by {name}, not by {published}"]
