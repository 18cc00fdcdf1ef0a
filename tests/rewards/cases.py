"""One story told by hand, and rollouts of given completions."""

from collections.abc import Sequence

import torch

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.sample import THINK, VISUALISE, Completion, Image, Sample, Segment, Task, Text
from unified_rl.core.trajectory import RewardScores, Rollout, Trajectory
from unified_rl.microworld.facts import Facts, Item, Relation
from unified_rl.microworld.render import render
from unified_rl.microworld.scene import Placed, Scene
from unified_rl.microworld.stories import Step, Story

CIRCLE, SQUARE = Item("circle", "red"), Item("square", "blue")
STORY = Story(
    "draw a red circle then add a blue square right of it",
    (
        Step("i draw a red circle", Facts((CIRCLE,))),
        Step(
            "i add a blue square right of the red circle",
            Facts((CIRCLE, SQUARE), (Relation(1, "right of", 0),)),
        ),
    ),
    "test",
)
STORY_SAMPLE = Sample(
    "story", Task.INTERLEAVED, (Text(STORY.prompt),), facts={"story": STORY.to_json()}
)
DRAWING_SAMPLE = Sample(
    "drawing",
    Task.TEXT_TO_IMAGE,
    (Text("a photo of a red circle"),),
    facts={"category": "colors", "facts": Facts((CIRCLE,)).to_json()},
)
QUESTION_SAMPLE = Sample(
    "question",
    Task.UNDERSTANDING,
    (Text("where?"),),
    facts={
        "category": "position",
        "question": "what is the position relationship between the two objects",
        "answer": "the square is right of the circle",
        "scene": [["circle", "red", 0, 8], ["square", "blue", 12, 8]],
    },
)
TEXT_SAMPLE = Sample(
    "text", Task.TEXT, (Text("count one plus one"),), facts={"answer": "right of the circle"}
)

RED_CIRCLE = Placed("circle", "red", 0, 8)
BLUE_SQUARE = Placed("square", "blue", 12, 8)
GREEN_CIRCLE = Placed("circle", "green", 0, 8)


def image(*objects: Placed) -> Image:
    return Image(render(Scene(objects)))


def thought(words: str) -> Text:
    return Text(f"{THINK} {words} {VISUALISE}")


FIRST, SECOND = thought(STORY.steps[0].text), thought(STORY.steps[1].text)
ONE, BOTH = image(RED_CIRCLE), image(RED_CIRCLE, BLUE_SQUARE)
GOLD = (FIRST, ONE, SECOND, BOTH)
END = Text("")


def told(*segments: Segment, finished: bool = True) -> Completion:
    return Completion(segments, finished)


def rollout(
    completions: Sequence[Completion], sample: Sample = STORY_SAMPLE, group_size: int = 1
) -> Rollout:
    rows = len(completions)
    trajectory = Trajectory(
        Behaviour(),
        torch.zeros(rows, 1, 1),
        torch.zeros(rows, 1, 1, dtype=torch.bool),
        torch.zeros(rows, 1, dtype=torch.long),
        torch.zeros(rows, 1, dtype=torch.long),
        {},
    )
    return Rollout((sample,) * rows, tuple(completions), trajectory, group_size)


class Given:
    """A reward that gives what it is told to, rollout after rollout."""

    def __init__(self, *scores: RewardScores, weight: float = 1.0) -> None:
        self.weight, self.scores, self.calls = weight, scores, 0

    def __call__(self, rollout: Rollout) -> RewardScores:
        self.calls += 1
        return self.scores[min(self.calls, len(self.scores)) - 1]

    def self_test(self) -> None:
        pass


def scores(outcome: list[float], steps: list[list[float]] | None = None) -> RewardScores:
    return RewardScores(torch.tensor(outcome), None if steps is None else torch.tensor(steps))
