"""The micro-world suite of CoRL: drawings, and questions answered after thought."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Completion, Image, Sample
from unified_rl.data.microworld import drawing_sample
from unified_rl.data.reasoning import reasoned_sample
from unified_rl.evaluation.asking import Progress, ask_policy, by_category, cycled
from unified_rl.evaluation.estimates import estimate, macro_estimate
from unified_rl.evaluation.record import Evaluation, GalleryEntry
from unified_rl.microworld.facts import compose
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.reasoning import KINDS, ask_reasoned
from unified_rl.microworld.splits import check_split
from unified_rl.rewards.accuracy import AccuracyReward
from unified_rl.rewards.reasoning_format import is_reasoned
from unified_rl.rewards.visual import VisualReward

_DRAWINGS, _QUESTIONS = 1, 4


class ReasoningSuite:
    """Measures how well a policy draws, and answers questions in the reasoned form.

    What is asked depends on the settings alone. Metrics, all in [0, 1] and strict:
    `generation_accuracy`; `choice_accuracy` and `open_accuracy` (the right answer in the form
    `<think>..</think><answer>..</answer>`); `understanding_accuracy`, their mean;
    `reasoning_format`; and `<metric>/<category>` of the first three, whose means are over the six
    categories.

    Args:
        drawings_per_category: prompts of each category to draw; 0 leaves drawings out.
        questions_per_category: questions of each category and kind; 0 leaves them out.
        split: "train", "validation" or "test".
        seed: of the choice of prompts and pictures asked about.
        batch_size: samples at once.
        behaviour_image: how drawings are drawn.
        behaviour_answer: how answers are drawn.
        gallery_count: drawings, spread over the categories, that are kept to look at.
        gallery_question_count: questions, spread over categories and kinds, that are kept so.

    Raises:
        ConfigError: a count below 0 or a batch below 1, nothing to measure, or an unknown split.
    """

    def __init__(
        self,
        drawings_per_category: int = 100,
        questions_per_category: int = 50,
        split: str = "test",
        seed: int = 0,
        batch_size: int = 100,
        behaviour_image: Behaviour = Behaviour(),  # noqa: B008 - frozen
        behaviour_answer: Behaviour = Behaviour(),  # noqa: B008 - frozen
        gallery_count: int = 12,
        gallery_question_count: int = 8,
    ) -> None:
        self.settings: dict[str, Any] = {
            "drawings_per_category": drawings_per_category,
            "questions_per_category": questions_per_category,
            "split": split,
            "seed": seed,
            "batch_size": batch_size,
            "behaviour_image": dataclasses.asdict(behaviour_image),
            "behaviour_answer": dataclasses.asdict(behaviour_answer),
            "gallery_count": gallery_count,
            "gallery_question_count": gallery_question_count,
        }
        counts = drawings_per_category, questions_per_category
        kept = gallery_count, gallery_question_count
        if min(*counts, *kept) < 0 or not any(counts) or batch_size < 1:
            raise ConfigError(
                f"evaluation of {drawings_per_category} drawings and {questions_per_category} "
                f"questions a category, batch_size={batch_size}, gallery_count={gallery_count}, "
                f"gallery_question_count={gallery_question_count}: counts must be 0 or more, "
                "drawings and questions not both 0, and batch_size at least 1"
            )
        try:
            check_split(split)
        except ValueError as error:
            raise ConfigError(f"evaluation: {error}") from error
        self._drawings = [
            drawing_sample(prompt)
            for category in CATEGORIES
            for prompt in cycled(prompts(category, split), drawings_per_category, seed, _DRAWINGS)
        ]
        self._questions = list(_questions(questions_per_category, split, seed))
        self._behaviours = behaviour_image, behaviour_answer
        self._batch_size, self._kept = batch_size, kept

    def run(
        self,
        policy: Policy,
        generator_seed: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Asks the policy everything, in evaluation mode and without gradients.

        Args:
            policy: to be measured.
            generator_seed: of its sampling; None takes the suite's seed.
            progress: called with the number of samples done and in all.

        Raises:
            RewardError: images that the verifier does not read.
        """
        if generator_seed is None:
            generator_seed = self.settings["seed"]
        parts = list(zip((self._drawings, self._questions), self._behaviours, strict=True))
        drawings, answers = ask_policy(policy, parts, self._batch_size, generator_seed, progress)
        drawn = [
            VisualReward(strict_weight=1.0).score(*pair).outcome == 1
            for pair in zip(self._drawings, drawings, strict=True)
        ]
        metrics = by_category("generation_accuracy", self._drawings, drawn)
        right = [
            AccuracyReward().score(*pair).outcome
            for pair in zip(self._questions, answers, strict=True)
        ]
        kinds = {}
        for kind in KINDS:
            rows = [i for i, s in enumerate(self._questions) if s.facts["kind"] == kind]
            asked, scores = [self._questions[i] for i in rows], [right[i] for i in rows]
            metrics |= by_category(f"{kind}_accuracy", asked, scores)
            kinds[kind] = scores, [sample.id for sample in asked]
        if self._questions:
            ids = [sample.id for sample in self._questions]
            metrics["understanding_accuracy"] = macro_estimate(kinds)
            metrics["reasoning_format"] = estimate([float(is_reasoned(a)) for a in answers], ids)
        return Evaluation(
            suite="micro_world_reasoning",
            settings={**self.settings, "generator_seed": generator_seed},
            metrics=metrics,
            gallery=(
                *self._drawn(drawings, drawn),
                *self._answered(answers, [outcome == 1 for outcome in right]),
            ),
        )

    def _drawn(
        self, drawings: Sequence[Completion], right: Sequence[bool]
    ) -> Iterator[GalleryEntry]:
        for row in _spread(len(drawings), self._kept[0]):
            prompt = self._drawings[row].prompt_text
            yield GalleryEntry(prompt, (), drawings[row].images, (right[row],), True)

    def _answered(
        self, answers: Sequence[Completion], right: Sequence[bool]
    ) -> Iterator[GalleryEntry]:
        for row in _spread(len(answers), self._kept[1]):
            question, answer = self._questions[row], answers[row]
            yield GalleryEntry(
                prompt=question.prompt_text,
                texts=answer.texts,
                images=answer.images,
                correct=(right[row],),
                well_formed=is_reasoned(answer),
                shown=tuple(s.pixels for s in question.prompt if isinstance(s, Image)),
            )


def _questions(count: int, split: str, seed: int) -> Iterator[Sample]:
    """`count` of each category and kind; a category has the same number of each, so means agree."""
    for index, category in enumerate(CATEGORIES):
        for place, kind in enumerate(KINDS):
            rng = np.random.default_rng([seed, _QUESTIONS, index, place])
            for prompt in cycled(prompts(category, split), count, seed, _QUESTIONS):
                scene = compose(prompt.facts, rng)
                yield reasoned_sample(ask_reasoned(prompt, scene, kind, rng), gold=False)


def _spread(size: int, count: int) -> list[int]:
    """`count` places, evenly spread over `size`."""
    count = min(size, count)
    return [index * size // count for index in range(count)]
