"""Golden answers out of the micro-world, on which rewards test themselves."""

import numpy as np

from unified_rl.core.sample import THINK, VISUALISE, Completion, Image, Sample, Segment, Task, Text
from unified_rl.microworld.facts import compose
from unified_rl.microworld.prompts import category_facts, describe
from unified_rl.microworld.questions import sample_question
from unified_rl.microworld.render import render
from unified_rl.microworld.stories import Story, paint, stories


def golden_story(seed: int = 0) -> tuple[Sample, Completion]:
    """A two-step story and a right telling of it, painted with `seed`."""
    return _told(stories("train")[0], seed)


def other_story() -> tuple[Sample, Completion]:
    """A story unlike the golden one in each shape, colour and relation, and its telling."""
    choices = stories("train")
    first = choices[0].steps[-1].facts
    for story in choices:
        facts = story.steps[-1].facts
        pairs = zip(first.items, facts.items, strict=True)
        unlike = all(a.shape != b.shape and a.color != b.color for a, b in pairs)
        if unlike and facts.relations[0].kind != first.relations[0].kind:
            break
    return _told(story, seed=0)


def golden_drawing(category: str, index: int = 0) -> tuple[Sample, Completion]:
    """A text-to-image sample and a right picture."""
    facts = category_facts(category)[index]
    sample = Sample(
        id=f"golden drawing {describe(facts)!r}",
        task=Task.TEXT_TO_IMAGE,
        prompt=(Text(describe(facts)),),
        facts={"category": category, "facts": facts.to_json()},
    )
    pixels = render(compose(facts, np.random.default_rng(0)))
    return sample, Completion((Image(pixels),), finished=True)


def golden_question(category: str) -> tuple[Sample, Completion]:
    """A question about a picture and a right answer."""
    question = sample_question(category, "train", np.random.default_rng(0))
    sample = Sample(
        id=f"golden question {question.question!r}",
        task=Task.UNDERSTANDING,
        prompt=(Image(render(question.scene)), Text(question.question)),
        facts={
            "category": category,
            "question": question.question,
            "answer": question.answer,
            "scene": [[o.shape, o.color, o.x, o.y] for o in question.scene.objects],
        },
    )
    return sample, Completion((Text(question.answer),), finished=True)


def golden_choice() -> tuple[Sample, str]:
    """A question with options and the letter of the right one."""
    words = "which shape has three corners\nA. a circle\nB. a triangle\nC. a square"
    return _asked(words, "B"), "B"


def golden_formula() -> tuple[Sample, str]:
    """A question whose gold answer is a formula, and the same answer written otherwise."""
    return _asked("what is one divided by two", r"\frac{1}{2}"), "0.5"


def with_texts_of(completion: Completion, other: Completion) -> Completion:
    """The completion with the texts of another one of the same layout."""
    return _merged(completion, other, Text)


def with_images_of(completion: Completion, other: Completion) -> Completion:
    """The completion with the images of another one of the same layout."""
    return _merged(completion, other, Image)


def _asked(words: str, answer: str) -> Sample:
    return Sample(f"golden question {words!r}", Task.TEXT, (Text(words),), facts={"answer": answer})


def _told(story: Story, seed: int) -> tuple[Sample, Completion]:
    segments: list[Segment] = []
    for step, scene in zip(story.steps, paint(story, np.random.default_rng(seed)), strict=True):
        segments += [Text(f"{THINK} {step.text} {VISUALISE}"), Image(render(scene))]
    sample = Sample(
        id=f"golden story {story.prompt!r}",
        task=Task.INTERLEAVED,
        prompt=(Text(story.prompt),),
        facts={"story": story.to_json()},
    )
    return sample, Completion((*segments, Text("")), finished=True)


def _merged(completion: Completion, other: Completion, kind: type) -> Completion:
    pairs = zip(completion.segments, other.segments, strict=True)
    segments = tuple(b if isinstance(b, kind) else a for a, b in pairs)
    return Completion(segments, completion.finished)
