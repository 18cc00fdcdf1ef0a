"""DPG-Bench: pictures of 1,065 dense prompts, judged by questions about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.protocols import Policy
from unified_rl.evaluation.asking import Progress
from unified_rl.evaluation.drawings.graph_scores import cascading
from unified_rl.evaluation.drawings.picture_folder import PictureFolder, numbered, save_picture
from unified_rl.evaluation.drawings.protocol import (
    PICTURES_ONLY,
    check_limit,
    comparability,
    counts,
)
from unified_rl.evaluation.drawings.question_graphs import QuestionGraph, read_graphs
from unified_rl.evaluation.drawings.question_round import QuestionRound, answerer_difference
from unified_rl.evaluation.drawings.vqa import QuestionAnswerer
from unified_rl.evaluation.estimates import Estimate, estimate
from unified_rl.evaluation.record import Evaluation, GalleryEntry

PROMPT_COUNT = 1065
PICTURES = 4
"""Of a prompt, in one grid of two by two."""
GRIDS = "grids"
"""Folder of the grids, for the official tool, beside the pictures."""
_SCALE = 100
_PROMPT_CHARACTERS = 10_000


class DpgSuite:
    """Draws every prompt four times and asks the questions of the table about each picture.

    Metrics, from 0 to 100, intervals by resampling prompts:

    * `dpg`: a picture's share of questions answered yes whose parents hold (see `cascading`), the
      mean over a prompt's pictures and then over prompts.
    * `dpg_last_picture/<category>`: as the official tool reports categories, from the answers
      themselves, parents or not, about the last picture of each prompt alone.
    * `dpg_category/<category>`: the same from all pictures.

    Categories are "entity" and the like, and "entity - whole" and the like within them.
    `<pictures>/grids/<id>.png` are what the official tool reads.

    Source: ELLA (arXiv 2403.05135), compute_dpg_bench.py.

    Args:
        prompts: folder of the benchmark's prompts, `<id>.txt`.
        table: path of its dpg_bench.csv.
        pictures: folder of the pictures; those that it holds are not drawn again.
        answerer: answers the questions; None draws only. The official tool has mPLUG-large, which
            transformers does not.
        skip_first_row: whether the first question of the table is left out, as the official
            loader does. A prompt of which a parent is lost so is then left out altogether, as that
            loader's tool fails on it.
        pictures_per_prompt: 1 to 4; the benchmark has 4.
        prompt_limit: of the first prompts; None takes all. Fewer are not the benchmark.
        behaviour: how pictures are drawn.
        batch_size: pictures at once; it shapes the randomness.
        seed: of the sampling.
        gallery_count: pictures that are kept to look at.

    Raises:
        DataError: prompts or table cannot be read, or have nothing in common.
        ConfigError: a number out of its range.
    """

    def __init__(
        self,
        prompts: str,
        table: str,
        pictures: str,
        answerer: QuestionAnswerer | None = None,
        skip_first_row: bool = True,
        pictures_per_prompt: int = PICTURES,
        prompt_limit: int | None = None,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        batch_size: int = 16,
        seed: int = 0,
        gallery_count: int = 12,
    ) -> None:
        check_limit(prompt_limit)
        if not 1 <= pictures_per_prompt <= PICTURES:
            raise ConfigError(f"pictures_per_prompt={pictures_per_prompt} must be 1 to {PICTURES}")
        self._prompts = read_prompts(Path(prompts))
        self._prompts = dict(list(self._prompts.items())[:prompt_limit])
        graphs = read_graphs(table, skip_first_row)
        self._graphs = {
            item: graphs[item]
            for item in self._prompts
            if item in graphs and not graphs[item].lost_parents
        }
        if not self._graphs:
            raise DataError(f"{table} has no questions about the prompts of {prompts}")
        self._folder = PictureFolder(pictures, behaviour, batch_size, seed)
        self._answerer, self._count = answerer, pictures_per_prompt
        self._gallery_count = gallery_count
        described = {} if answerer is None else dict(answerer.describe())
        left_out = len(self._prompts) - len(self._graphs)
        self._differences = [
            *counts("prompts", len(self._prompts), PROMPT_COUNT),
            *counts("pictures of a prompt", pictures_per_prompt, PICTURES),
            *answerer_difference(described, "dpg", "mPLUG-large"),
            *([] if skip_first_row else ["the first question of the table is asked too"]),
        ]
        self.settings: dict[str, Any] = {
            "prompts": len(self._prompts),
            "prompts_left_out": left_out,
            "table": table,
            "skip_first_row": skip_first_row,
            "pictures_per_prompt": pictures_per_prompt,
            "drawing": self._folder.protocol(),
            "answerer": described or None,
            "differences": self._differences,
        }

    def run(
        self,
        policy: Policy,
        generator_seed: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Draws what is missing, then asks what has not been asked.

        Args:
            policy: to be measured.
            generator_seed: not used: the pictures' seed is a setting, as their folder outlives a
                run.
            progress: called with the number of pictures there and in all.

        Raises:
            ConfigError: the folder holds pictures that were drawn otherwise.
        """
        self._folder.draw(policy, list(numbered(self._prompts, self._count)), progress)
        for item in self._prompts:
            path = self._folder.path / GRIDS / f"{item}.png"
            if not path.is_file():
                save_picture(path, grid([self._picture(item, k) for k in range(self._count)]))
        if self._answerer is None:
            return Evaluation("dpg", self.settings, {}, {"dpg": PICTURES_ONLY})
        asking = QuestionRound(self._answerer, self._folder.path / "answers.jsonl")
        answers = {
            item: [asking(self._picture(item, k), graph) for k in range(self._count)]
            for item, graph in self._graphs.items()
        }
        labels = {"dpg": comparability(self._differences), "answers": asking.failures()}
        if self.settings["prompts_left_out"]:
            labels["left_out"] = (
                f"{self.settings['prompts_left_out']} prompts without questions, or of which a "
                "question depends on one that is not in the table"
            )
        return Evaluation(
            suite="dpg",
            settings=self.settings,
            metrics=metrics(self._graphs, answers),
            labels=labels,
            gallery=tuple(self._shown(answers)),
        )

    def _picture(self, item: str, number: int) -> np.ndarray:
        return self._folder.read(f"{item}/{number}.png")

    def _shown(self, answers: Mapping[str, Sequence[Mapping[int, bool]]]) -> list[GalleryEntry]:
        entries = []
        for item, given in list(answers.items())[: self._gallery_count]:
            graph = self._graphs[item]
            wrong = [text for number, text in graph.questions.items() if not given[0][number]]
            picture = self._picture(item, 0)
            entries.append(
                GalleryEntry(self._prompts[item], tuple(wrong), (picture,), (not wrong,), True)
            )
        return entries


def metrics(
    graphs: Mapping[str, QuestionGraph], answers: Mapping[str, Sequence[Mapping[int, bool]]]
) -> dict[str, Estimate]:
    """DPG-Bench's numbers.

    Args:
        graphs: by prompt.
        answers: of each prompt, to the questions about each of its pictures.
    """
    scores, last, every = [], _Categories(), _Categories()
    for item, graph in graphs.items():
        shares = [cascading(graph, given) for given in answers[item]]
        scores.append(sum(shares) / len(shares))
        last.add(item, graph, answers[item][-1])
        for given in answers[item]:
            every.add(item, graph, given)
    return {
        "dpg": estimate(scores).scaled(_SCALE),
        **last.estimates("dpg_last_picture"),
        **every.estimates("dpg_category"),
    }


class _Categories:
    """Answers by category, and by the wider one that it belongs to."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[list[float], list[str]]] = {}

    def add(self, item: str, graph: QuestionGraph, answers: Mapping[int, bool]) -> None:
        """The answers about one picture."""
        for number, category in graph.categories.items():
            for name in dict.fromkeys((category.split("-")[0].strip(), category)):
                values, clusters = self._groups.setdefault(name, ([], []))
                values.append(float(answers[number]))
                clusters.append(item)

    def estimates(self, metric: str) -> dict[str, Estimate]:
        """From 0 to 100, by "<metric>/<category>"."""
        return {
            f"{metric}/{name}": estimate(*group).scaled(_SCALE)
            for name, group in sorted(self._groups.items())
        }


def read_prompts(folder: Path) -> dict[str, str]:
    """The prompts of a folder by their file's name without ".txt", in the order of the names.

    Raises:
        DataError: no such folder, no prompts in it, or one that is no text.
    """
    if not folder.is_dir():
        raise DataError(f"prompts={folder} is not a folder; give DPG-Bench's folder of .txt files")
    prompts = {}
    for path in sorted(folder.glob("*.txt")):
        if path.stem in ("..", ".", GRIDS):  # pictures lie in a folder of this name
            raise DataError(f"{path} gives its pictures the folder {path.stem!r}; rename it")
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(_PROMPT_CHARACTERS + 1).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {str(error)[:80]}") from error
        if not text or len(text) > _PROMPT_CHARACTERS:
            raise DataError(f"{path} is no prompt of 1 to {_PROMPT_CHARACTERS} characters")
        prompts[path.stem] = text
    if not prompts:
        raise DataError(f"prompts={folder} holds no .txt files; give DPG-Bench's prompts")
    return prompts


def grid(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Up to four pictures of one size as the official tool cuts them: two a row, the rest black.

    One picture alone is its own grid.
    """
    if len(pictures) == 1:
        return pictures[0]
    height, width = pictures[0].shape[:2]
    whole = np.zeros((2 * height, 2 * width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 2)
        top, left = row * height, column * width
        whole[top : top + height, left : left + width] = picture
    return whole
