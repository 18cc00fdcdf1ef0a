"""GenEval's prompts and verdicts for the imbalance suite: UniRL's metric at full scale."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unified_rl.core.errors import DataError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.data.jsonl import BrokenRowError
from unified_rl.evaluation.geneval.metadata import Request, digest, read_metadata, request_of
from unified_rl.evaluation.geneval.scorer import Scorer
from unified_rl.prompting.categories import CATEGORIES, GENEVAL_TAGS, category_named


class GenEvalVerifier:
    """Judges pictures of everyday objects by GenEval's rules; a `PictureVerifier`.

    Args:
        scorer: that judges without having seen the pictures' files, such as `DetectionScorer` over
            a model.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def __call__(self, sample: Sample, pixels: np.ndarray) -> bool:
        """Whether the picture shows what the facts "category" and "include" say.

        Counting wants exactly the number asked for, whether or not the facts say "exclude".

        Raises:
            DataError: no such facts.
        """
        return self._scorer(sample.id, pixels, request_about(sample)).correct

    def describe(self) -> dict[str, Any]:
        """The scorer."""
        return dict(self._scorer.describe())


class GenEvalQuestions:
    """GenEval's prompts, each with a question about its picture and the right answer.

    Source: UniRL (arXiv 2505.23380) 3.6 and its validation_prompts/evaluation_metadata_qa.jsonl.

    Args:
        path: of such a file: GenEval's metadata with `question` and `answer` in each row.

    Raises:
        DataError: it cannot be read, a row has no question, or a category no prompts.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        requests = read_metadata(path)
        self._digest, self.count = digest(requests), len(requests)
        self._samples: dict[str, list[Sample]] = {category: [] for category in CATEGORIES}
        for number, request in enumerate(requests, start=1):
            sample = _sample(request, number, self._path)
            self._samples[sample.facts["category"]].append(sample)
        for category, samples in self._samples.items():
            if not samples:
                raise DataError(f"{path} has no prompts of category {category!r}")

    def __call__(self, category: str) -> Sequence[Sample]:
        """The prompts of one of the six categories, in the order of the file."""
        return self._samples[category]

    def describe(self) -> dict[str, Any]:
        """The file and what stands for its content."""
        return {"file": str(self._path), "digest": self._digest, "count": self.count}


def request_about(sample: Sample) -> Request:
    """What GenEval asks of a picture of a sample.

    Raises:
        DataError: the facts "category" and "include" do not say.
    """
    category, include = sample.facts.get("category"), sample.facts.get("include")
    if category not in GENEVAL_TAGS or not isinstance(include, list | tuple):
        raise DataError(
            f"sample {sample.id!r} has no facts 'category' and 'include' to judge its picture by "
            f"(it has {sorted(sample.facts)})"
        )
    include = [dict(entry) for entry in include]
    row: dict[str, Any] = {
        "tag": GENEVAL_TAGS[category],
        "prompt": sample.prompt_text or sample.id,
        "include": include,
    }
    if category == "counting":
        row["exclude"] = [{**entry, "count": entry.get("count", 0) + 1} for entry in include]
    try:
        return request_of(row)
    except BrokenRowError as error:
        raise DataError(f"sample {sample.id!r} {error}") from error


def _sample(request: Request, number: int, path: Path) -> Sample:
    row: Mapping[str, Any] = request.row
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise DataError(
                f"{path} prompt {number} has no {key!r}; give UniRL's evaluation_metadata_qa.jsonl"
            )
    return Sample(
        id=f"drawing/{request.prompt}",
        task=Task.TEXT_TO_IMAGE,
        prompt=(Text(request.prompt),),
        facts={
            "category": category_named(request.tag),
            "include": row["include"],
            "question": row["question"],
            "answer": row["answer"],
        },
    )
