"""The micro-world suite: stories, drawings and questions that training has not seen."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Sample
from unified_rl.data.microworld import drawing_sample, question_sample, story_sample
from unified_rl.evaluation.asking import Progress, ask_policy, by_category, cycled
from unified_rl.evaluation.record import Evaluation, GalleryEntry
from unified_rl.evaluation.story_judge import judge_story, story_metrics
from unified_rl.microworld.facts import compose
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.questions import ask
from unified_rl.microworld.splits import check_split
from unified_rl.microworld.stories import stories
from unified_rl.rewards.textual import TextualReward
from unified_rl.rewards.visual import VisualReward

LABELS = {
    "interleavedbench_like": "micro-world stand-in, 0 to 5; not comparable with InterleavedBench",
    "mmie_like": "micro-world stand-in, 0 to 100; not comparable with MMIE",
}
_STORIES, _DRAWINGS, _QUESTIONS = range(3)


class MicroWorldSuite:
    """Measures how well a policy tells stories, draws and answers in the micro-world.

    What is asked depends on the settings alone; every story, and every prompt of a category, is
    used before any is used again. Intervals resample prompts.

    Metrics, in [0, 1] but for the last two: `format_validity`, `text_relevance`,
    `visual_correctness` (share of a story's required pictures that are strictly right; missing
    ones are not) and `visual_correctness/step_<k>` from 1, `joint_correctness` (all pictures
    right, none superfluous, well formed), `consistency` (share of pictures that show exactly what
    their thought says), `coherence`; `generation_accuracy` and `understanding_accuracy` (means
    over the six categories) and `.../<category>`, all strict; `interleavedbench_like/<aspect>` and
    `/average` (0 to 5) and `mmie_like` (0 to 100), see `StoryVerdict`.

    Args:
        story_count: stories to tell; 0 leaves stories out.
        story_steps: 2 or 3.
        drawings_per_category: text-to-image prompts of each category; 0 leaves them out.
        questions_per_category: questions of each category; 0 leaves them out.
        split: "train", "validation" or "test".
        seed: of the choice of stories, prompts and pictures asked about.
        batch_size: samples at once.
        behaviour_story: how stories are drawn.
        behaviour_image: how drawings are drawn.
        behaviour_answer: how answers are drawn.
        gallery_count: stories, from the first, that are kept to look at.

    Raises:
        ConfigError: a count below 0 or a batch below 1, nothing to measure, or an unknown split
            or number of steps.
    """

    def __init__(
        self,
        story_count: int = 500,
        story_steps: int = 2,
        drawings_per_category: int = 100,
        questions_per_category: int = 100,
        split: str = "test",
        seed: int = 0,
        batch_size: int = 100,
        behaviour_story: Behaviour = Behaviour(),  # noqa: B008 - frozen
        behaviour_image: Behaviour = Behaviour(),  # noqa: B008 - frozen
        behaviour_answer: Behaviour = Behaviour(),  # noqa: B008 - frozen
        gallery_count: int = 12,
    ) -> None:
        self.settings: dict[str, Any] = {
            "story_count": story_count,
            "story_steps": story_steps,
            "drawings_per_category": drawings_per_category,
            "questions_per_category": questions_per_category,
            "split": split,
            "seed": seed,
            "batch_size": batch_size,
            "behaviour_story": dataclasses.asdict(behaviour_story),
            "behaviour_image": dataclasses.asdict(behaviour_image),
            "behaviour_answer": dataclasses.asdict(behaviour_answer),
            "gallery_count": gallery_count,
        }
        counts = (story_count, drawings_per_category, questions_per_category)
        if min(*counts, gallery_count) < 0 or not any(counts) or batch_size < 1:
            raise ConfigError(
                f"evaluation of {story_count} stories, {drawings_per_category} drawings and "
                f"{questions_per_category} questions a category, batch_size={batch_size}, "
                f"gallery_count={gallery_count}: counts must be 0 or more, not all 0, and "
                "batch_size at least 1"
            )
        try:
            check_split(split)
            self._stories = [
                story_sample(story)
                for story in cycled(stories(split, story_steps), story_count, seed, _STORIES)
            ]
        except ValueError as error:
            raise ConfigError(f"evaluation: {error}") from error
        self._drawings = [
            drawing_sample(prompt)
            for category in CATEGORIES
            for prompt in cycled(prompts(category, split), drawings_per_category, seed, _DRAWINGS)
        ]
        self._questions = list(_questions(questions_per_category, split, seed))
        self._behaviours = (behaviour_story, behaviour_image, behaviour_answer)
        self._batch_size, self._gallery_count = batch_size, gallery_count

    def run(
        self,
        policy: Policy,
        generator_seed: int | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Asks the policy everything, in evaluation mode and without gradients.

        Args:
            policy: to be measured.
            generator_seed: of its sampling; None takes the suite's seed. Stories, drawings and
                questions have streams of their own: leaving one out does not change the others.
            progress: called with the number of samples done and in all.

        Raises:
            RewardError: images that the verifier does not read.
        """
        if generator_seed is None:
            generator_seed = self.settings["seed"]
        parts = list(
            zip((self._stories, self._drawings, self._questions), self._behaviours, strict=True)
        )
        stories_told, drawings, answers = ask_policy(
            policy, parts, self._batch_size, generator_seed, progress
        )
        verdicts = [judge_story(*pair) for pair in zip(self._stories, stories_told, strict=True)]
        drawn = [
            VisualReward(strict_weight=1.0).score(*pair).outcome == 1
            for pair in zip(self._drawings, drawings, strict=True)
        ]
        answered = [
            TextualReward().score(*pair).outcome
            for pair in zip(self._questions, answers, strict=True)
        ]
        metrics = story_metrics(self._stories, verdicts) if verdicts else {}
        metrics |= by_category("generation_accuracy", self._drawings, drawn)
        metrics |= by_category("understanding_accuracy", self._questions, answered)
        shown = list(zip(self._stories, stories_told, verdicts, strict=True))[: self._gallery_count]
        return Evaluation(
            suite="micro_world",
            settings={**self.settings, "generator_seed": generator_seed},
            metrics=metrics,
            labels=LABELS if verdicts else {},
            gallery=tuple(
                GalleryEntry(
                    sample.prompt_text, answer.texts, answer.images, told.strict, told.well_formed
                )
                for sample, answer, told in shown
            ),
        )


def _questions(count: int, split: str, seed: int) -> Iterator[Sample]:
    for index, category in enumerate(CATEGORIES):
        rng = np.random.default_rng([seed, _QUESTIONS, index])
        for prompt in cycled(prompts(category, split), count, seed, _QUESTIONS):
            yield question_sample(ask(category, compose(prompt.facts, rng), rng))
