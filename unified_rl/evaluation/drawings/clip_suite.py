"""CLIP score over benchmark prompts, as UniRL reports it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.evaluation.asking import Progress, cycled
from unified_rl.evaluation.drawings.picture_folder import PictureFolder, Wanted
from unified_rl.evaluation.drawings.protocol import PICTURES_ONLY, comparability, counts
from unified_rl.evaluation.drawings.question_graphs import read_graphs
from unified_rl.evaluation.estimates import Estimate, estimate
from unified_rl.evaluation.geneval.metadata import read_metadata
from unified_rl.evaluation.record import Evaluation, GalleryEntry

PICTURE_COUNT = 2000
_PART = 9  # of the seed: the order of the prompts
_BATCH = 32


class PictureScorer(Protocol):
    """Scores how well pictures fit their prompts."""

    def judge(self, samples: Sequence[Sample], pictures: Sequence[np.ndarray]) -> list[float]:
        """One finite score a picture; `unified_rl.rewards.clip_score.ClipScoreReward` has it."""
        ...


class ClipScoreSuite:
    """Draws GenEval's and DSG-1K's prompts and takes the mean cosine of picture and prompt.

    Metric: `clip_score`, the raw cosine in [-1, 1], neither clamped nor scaled, the interval by
    resampling prompts.

    Source: UniRL (arXiv 2505.23380) 4.2: 2,000 pictures of these prompts.
    Departs: the paper says neither which CLIP nor how 1,613 prompts make 2,000 pictures; here every
    prompt is drawn once before any is drawn again. Its values near 0.33 are usual for ViT-B/32 and
    ViT-L/14 and are no sign of another CLIP's.

    Args:
        geneval: path of GenEval's evaluation_metadata.jsonl; None leaves it out.
        dsg: path of DSG-1K's dsg-1k-anns.csv; None leaves it out.
        pictures: folder of the pictures; those that it holds are not drawn again.
        scorer: gives raw cosines, `ClipScoreReward` with its scale of 1; None draws only.
        clip: name of its model, for the results.
        picture_count: in all.
        behaviour: how pictures are drawn.
        batch_size: pictures at once; it shapes the randomness.
        seed: of the sampling and of the choice of prompts.
        gallery_count: pictures that are kept to look at.

    Raises:
        DataError: prompts cannot be read.
        ConfigError: no prompts, or a number below 1.
    """

    def __init__(
        self,
        pictures: str,
        geneval: str | None = None,
        dsg: str | None = None,
        scorer: PictureScorer | None = None,
        clip: str | None = None,
        picture_count: int = PICTURE_COUNT,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        batch_size: int = 16,
        seed: int = 0,
        gallery_count: int = 12,
    ) -> None:
        if picture_count < 1:
            raise ConfigError(f"picture_count={picture_count} must be at least 1")
        if getattr(scorer, "scale", 1) != 1:
            raise ConfigError(f"scorer.scale={scorer.scale} must be 1: UniRL's are raw cosines")
        prompts = [request.prompt for request in read_metadata(geneval)] if geneval else []
        prompts += [graph.text for graph in read_graphs(dsg).values()] if dsg else []
        if not prompts:
            raise ConfigError("geneval and dsg are both null; give the file of one at least")
        self._prompts = cycled(prompts, picture_count, seed, _PART)
        self._folder = PictureFolder(pictures, behaviour, batch_size, seed)
        self._scorer, self._gallery_count = scorer, gallery_count
        self._differences = [
            *counts("pictures", picture_count, PICTURE_COUNT),
            *([] if geneval and dsg else ["prompts of one of the two benchmarks alone"]),
            "the paper does not say which CLIP it takes",
        ]
        self.settings: dict[str, Any] = {
            "geneval": geneval,
            "dsg": dsg,
            "prompts": len(prompts),
            "pictures": picture_count,
            "clip": clip,
            "drawing": self._folder.protocol(),
            "differences": self._differences,
        }

    def run(
        self,
        policy: Policy,
        generator_seed: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Draws what is missing, then scores all.

        Args:
            policy: to be measured.
            generator_seed: not used: the pictures' seed is a setting, as their folder outlives a
                run.
            progress: called with the number of pictures there and in all.

        Raises:
            ConfigError: the folder holds pictures that were drawn otherwise.
            DataError: a score that is no cosine.
        """
        wanted = [Wanted(f"{i:05}.png", prompt) for i, prompt in enumerate(self._prompts)]
        self._folder.draw(policy, wanted, progress)
        if self._scorer is None:
            return Evaluation("clip_score", self.settings, {}, {"clip_score": PICTURES_ONLY})
        cosines: list[float] = []
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            samples = [Sample(w.name, Task.TEXT_TO_IMAGE, (Text(w.prompt),)) for w in batch]
            cosines += self._scorer.judge(samples, [self._folder.read(w.name) for w in batch])
        return Evaluation(
            suite="clip_score",
            settings=self.settings,
            metrics=metrics(cosines, self._prompts),
            labels={"clip_score": comparability(self._differences)},
            gallery=tuple(
                GalleryEntry(w.prompt, (f"{cosine:.4f}",), (self._folder.read(w.name),), (), True)
                for w, cosine in list(zip(wanted, cosines, strict=True))[: self._gallery_count]
            ),
        )


def metrics(cosines: Sequence[float], prompts: Sequence[str]) -> Mapping[str, Estimate]:
    """The mean cosine; pictures of one prompt are resampled together.

    Raises:
        DataError: a value outside of [-1, 1].
    """
    if not all(math.isfinite(c) and abs(c) <= 1 + 1e-4 for c in cosines):
        raise DataError("the scorer gives values outside of [-1, 1], which are no cosines")
    shares = [min(max((cosine + 1) / 2, 0), 1) for cosine in cosines]
    found = estimate(shares, prompts)
    ends = {name: 2 * getattr(found, name) - 1 for name in ("value", "low", "high")}
    return {"clip_score": dataclasses.replace(found, **ends)}
