"""WISE, legacy formula: pictures that need knowledge of the world, scored by a judge."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Image, Text
from unified_rl.evaluation.asking import Progress
from unified_rl.evaluation.drawings.picture_folder import PictureFolder, Wanted
from unified_rl.evaluation.drawings.protocol import (
    PICTURES_ONLY,
    check_limit,
    comparability,
    counts,
    model_name,
)
from unified_rl.evaluation.drawings.wise_prompts import (
    CATEGORIES,
    PROMPT_COUNT,
    WisePrompt,
    category_of,
    read_wise,
)
from unified_rl.evaluation.drawings.wise_scores import (
    INSTRUCTION,
    WiseScores,
    instructed,
    read_instruction,
    read_scores,
    wiscore,
)
from unified_rl.evaluation.estimates import Estimate, estimate, macro_estimate
from unified_rl.evaluation.kept_answers import KeptAnswers
from unified_rl.evaluation.record import Evaluation, GalleryEntry
from unified_rl.rewards.judging import Judge, JudgeQuestion

WEIGHTS = {
    "culture": 0.4,
    "time": 0.167,
    "space": 0.133,
    "biology": 0.1,
    "physics": 0.1,
    "chemistry": 0.1,
}
"""Of the categories in the overall score; they sum to 1."""
OFFICIAL_JUDGE = "gpt-4o-2024-05-13"
_NONE = WiseScores(0, 0, 0)


class WiseSuite:
    """Draws every prompt once and has a judge score it on three scales from 0 to 2.

    Metrics, in [0, 1], intervals by resampling prompts: `wise`, the weighted sum of the six
    categories' mean WiScores, only if all six have prompts; `wise/<category>`;
    `wise_consistency`, `wise_realism` and `wise_aesthetics`, halves of the mean scores;
    `judge_failures`, the share of pictures without three scores, which count as 0.

    Source: WISE (arXiv 2503.07265), WISE_legacy: gpt_eval.py and Calculate.py, with which CoRL's
    table agrees. The upstream default is now WISE_Verified, another judge, other prompts and a
    binary score: not comparable.
    Departs: pictures without scores are 0 here; there, they are left out and no overall is given.

    Args:
        prompts: paths of the benchmark's JSON files.
        pictures: folder of the pictures, `<prompt_id>.png`, as the official tool reads them; those
            that it holds are not drawn again.
        judge: scores them; None draws only.
        instruction: path of a text that stands before the picture, with {prompt} and
            {explanation} in it; None takes our own words. docs/benchmarks.md says where the
            official text is.
        official_instruction: whether that text is the official one, word by word.
        attempts: questions, at most, for three scores of a picture; the official tool has 3.
        judge_batch: pictures that the judge is asked about at once.
        prompt_limit: of the first prompts; None takes all. Fewer are not the benchmark.
        behaviour: how pictures are drawn.
        batch_size: pictures at once; it shapes the randomness.
        seed: of the sampling.
        gallery_count: pictures that are kept to look at.

    Raises:
        DataError: prompts or instruction cannot be read.
        ConfigError: a number below 1.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        pictures: str,
        judge: Judge | None = None,
        instruction: str | None = None,
        official_instruction: bool = False,
        attempts: int = 3,
        judge_batch: int = 16,
        prompt_limit: int | None = None,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        batch_size: int = 16,
        seed: int = 0,
        gallery_count: int = 12,
    ) -> None:
        check_limit(prompt_limit)
        if attempts < 1 or judge_batch < 1:
            raise ConfigError(
                f"attempts={attempts} and judge_batch={judge_batch} must be at least 1"
            )
        self._prompts = read_wise(prompts)[:prompt_limit]
        self._instruction = INSTRUCTION if instruction is None else read_instruction(instruction)
        self._folder = PictureFolder(pictures, behaviour, batch_size, seed)
        self._judge, self._attempts, self._batch = judge, attempts, judge_batch
        self._gallery_count = gallery_count
        described = {} if judge is None else dict(judge.describe())
        official = instruction is not None and official_instruction
        found = {category_of(prompt.id) for prompt in self._prompts}
        missing = [name for name in CATEGORIES if name not in found]
        self._differences = [
            *counts("prompts", len(self._prompts), PROMPT_COUNT),
            *([f"no overall score without {', '.join(missing)}"] if missing else []),
            *([] if official else ["the judge's instruction is not the official text"]),
            *_judge_difference(described),
        ]
        self.settings: dict[str, Any] = {
            "formula": "WISE_legacy: (0.7 consistency + 0.2 realism + 0.1 aesthetics) / 2",
            "weights": WEIGHTS,
            "prompts": len(self._prompts),
            "instruction": self._instruction,
            "attempts": attempts,
            "drawing": self._folder.protocol(),
            "judge": described or None,
            "differences": self._differences,
        }

    def run(
        self,
        policy: Policy,
        generator_seed: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Draws what is missing, then has judged what has no scores yet.

        Args:
            policy: to be measured.
            generator_seed: not used: the pictures' seed is a setting, as their folder outlives a
                run.
            progress: called with the number of pictures there and in all.

        Raises:
            ConfigError: the folder holds pictures that were drawn otherwise.
        """
        wanted = [Wanted(f"{prompt.id}.png", prompt.text) for prompt in self._prompts]
        self._folder.draw(policy, wanted, progress)
        if self._judge is None:
            return Evaluation("wise", self.settings, {}, {"wise": PICTURES_ONLY})
        kept = KeptAnswers(self._folder.path / "scores.jsonl", self._judge.describe())
        scores: list[WiseScores | None] = []
        for start in range(0, len(wanted), self._batch):
            scores += self._scored(self._prompts[start : start + self._batch], kept)
        return Evaluation(
            suite="wise",
            settings=self.settings,
            metrics=metrics(self._prompts, scores),
            labels={"wise": comparability(self._differences)},
            gallery=tuple(self._shown(scores)),
        )

    def _scored(self, prompts: Sequence[WisePrompt], kept: KeptAnswers) -> list[WiseScores | None]:
        pictures = [self._folder.read(f"{prompt.id}.png") for prompt in prompts]
        texts = [instructed(self._instruction, prompt) for prompt in prompts]
        keys = [kept.key(*pair) for pair in zip(pictures, texts, strict=True)]
        for _ in range(self._attempts):
            rows = [row for row, key in enumerate(keys) if kept.get(key) is None]
            for row, scores in zip(rows, self._asked(rows, texts, pictures), strict=True):
                if scores is not None:
                    kept.put(keys[row], list(scores))
        found = [kept.get(key) for key in keys]
        return [None if values is None else WiseScores(*values) for values in found]

    def _asked(
        self, rows: Sequence[int], texts: Sequence[str], pictures: Sequence[np.ndarray]
    ) -> list[WiseScores | None]:
        if not rows:
            return []
        questions = [JudgeQuestion((Text(texts[r]), Image(pictures[r]))) for r in rows]
        replies = self._judge.ask(questions)
        return [None if reply is None else read_scores(reply) for reply in replies]

    def _shown(self, scores: Sequence[WiseScores | None]) -> list[GalleryEntry]:
        pairs = list(zip(self._prompts, scores, strict=True))[: self._gallery_count]
        return [
            GalleryEntry(
                prompt=prompt.text,
                texts=("no scores" if given is None else " ".join(map(str, given)),),
                images=(self._folder.read(f"{prompt.id}.png"),),
                correct=(given is not None and given.consistency == 2,),
                well_formed=True,
            )
            for prompt, given in pairs
        ]


def metrics(
    prompts: Sequence[WisePrompt], scores: Sequence[WiseScores | None]
) -> dict[str, Estimate]:
    """WISE's numbers; a picture without scores counts as 0."""
    given = [_NONE if one is None else one for one in scores]
    groups: dict[str, tuple[list[float], None]] = {}
    for prompt, one in zip(prompts, given, strict=True):
        groups.setdefault(category_of(prompt.id), ([], None))[0].append(wiscore(one))
    result = {}
    if groups.keys() == WEIGHTS.keys():
        result["wise"] = macro_estimate(groups, weights=WEIGHTS)
    result |= {f"wise/{name}": estimate(groups[name][0]) for name in CATEGORIES if name in groups}
    for name in WiseScores._fields:
        result[f"wise_{name}"] = estimate([getattr(one, name) / 2 for one in given])
    return result | {"judge_failures": estimate([float(one is None) for one in scores])}


def _judge_difference(described: Mapping[str, Any]) -> list[str]:
    name = model_name(described)
    if not described or name == OFFICIAL_JUDGE:
        return []
    return [f"the judge is {name}, not {OFFICIAL_JUDGE}"]
