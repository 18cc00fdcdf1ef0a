"""UniRL's imbalance metric, on the micro-world or GenEval: what is drawn and understood as well."""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

from torch import nn

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError, nearest
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Pair, Sample
from unified_rl.data.self_questions import ask_about
from unified_rl.evaluation.answer_judge import Judge, RuleJudge
from unified_rl.evaluation.asking import Progress, by_category, cycled, device_of
from unified_rl.evaluation.drawings.protocol import comparability
from unified_rl.evaluation.estimates import Estimate, estimate
from unified_rl.evaluation.foreign_pictures import drawn_pictures, rendered_pictures
from unified_rl.evaluation.imbalance import (
    conditional_accuracies,
    described,
    differences_from_paper,
)
from unified_rl.evaluation.imbalance_gallery import shown_answers, shown_drawings
from unified_rl.evaluation.picture_verifier import MicroWorldVerifier, PictureVerifier
from unified_rl.evaluation.prompt_source import PromptSource, classes_of
from unified_rl.evaluation.record import Evaluation
from unified_rl.evaluation.self_questions import self_question
from unified_rl.evaluation.turns import Counting, Drawing, Turns
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.scene import SHAPES
from unified_rl.microworld.splits import check_split
from unified_rl.rewards.keywords import KeywordReward

_DRAWINGS, _FOREIGN = 1, 6  # drawings as of the other suites, so that they are the same prompts
_DRAW, _ASK_OWN, _ASK_FOREIGN, _REDRAW = range(4)


class ImbalanceSuite:
    """Measures drawing, understanding, and how far a policy does both on the same things.

    What is asked depends on the settings alone. Metrics, all in [0, 1] and strict:

    * `generation_accuracy`: pictures that show exactly what the prompt says; the mean over the six
      categories, as GenEval's, and each as `.../<category>`.
    * `understanding_accuracy`: right answers about right pictures of another model, or rendered
      ones. As every category has the same number of pictures, the mean over categories is the
      micro average too; `.../<category>`. With `unseen_classes` also over the questions with such
      an object, `understanding_accuracy_unseen`, and over the others, `..._seen`, each the mean
      over the categories that have any.
    * `t2i_to_mmu`: of the right pictures of the policy's own, those about which it answers
      rightly, shown as the very codes it drew where its family sees those.
    * `mmu_to_t2i`: of the right answers about the other pictures, those whose prompt the policy
      then draws rightly, at one try. The prompts are those of the other pictures, easy ones more
      often. Both chains are over all counted pictures, see `conditional_accuracies`, and
      `.../<category>`; left out where nothing is counted. `n` is the number of right pictures or
      answers.
    * `judge_failures`, where a judge is given: answers that it could not judge; they count as
      wrong.

    Source: UniRL 3.6, A.1 and Tables 3 to 6.
    Departs: GenEval's prompts are the micro-world's. The paper's Table 5 says neither how its
    "overall" is taken nor which pictures it counts: means of its columns are off by .01 to .03,
    as are those weighted by GenEval's numbers of prompts for Janus; here they agree.

    Args:
        prompts_per_category: of the drawings; None takes each prompt of `source` once.
        images_per_prompt: drawings of each prompt; the paper has 4.
        foreign_per_category: right pictures of each category to ask about.
        other: makes the model that draws them; None renders them. It is made when they are first
            needed, and draws with `seed`, so that every policy is asked about the same ones.
        attempts_per_picture: drawings of the other model, at most, for each picture of a category.
        unseen_classes: objects that training held out.
        judge: of answers; None takes the rules, all of the world's shapes known.
        verifier: of pictures; None takes the micro-world's.
        source: of prompts with their questions, as `GenEvalQuestions`; None takes the
            micro-world's. Another one needs `other`, `judge` and `verifier` that know its objects.
        split: of the micro-world: "train", "validation" or "test".
        seed: of the choice of prompts and of the other pictures.
        batch_size: samples at once.
        behaviour_image: how the policy draws.
        behaviour_answer: how it answers.
        behaviour_other: how the other model draws.
        gallery_count: drawings, spread over the categories, that are kept to look at.
        gallery_question_count: questions about own right drawings that are kept so, and as many
            about other pictures.

    Raises:
        ConfigError: a count below 1, a gallery below 0, or an unknown split or class.
    """

    def __init__(
        self,
        prompts_per_category: int | None = 84,
        images_per_prompt: int = 4,
        foreign_per_category: int = 84,
        other: Callable[[], Policy] | None = None,
        attempts_per_picture: int = 20,
        unseen_classes: Sequence[str] = (),
        judge: Judge | None = None,
        verifier: PictureVerifier | None = None,
        source: PromptSource | None = None,
        split: str = "test",
        seed: int = 0,
        batch_size: int = 128,
        behaviour_image: Behaviour = Behaviour(),  # noqa: B008 - frozen
        behaviour_answer: Behaviour = Behaviour(),  # noqa: B008 - frozen
        behaviour_other: Behaviour = Behaviour(),  # noqa: B008 - frozen
        gallery_count: int = 12,
        gallery_question_count: int = 8,
    ) -> None:
        counts = {
            "prompts_per_category": prompts_per_category,
            "images_per_prompt": images_per_prompt,
            "foreign_per_category": foreign_per_category,
            "attempts_per_picture": attempts_per_picture,
            "batch_size": batch_size,
        }
        galleries = {
            "gallery_count": gallery_count,
            "gallery_question_count": gallery_question_count,
        }
        for least, values in ((1, counts), (0, galleries)):
            for name, value in values.items():
                if value is None and source is None:
                    raise ConfigError(f"{name}=null takes all prompts of a source; give a number")
                if value is not None and value < least:
                    raise ConfigError(f"{name}={value} must be at least {least}")
        try:
            check_split(split)
        except ValueError as error:
            raise ConfigError(f"evaluation: {error}") from error
        if source is not None and None in (other, judge, verifier):
            raise ConfigError(
                "source needs other, judge and verifier that know its objects; the micro-world's "
                "own do not"
            )
        known = SHAPES if source is None else classes_of(source)
        for name in unseen_classes:
            if name not in known:
                raise ConfigError(f"unseen_classes: {name!r} is no class; {nearest(name, known)}")
        self._judge = RuleJudge(KeywordReward(rivals=SHAPES)) if judge is None else judge
        self._judge_may_fail = judge is not None
        self._verifier = MicroWorldVerifier() if verifier is None else verifier
        self.settings: dict[str, Any] = {
            **counts,
            **galleries,
            "other": "rendered" if other is None else _named(other),
            "unseen_classes": list(unseen_classes),
            "judge": type(self._judge).__name__,
            "verifier": _described(self._verifier),
            "source": None if source is None else _described(source),
            "split": split,
            "seed": seed,
            "behaviour_image": dataclasses.asdict(behaviour_image),
            "behaviour_answer": dataclasses.asdict(behaviour_answer),
            "behaviour_other": dataclasses.asdict(behaviour_other),
        }
        self._source = source
        self._comparability = {}
        if source is not None:
            found = differences_from_paper(self.settings, isinstance(judge, RuleJudge))
            self._comparability = {"unirl": comparability(found)}
        self._drawings = [
            sample
            for samples in self._prompts(prompts_per_category, _DRAWINGS).values()
            for sample in samples
            for _ in range(images_per_prompt)
        ]
        self._other, self._unseen = other, frozenset(unseen_classes)
        self._behaviours = behaviour_image, behaviour_answer, behaviour_other
        self._foreign: list[Pair] | None = None

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
            DataError: the other model does not draw enough right pictures.
            RewardError: images that the verifier does not read.
        """
        if generator_seed is None:
            generator_seed = self.settings["seed"]
        own_count = len(self._drawings)
        foreign_count = len(CATEGORIES) * self.settings["foreign_per_category"]
        tell = Counting(2 * own_count + 3 * foreign_count, progress)
        foreign = self._foreign_pictures(policy, tell)
        questions = [pair.question for pair in foreign]
        turns = Turns(policy, self.settings["batch_size"], generator_seed, tell)

        drawings = turns.draw(self._drawings, self._behaviours[0], _DRAW)
        drawn = self._verified(self._drawings, drawings)
        pairs = zip(self._drawings, drawings, strict=True)
        own = [ask_about(sample, drawing.shown) for sample, drawing in pairs]
        asked = list(compress(own, drawn))  # only of right pictures
        own_said = turns.answer(asked, self._behaviours[1], _ASK_OWN)
        own_right, own_failed = self._judged(asked, own_said)
        tell.reach(foreign_count + 2 * own_count)

        said = turns.answer(questions, self._behaviours[1], _ASK_FOREIGN)
        right, failed = self._judged(questions, said)
        again = [pair.drawing for pair in compress(foreign, right)]  # only of right answers
        redrawn = self._verified(again, turns.draw(again, self._behaviours[0], _REDRAW))
        tell.reach(2 * own_count + 3 * foreign_count)

        own_both, foreign_both = _scattered(drawn, own_right), _scattered(right, redrawn)
        drawing_count = self.settings["gallery_count"]
        question_count = self.settings["gallery_question_count"]
        own_pictures = list(compress(drawings, drawn))
        metrics = by_category("generation_accuracy", self._drawings, drawn)
        metrics |= self._understanding(questions, right)
        metrics |= conditional_accuracies("t2i_to_mmu", self._drawings, drawn, own_both)
        metrics |= conditional_accuracies("mmu_to_t2i", questions, right, foreign_both)
        if self._judge_may_fail:
            ids = [question.id for question in (*asked, *questions)]
            metrics["judge_failures"] = estimate([*own_failed, *failed], ids)
        return Evaluation(
            suite="micro_world_imbalance" if self._source is None else "unirl",
            settings={**self.settings, "generator_seed": generator_seed},
            metrics=metrics,
            labels={
                **self._comparability,
                "t2i_to_mmu": described("pictures", drawn, own_both),
                "mmu_to_t2i": described("answers", right, foreign_both),
            },
            gallery=(
                *shown_drawings(self._drawings, drawings, drawn, drawing_count),
                *shown_answers(asked, own_said, own_right, question_count, own_pictures),
                *shown_answers(questions, said, right, question_count),
            ),
        )

    def _foreign_pictures(self, policy: Policy, tell: Counting) -> list[Pair]:
        """Made once; the other model is let go of then."""
        count, seed = self.settings["foreign_per_category"], self.settings["seed"]
        if self._foreign is None and self._other is None:
            prompts = self._prompts(count, _FOREIGN)
            self._foreign = rendered_pictures([s for part in prompts.values() for s in part], seed)
        elif self._foreign is None:
            prompts = self._prompts(count * self.settings["attempts_per_picture"], _FOREIGN)
            other = self._other()
            if isinstance(other, nn.Module):
                other = other.eval().to(device_of(policy))
            turns = Turns(other, self.settings["batch_size"], seed, lambda count: None)
            self._foreign = drawn_pictures(
                turns, prompts, count, self._behaviours[2], self._verifier, tell
            )
        tell.reach(len(self._foreign))
        return self._foreign

    def _prompts(self, count: int | None, part: int) -> dict[str, list[Sample]]:
        """So many prompts of each category, each of them once before any of them again."""
        split, seed = self.settings["split"], self.settings["seed"]
        if self._source is None:
            known = {name: prompts(name, split) for name in CATEGORIES}
            return {
                name: [self_question(prompt) for prompt in cycled(some, count, seed, part)]
                for name, some in known.items()
            }
        source = self._source
        return {
            name: cycled(source(name), count or len(source(name)), seed, part)
            for name in CATEGORIES
        }

    def _verified(self, samples: Sequence[Sample], drawings: Sequence[Drawing]) -> list[bool]:
        pairs = zip(samples, drawings, strict=True)
        return [self._verifier(sample, drawing.pixels) for sample, drawing in pairs]

    def _judged(
        self, questions: Sequence[Sample], answers: Sequence[str]
    ) -> tuple[list[bool], list[bool]]:
        """Which answers are right, and which the judge could not judge."""
        right, failed = [], []
        for question, answer in zip(questions, answers, strict=True):
            before = self._judge.failure_count
            right.append(self._judge(question, answer))
            failed.append(self._judge.failure_count > before)
        return right, failed

    def _understanding(
        self, questions: Sequence[Sample], right: Sequence[bool]
    ) -> dict[str, Estimate]:
        metrics = by_category("understanding_accuracy", questions, right)
        if self._unseen:
            classes = [{entry["class"] for entry in q.facts["include"]} for q in questions]
            unseen = [bool(own & self._unseen) for own in classes]
            for name, chosen in (("unseen", unseen), ("seen", [not value for value in unseen])):
                part = list(compress(questions, chosen)), list(compress(right, chosen))
                metrics |= by_category(f"understanding_accuracy_{name}", *part)
        return metrics


def _scattered(flags: Sequence[bool], values: Sequence[bool]) -> list[bool]:
    """The values at the places of the flags that are up, False at the others."""
    remaining = iter(values)
    return [next(remaining) if flag else False for flag in flags]


def _described(part: object) -> Any:
    """What a part says of itself, else its name."""
    describe = getattr(part, "describe", None)
    return type(part).__name__ if describe is None else dict(describe())


def _named(other: Callable[[], Policy]) -> str:
    """What makes the other model, and out of which folder."""
    made = getattr(other, "func", other)
    checkpoint = getattr(other, "keywords", {}).get("checkpoint")
    name = getattr(made, "__name__", type(made).__name__)
    return name if checkpoint is None else f"{name} of {checkpoint}"
