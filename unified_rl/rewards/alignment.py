"""The multimodal half of r_v: whether each picture shows what the answer's own words say."""

import math
from dataclasses import replace

from unified_rl.core.sample import Completion, Image, Sample, Task, Text
from unified_rl.microworld.facts import Facts, Item, Relation
from unified_rl.microworld.language import read
from unified_rl.rewards.base import (
    CompletionReward,
    Golden,
    StepwiseScore,
    check_share,
    silent,
)
from unified_rl.rewards.golden import golden_story, other_story, with_images_of
from unified_rl.rewards.grammar import words_of
from unified_rl.rewards.sample_facts import story_of
from unified_rl.rewards.sight import blend, check

MOST_OBJECTS = 4
"""The canvas holds no more objects; a thought that names more cannot be drawn."""


class AlignmentReward(CompletionReward):
    """How well each picture of a story shows the thought right before it, in [0, 1].

    The facts come from the thought, not from the prompt: the things it names and its relations.
    The picture must show these and nothing else, or these and all that earlier thoughts named; the
    better of the two counts, scored as in `VisualReward`. A picture scores 0 if no thought
    precedes it, or one that names no object, contradicts itself, has a word from outside the
    world's language, or names more than four objects. The outcome is the sum over the pictures,
    divided by the number required or given, whichever is greater. Tasks other than stories:
    outcome 0, no step scores.

    Hackable alone: a policy that always says and draws the same circle has full marks. Use it
    beside `TextualReward`, which holds the words against the prompt.

    Source: UnifiedGRPO 3.3, "alignment with the text ... context" of r_v.
    Departs: the paper has one score for quality, text and prompt; here the two are apart.

    Args:
        weight: factor in a hybrid reward, 0 or more.
        strict_weight: share of the all-or-nothing part, in [0, 1].

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(self, weight: float = 1.0, strict_weight: float = 0.5) -> None:
        super().__init__(weight)
        self.strict_weight = check_share("strict_weight", strict_weight)

    def score(self, sample: Sample, completion: Completion) -> StepwiseScore:
        """Outcome in [0, 1]; steps in [0, 1] on images, NaN on texts.

        Raises:
            RewardError: images of a size that the verifier does not read.
        """
        if sample.task is not Task.INTERLEAVED:
            return silent(completion)
        steps = [math.nan] * len(completion.segments)
        earlier: tuple[Item, ...] = ()
        thought: Facts | None = None
        for index, segment in enumerate(completion.segments):
            if isinstance(segment, Text):
                earlier = _merged(earlier, thought.items if thought else ())
                thought = said_facts(segment.text)
            else:
                steps[index] = self._agreement(sample, segment, thought, earlier)
                # A second picture in a row has no thought of its own.
                earlier = _merged(earlier, thought.items if thought else ())
                thought = None
        required = len(story_of(sample).steps)
        total = sum(score for score in steps if not math.isnan(score))
        return StepwiseScore(total / max(required, len(completion.images)), tuple(steps))

    def _agreement(
        self, sample: Sample, image: Image, thought: Facts | None, earlier: tuple[Item, ...]
    ) -> float:
        if thought is None:
            return 0.0
        readings = [thought]
        whole = _merged(thought.items, earlier)
        if whole != thought.items and _object_count(whole) <= MOST_OBJECTS:
            readings.append(replace(thought, items=whole))
        verdicts = [check(sample, image.pixels, facts) for facts in readings]
        return max(blend(verdict, self.strict_weight) for verdict in verdicts)

    def golden(self) -> tuple[Golden, ...]:
        """A telling against the same words with the pictures of another story."""
        sample, good = golden_story()
        _, other = other_story()
        return (Golden(sample, good, with_images_of(good, other)),)


def said_facts(text: str) -> Facts | None:
    """What a thought says a picture shows; None if it says nothing that can be checked.

    Mentions of one shape whose colours do not differ are the same thing.
    """
    reading = read(words_of(text))
    items: tuple[Item, ...] = ()
    places: list[int | None] = []
    for mention in reading.mentions:
        if mention.number == 0 or (mention.shape is None and mention.color is None):
            places.append(None)
            continue
        items = _merged(items, (Item(mention.shape, mention.color, mention.number or 1),))
        places.append(_place(items, mention.shape, mention.color))
    if not reading.clean or not items or _object_count(items) > MOST_OBJECTS or None in places:
        return None
    relations = dict.fromkeys((places[a], kind, places[b]) for a, kind, b in reading.relations)
    try:
        return Facts(items, tuple(Relation(*relation) for relation in relations))
    except ValueError:  # a thing beside itself
        return None


def _place(items: tuple[Item, ...], shape: str | None, color: str | None) -> int | None:
    """Index of the item that a mention can mean."""
    for index, item in enumerate(items):
        if item.shape == shape and (color is None or item.color in (None, color)):
            return index
    return None


def _merged(items: tuple[Item, ...], more: tuple[Item, ...]) -> tuple[Item, ...]:
    """`items`, then those of `more` that are new; what was said first keeps its place."""
    result = list(items)
    for item in more:
        index = _place(tuple(result), item.shape, item.color)
        if index is None:
            result.append(item)
        else:
            color = result[index].color or item.color
            result[index] = replace(result[index], color=color)
    return tuple(result)


def _object_count(items: tuple[Item, ...]) -> int:
    return sum(item.count for item in items)
