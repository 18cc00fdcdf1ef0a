"""Everything that the micro-world can say of one told story."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unified_rl.core.sample import Completion, Image, Sample
from unified_rl.evaluation.estimates import Estimate, estimate
from unified_rl.rewards.alignment import AlignmentReward
from unified_rl.rewards.base import CompletionReward
from unified_rl.rewards.coherence import CoherenceReward
from unified_rl.rewards.format import is_well_formed
from unified_rl.rewards.sample_facts import story_of
from unified_rl.rewards.sight import is_clean
from unified_rl.rewards.textual import TextualReward
from unified_rl.rewards.visual import VisualReward

ASPECTS = (
    "text_quality",
    "perceptual_quality",
    "image_coherence",
    "text_image_coherence",
    "helpfulness",
)
"""InterleavedBench's five aspects, as UnifiedGRPO's Table 2 names them."""
RUBRIC_POINTS = 6


@dataclass(frozen=True)
class StoryVerdict:
    """How good one telling is; per-picture tuples have one entry a required step.

    Attributes:
        well_formed: it keeps to the grammar and is finished.
        picture_count_right: it has as many pictures as the story has steps.
        text: textual reward, in [0, 1].
        strict: picture k shows exactly what step k requires; False where missing.
        soft: fraction of step k's facts that picture k shows; 0 where missing.
        consistent: picture k shows exactly what thought k says.
        agreement: fraction of thought k's facts that picture k shows.
        clean: picture k shows objects and no unrecognisable blob.
        coherence: coherence reward, in [0, 1].
    """

    well_formed: bool
    picture_count_right: bool
    text: float
    strict: tuple[bool, ...]
    soft: tuple[float, ...]
    consistent: tuple[bool, ...]
    agreement: tuple[float, ...]
    clean: tuple[bool, ...]
    coherence: float

    @property
    def joint(self) -> bool:
        """Well formed, all required pictures strictly right, and no others."""
        return self.well_formed and self.picture_count_right and all(self.strict)

    @property
    def aspects(self) -> dict[str, float]:
        """A stand-in for InterleavedBench's aspects, each in [0, 1]; missing output counts 0.

        Text quality is the textual reward, perceptual quality the share of clean pictures, image
        coherence the coherence reward, text-image coherence the mean agreement of pictures with
        their own thoughts, and helpfulness the soft correctness of the final picture.
        """
        scores = (self.text, mean(self.clean), self.coherence, mean(self.agreement), self.soft[-1])
        return dict(zip(ASPECTS, scores, strict=True))

    @property
    def rubric(self) -> int:
        """A stand-in for MMIE's rubric, 0 to 6.

        One point each for: the grammar; thoughts that say all and only what they should; the
        right number of pictures; a strictly right first picture; pictures that all agree with
        their thoughts; a strictly right final picture.
        """
        return (
            self.well_formed
            + (self.text == 1)
            + self.picture_count_right
            + self.strict[0]
            + all(self.consistent)
            + self.strict[-1]
        )


def judge_story(sample: Sample, completion: Completion) -> StoryVerdict:
    """Judges a telling.

    Raises:
        RewardError: a sample that is no story, or images that the verifier does not read.
    """
    required = len(story_of(sample).steps)

    def per_picture(reward: CompletionReward) -> tuple[float, ...]:
        steps = reward.score(sample, completion).steps
        pairs = zip(steps, completion.segments, strict=True)
        return _padded([step for step, s in pairs if isinstance(s, Image)], required)

    strict = per_picture(VisualReward(strict_weight=1.0))
    consistent = per_picture(AlignmentReward(strict_weight=1.0))
    clean = [float(is_clean(sample, pixels)) for pixels in completion.images]
    return StoryVerdict(
        well_formed=is_well_formed(completion),
        picture_count_right=len(completion.images) == required,
        text=TextualReward().score(sample, completion).outcome,
        strict=tuple(score == 1 for score in strict),
        soft=per_picture(VisualReward(strict_weight=0.0)),
        consistent=tuple(score == 1 for score in consistent),
        agreement=per_picture(AlignmentReward(strict_weight=0.0)),
        clean=tuple(score == 1 for score in _padded(clean, required)),
        coherence=CoherenceReward().score(sample, completion).outcome,
    )


def story_metrics(
    samples: Sequence[Sample], verdicts: Sequence[StoryVerdict]
) -> dict[str, Estimate]:
    """All metrics of told stories; at least one."""
    clusters = [sample.id for sample in samples]

    def over(measure: Callable[[StoryVerdict], float]) -> Estimate:
        return estimate([float(measure(verdict)) for verdict in verdicts], clusters)

    metrics = {
        "format_validity": over(lambda told: told.well_formed),
        "text_relevance": over(lambda told: told.text),
        "visual_correctness": over(lambda told: mean(told.strict)),
    }
    for k in range(len(verdicts[0].strict)):
        metrics[f"visual_correctness/step_{k + 1}"] = over(lambda told, k=k: told.strict[k])
    metrics["joint_correctness"] = over(lambda told: told.joint)
    metrics["consistency"] = over(lambda told: mean(told.consistent))
    metrics["coherence"] = over(lambda told: told.coherence)
    for aspect in ASPECTS:
        metrics[f"interleavedbench_like/{aspect}"] = over(
            lambda told, aspect=aspect: told.aspects[aspect]
        ).scaled(5)
    average = over(lambda told: mean(tuple(told.aspects.values())))
    metrics["interleavedbench_like/average"] = average.scaled(5)
    metrics["mmie_like"] = over(lambda told: told.rubric / RUBRIC_POINTS).scaled(100)
    return metrics


def mean(values: tuple[float, ...]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)


def _padded(values: list[float], size: int) -> tuple[float, ...]:
    """The first `size` values, with zeros for those that are missing."""
    return tuple((values + [0.0] * size)[:size])
