"""A judge to keep out of training: whether each picture keeps what was there before."""

import math

import numpy as np

from unified_rl.core.sample import Completion, Image, Sample, Task
from unified_rl.microworld.facts import compose
from unified_rl.microworld.render import render
from unified_rl.microworld.scene import Placed
from unified_rl.rewards.base import CompletionReward, Golden, StepwiseScore, silent
from unified_rl.rewards.golden import golden_story
from unified_rl.rewards.sample_facts import story_of
from unified_rl.rewards.sight import objects

MOST_MOVE = 2
"""An object that moved by more than this along an axis is not the same one, px."""


class CoherenceReward(CompletionReward):
    """How much of each picture is still there in the next one, in [0, 1].

    Picture k >= 1 scores the share of the objects of picture k - 1 that it shows as well (same
    shape, same colour, centre within 2 px along each axis), and 0 if it shows fewer objects, or
    if there were none to keep. The outcome is the mean over the transitions required or given,
    whichever is greater; a missing picture counts 0. Per step: on pictures from the second on.
    Tasks other than stories: outcome 0, no step scores.

    Meant as a held-out judge with `weight=0`, since no other reward asks where earlier objects
    stay. Hackable alone: the same picture twice has full marks.

    Source: InterleavedBench's image coherence, as UnifiedGRPO's Table 2 reports it.
    Departs: a rule on detected objects instead of a judge model.
    """

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome in [0, 1]; steps in [0, 1] on images from the second on, else NaN.

        Raises:
            RewardError: images of a size that the verifier does not read.
        """
        if sample.task is not Task.INTERLEAVED:
            return silent(completion)
        steps = [math.nan] * len(completion.segments)
        before: tuple[Placed, ...] | None = None
        scores: list[float] = []
        for index, segment in enumerate(completion.segments):
            if isinstance(segment, Image):
                now = objects(sample, segment.pixels)
                if before is not None:
                    scores.append(kept_share(before, now))
                    steps[index] = scores[-1]
                before = now
        transitions = max(len(story_of(sample).steps) - 1, len(scores))
        return StepwiseScore(sum(scores) / max(transitions, 1), tuple(steps))

    def golden(self) -> tuple[Golden, ...]:
        """A telling against one whose last picture is painted anew, elsewhere."""
        sample, good = golden_story()
        facts = story_of(sample).steps[-1].facts
        before = objects(sample, good.images[0])
        for seed in range(100):
            scene = compose(facts, np.random.default_rng(seed))
            if kept_share(before, scene.objects) == 0:
                break
        repainted = (*good.segments[:3], Image(render(scene)), *good.segments[4:])
        return (Golden(sample, good, Completion(repainted, finished=True)),)


def kept_share(before: tuple[Placed, ...], now: tuple[Placed, ...]) -> float:
    """Share of the objects of `before` that are in `now`; 0 if there are fewer, or were none."""
    if not before or len(now) < len(before):
        return 0.0
    free = list(now)
    for placed in before:
        same = next((other for other in free if _is_same(placed, other)), None)
        if same is not None:
            free.remove(same)
    return (len(now) - len(free)) / len(before)


def _is_same(a: Placed, b: Placed) -> bool:
    near = max(abs(a.x - b.x), abs(a.y - b.y)) <= MOST_MOVE  # boxes are alike, so are centres
    return near and (a.shape, a.color) == (b.shape, b.color)
