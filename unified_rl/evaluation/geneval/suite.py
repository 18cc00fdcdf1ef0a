"""GenEval: pictures of 553 prompts, judged object by object."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.durable import write_text
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.evaluation.asking import Progress
from unified_rl.evaluation.drawings.picture_folder import PictureFolder, Wanted
from unified_rl.evaluation.drawings.protocol import comparability, counts
from unified_rl.evaluation.estimates import Estimate, estimate, macro_estimate
from unified_rl.evaluation.geneval.metadata import (
    PROMPT_COUNT,
    TAGS,
    Request,
    digest,
    read_metadata,
    request_row,
)
from unified_rl.evaluation.geneval.scorer import Scorer, row_of
from unified_rl.evaluation.geneval.scoring import Verdict
from unified_rl.evaluation.record import Evaluation, GalleryEntry

IMAGES_PER_PROMPT = 4
VERDICTS = "verdicts.jsonl"
"""Beside the pictures' folders; GenEval's summary_scores.py reads it."""


class GenEvalSuite:
    """Draws every prompt four times, keeps the pictures in GenEval's own layout, and judges them.

    `<pictures>/00000/metadata.jsonl` and `<pictures>/00000/samples/00000.png` are what GenEval's
    evaluate_images.py reads. Metrics, in [0, 1], intervals by resampling prompts:

    * `geneval`: the unweighted mean of the six tasks' shares of right pictures; `geneval/<tag>`
      each of them.
    * `images_correct`: the share of all pictures; `prompts_correct`: of prompts with a right one.

    Without a scorer there are no metrics, only pictures.

    Source: GenEval (arXiv 2310.11513), evaluate_images.py and summary_scores.py.

    Args:
        metadata: path of GenEval's evaluation_metadata.jsonl.
        pictures: folder of the pictures; those that it holds are not drawn again.
        scorer: judges them; None draws only.
        images_per_prompt: the benchmark has 4.
        prompt_limit: of the first prompts; None takes all. Fewer are not the benchmark.
        behaviour: how pictures are drawn.
        batch_size: pictures at once; it shapes the randomness.
        seed: of the sampling.
        gallery_count: pictures that are kept to look at, spread over the prompts.

    Raises:
        DataError: the metadata cannot be read.
        ConfigError: a number below 1.
    """

    def __init__(
        self,
        metadata: str,
        pictures: str,
        scorer: Scorer | None = None,
        images_per_prompt: int = IMAGES_PER_PROMPT,
        prompt_limit: int | None = None,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        batch_size: int = 16,
        seed: int = 0,
        gallery_count: int = 12,
    ) -> None:
        if images_per_prompt < 1 or (prompt_limit is not None and prompt_limit < 1):
            raise ConfigError(
                f"images_per_prompt={images_per_prompt} and prompt_limit={prompt_limit} must be at "
                "least 1"
            )
        self._requests = read_metadata(metadata)[:prompt_limit]
        self._folder = PictureFolder(pictures, behaviour, batch_size, seed)
        self._scorer, self._count = scorer, images_per_prompt
        self._gallery_count = gallery_count
        described = {} if scorer is None else dict(scorer.describe())
        self._differences = [
            *counts("prompts", len(self._requests), PROMPT_COUNT),
            *counts("pictures of a prompt", images_per_prompt, IMAGES_PER_PROMPT),
            *described.pop("differences", []),
        ]
        self.settings: dict[str, Any] = {
            "metadata": metadata,
            "metadata_digest": digest(self._requests),
            "prompts": len(self._requests),
            "images_per_prompt": images_per_prompt,
            "drawing": self._folder.protocol(),
            "scorer": described or None,
            "differences": self._differences,
        }

    def run(
        self,
        policy: Policy,
        generator_seed: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Draws what is missing, then judges all.

        Args:
            policy: to be measured.
            generator_seed: not used: the pictures' seed is a setting, as their folder outlives a
                run.
            progress: called with the number of pictures there and in all.

        Raises:
            ConfigError: the folder holds pictures that were drawn otherwise.
            DataError: the scorer lacks what it needs on a picture.
        """
        wanted = [
            Wanted(picture_name(index, number), request.prompt)
            for index, request in enumerate(self._requests)
            for number in range(self._count)
        ]
        self._folder.draw(policy, wanted, progress)
        for index, request in enumerate(self._requests):
            path = self._folder.path / f"{index:05}" / "metadata.jsonl"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, request_row(request) + "\n")
        if self._scorer is None:
            return Evaluation(
                "geneval", self.settings, {}, {"geneval": "pictures only: no scorer is set"}
            )
        asked = [request for request in self._requests for _ in range(self._count)]
        verdicts = [
            self._scorer(item.name, self._folder.read(item.name), request)
            for item, request in zip(wanted, asked, strict=True)
        ]
        self._write(wanted, asked, verdicts)
        return Evaluation(
            suite="geneval",
            settings=self.settings,
            metrics=metrics(asked, [judged.correct for judged in verdicts], self._count),
            labels=self._labels(),
            gallery=tuple(self._shown(wanted, verdicts)),
        )

    def _labels(self) -> dict[str, str]:
        found = {request.tag for request in self._requests}
        missing = [tag for tag in TAGS if tag not in found]
        absent = [f"no prompts of {', '.join(missing)}"] if missing else []
        return {"geneval": comparability([*self._differences, *absent])}

    def _write(
        self, wanted: Sequence[Wanted], asked: Sequence[Request], verdicts: Sequence[Verdict]
    ) -> None:
        rows = zip(wanted, asked, verdicts, strict=True)
        lines = [row_of(item.name, request, judged) for item, request, judged in rows]
        write_text(Path(self._folder.path / VERDICTS), "\n".join(lines) + "\n")

    def _shown(self, wanted: Sequence[Wanted], verdicts: Sequence[Verdict]) -> list[GalleryEntry]:
        count = min(self._gallery_count, len(wanted))
        rows = [index * len(wanted) // count for index in range(count)]
        return [
            GalleryEntry(
                prompt=wanted[row].prompt,
                texts=(verdicts[row].reason,) if verdicts[row].reason else (),
                images=(self._folder.read(wanted[row].name),),
                correct=(verdicts[row].correct,),
                well_formed=True,
            )
            for row in rows
        ]


def picture_name(prompt: int, number: int) -> str:
    """Where GenEval's layout has a picture of a prompt."""
    return f"{prompt:05}/samples/{number:05}.png"


def metrics(
    asked: Sequence[Request], correct: Sequence[bool], images_per_prompt: int
) -> dict[str, Estimate]:
    """GenEval's summary of its verdicts.

    Args:
        asked: what each picture was asked to show, those of a prompt side by side.
        correct: whether it does.
        images_per_prompt: pictures of each prompt.
    """
    groups: dict[str, tuple[list[float], list[int]]] = {}
    for row, (request, right) in enumerate(zip(asked, correct, strict=True)):
        values, clusters = groups.setdefault(request.tag, ([], []))
        values.append(float(right))
        clusters.append(row // images_per_prompt)
    prompts = [row // images_per_prompt for row in range(len(asked))]
    by_prompt = [
        float(any(correct[start : start + images_per_prompt]))
        for start in range(0, len(correct), images_per_prompt)
    ]
    return {
        "geneval": macro_estimate(groups),
        **{f"geneval/{tag}": estimate(*groups[tag]) for tag in TAGS if tag in groups},
        "images_correct": estimate([float(right) for right in correct], prompts),
        "prompts_correct": estimate(by_prompt),
    }
