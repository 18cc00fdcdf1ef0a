"""DSG-1K: a picture of each of 1,060 prompts, judged by a graph of questions."""

from typing import Any

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.protocols import Policy
from unified_rl.evaluation.asking import Progress
from unified_rl.evaluation.drawings.graph_scores import filtered, plain
from unified_rl.evaluation.drawings.picture_folder import PictureFolder, Wanted
from unified_rl.evaluation.drawings.protocol import (
    PICTURES_ONLY,
    check_limit,
    comparability,
    counts,
)
from unified_rl.evaluation.drawings.question_graphs import read_graphs
from unified_rl.evaluation.drawings.question_round import QuestionRound, answerer_difference
from unified_rl.evaluation.drawings.vqa import QuestionAnswerer
from unified_rl.evaluation.estimates import Estimate, estimate
from unified_rl.evaluation.record import Evaluation, GalleryEntry

PROMPT_COUNT = 1060
SOURCES = {
    "tifa": "tifa",
    "stanford": "paragraph",
    "localized": "paragraph",
    "countbench": "count",
    "vrd": "relation",
    "diffusion": "real_user",
    "midjourney": "real_user",
    "posescript": "pose",
    "whoops": "defying",
    "drawtext": "text",
}
"""DSG's category of a prompt by what its id holds, the first that fits."""


class DsgSuite:
    """Draws every prompt once and asks its questions.

    Metrics, in [0, 1], intervals by resampling prompts: `dsg`, a picture's share of questions
    answered yes whose parents are answered yes too (see `filtered`), the mean over prompts;
    `dsg/<category>` by where the prompts are from; `dsg_without_dependency`, all answers counted.

    Source: DSG (arXiv 2310.18235) and its t2i_eval_dsg1k.py.
    Departs: UniRL, which reports it, does not say which model answers.

    Args:
        table: path of the benchmark's dsg-1k-anns.csv.
        pictures: folder of the pictures; those that it holds are not drawn again.
        answerer: answers the questions; None draws only.
        prompt_limit: of the first prompts; None takes all. Fewer are not the benchmark.
        behaviour: how pictures are drawn.
        batch_size: pictures at once; it shapes the randomness.
        seed: of the sampling.
        gallery_count: pictures that are kept to look at.

    Raises:
        DataError: the table cannot be read.
        ConfigError: a number below 1.
    """

    def __init__(
        self,
        table: str,
        pictures: str,
        answerer: QuestionAnswerer | None = None,
        prompt_limit: int | None = None,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        batch_size: int = 16,
        seed: int = 0,
        gallery_count: int = 12,
    ) -> None:
        check_limit(prompt_limit)
        self._graphs = dict(list(read_graphs(table).items())[:prompt_limit])
        self._folder = PictureFolder(pictures, behaviour, batch_size, seed)
        self._answerer, self._gallery_count = answerer, gallery_count
        described = {} if answerer is None else dict(answerer.describe())
        published = "mPLUG-large, InstructBLIP, GPT-4o or PaLI-17B"
        self._differences = [
            *counts("prompts", len(self._graphs), PROMPT_COUNT),
            *answerer_difference(described, "dsg", published),
        ]
        self.settings: dict[str, Any] = {
            "prompts": len(self._graphs),
            "prompts_without_dependencies": sum(g.unclear for g in self._graphs.values()),
            "table": table,
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
        names = {item: f"{index:05}.png" for index, item in enumerate(self._graphs)}
        wanted = [Wanted(names[item], graph.text) for item, graph in self._graphs.items()]
        self._folder.draw(policy, wanted, progress)
        if self._answerer is None:
            return Evaluation("dsg", self.settings, {}, {"dsg": PICTURES_ONLY})
        asking = QuestionRound(self._answerer, self._folder.path / "answers.jsonl")
        scores: dict[str, float] = {}
        unfiltered: list[float] = []
        gallery: list[GalleryEntry] = []
        for item, graph in self._graphs.items():
            pixels = self._folder.read(names[item])
            answers = asking(pixels, graph)
            scores[item] = filtered(graph, answers)
            unfiltered.append(plain(graph, answers))
            if len(gallery) < self._gallery_count:
                wrong = [text for number, text in graph.questions.items() if not answers[number]]
                gallery.append(
                    GalleryEntry(graph.text, tuple(wrong), (pixels,), (not wrong,), True)
                )
        metrics = by_source(scores)
        metrics["dsg_without_dependency"] = estimate(unfiltered)
        labels = {"dsg": comparability(self._differences), "answers": asking.failures()}
        return Evaluation("dsg", self.settings, metrics, labels, tuple(gallery))


def by_source(scores: dict[str, float]) -> dict[str, Estimate]:
    """`dsg` over all prompts and `dsg/<category>` by where they are from.

    Args:
        scores: in [0, 1], by the prompt's id.
    """
    groups: dict[str, list[float]] = {}
    for item, score in scores.items():
        groups.setdefault(source_of(item), []).append(score)
    return {
        "dsg": estimate(list(scores.values())),
        **{f"dsg/{name}": estimate(values) for name, values in sorted(groups.items())},
    }


def source_of(item: str) -> str:
    """DSG's category of a prompt's id, "other" for one that is not of DSG-1K."""
    return next((name for part, name in SOURCES.items() if part in item), "other")
