"""The micro-world's prompts to draw, each with the question and answer that belong to it."""

import dataclasses
from typing import Any

from unified_rl.core.sample import DrawnImage, Image, Sample, Task, Text
from unified_rl.data.microworld import drawing_sample
from unified_rl.microworld.facts import Facts
from unified_rl.microworld.language import name
from unified_rl.microworld.prompts import Prompt
from unified_rl.microworld.questions import QUESTIONS


def self_question(prompt: Prompt) -> Sample:
    """A text-to-image sample with the facts "question", "answer" and "include" (GenEval's form)."""
    sample = drawing_sample(prompt)
    asked = {
        "question": QUESTIONS[prompt.category],
        "answer": _answer(prompt.category, prompt.facts),
        "include": _include(prompt.facts),
    }
    return dataclasses.replace(sample, facts={**sample.facts, **asked})


def ask_about(sample: Sample, picture: Image | DrawnImage) -> Sample:
    """The question of a self-question sample about a picture that was drawn for it."""
    return Sample(
        id=f"own/{sample.id}",
        task=Task.UNDERSTANDING,
        prompt=(picture, Text(sample.facts["question"])),
        target=(Text(sample.facts["answer"]),),
        facts=sample.facts,
    )


def _answer(category: str, facts: Facts) -> str:
    first, last = facts.items[0], facts.items[-1]
    if category == "single":
        return f"a {first.shape}"
    if category == "two":
        return f"a {first.shape} and a {last.shape}"
    if category == "counting":
        return name(first.shape, None, first.count)
    if category == "colors":
        return str(first.color)
    if category == "position":
        (relation,) = facts.relations
        ends = facts.items[relation.subject], facts.items[relation.object]
        return f"the {ends[0].shape} is {relation.kind} the {ends[1].shape}"
    return f"the {first.shape} is {first.color} and the {last.shape} is {last.color}"


def _include(facts: Facts) -> list[dict[str, Any]]:
    order = list(range(len(facts.items)))
    for relation in facts.relations:
        order = [relation.object, relation.subject]
    entries: list[dict[str, Any]] = []
    for item in (facts.items[index] for index in order):
        entry: dict[str, Any] = {"class": item.shape, "count": item.count}
        entries.append(entry if item.color is None else {**entry, "color": item.color})
    if facts.relations:
        entries[1]["position"] = [facts.relations[0].kind, 0]
    return entries
