"""Answers to the same prompts, phase beside phase: stories, single drawings, and questions."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unified_rl.rewards.answers import split_reasoning
from unified_rl.rewards.grammar import is_thought, words_of
from unified_rl.runtime.report_inputs import Phase

Entry = Mapping[str, Any]
"""An entry of `gallery.json`."""


def stories(phases: Sequence[Phase], count: int) -> list[dict[str, Any]]:
    """The first prompts, with what each phase answered to them."""
    answers = [{entry["prompt"]: entry for entry in phase.gallery} for phase in phases]
    prompts = next((list(found) for found in answers if found), [])[:count]
    return [
        {"prompt": prompt, "tellings": [_telling(found.get(prompt)) for found in answers]}
        for prompt in prompts
    ]


def drawings(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Prompts for one picture; each phase's `image`, None if it drew none, and if it is right."""
    return [
        {"prompt": first["prompt"], "answers": [_drawing(entry) for entry in entries]}
        for first, entries in _side_by_side(phases, _is_drawing)
    ]


def questions(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Questions with the pictures `shown`; what each phase thought and answered, and if rightly."""
    return [
        {
            "question": first["prompt"],
            "shown": first["shown_png"],
            "answers": [_answer(entry) for entry in entries],
        }
        for first, entries in _side_by_side(phases, _is_question)
    ]


def _is_question(entry: Entry) -> bool:
    return bool(entry.get("shown_png"))  # galleries that were written without questions lack it


def _is_drawing(entry: Entry) -> bool:
    """One picture and nothing said; a story that is well formed has thoughts."""
    alone = len(entry["correct"]) == 1 and not entry["texts"] and entry["well_formed"]
    return alone and not _is_question(entry)


def _side_by_side(
    phases: Sequence[Phase], chosen: Callable[[Entry], bool]
) -> list[tuple[Entry, list[Entry | None]]]:
    """The entries of one kind: the first phase that has it, and all, None where one lacks it."""
    found: dict[tuple[Any, ...], list[Entry | None]] = {}
    for number, phase in enumerate(phases):
        times: Counter[tuple[Any, ...]] = Counter()
        for entry in filter(chosen, phase.gallery):
            asked = (entry["prompt"], *entry.get("shown_png", ()))
            times[asked] += 1  # a prompt may be there twice
            row = found.setdefault((*asked, times[asked]), [None] * len(phases))
            row[number] = entry
    return [(next(entry for entry in row if entry), row) for row in found.values()]


def _drawing(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {"image": next(iter(entry["images_png"]), None), "correct": all(entry["correct"])}


def _answer(entry: Entry | None) -> dict[str, Any] | None:
    """`thought` and `answer` of a reasoned answer; of any other, all that was said as `answer`."""
    if entry is None:
        return None
    said = "".join(entry["texts"])
    parts = split_reasoning(said) if entry["well_formed"] else None
    thought, answer = parts if parts else (None, said)
    return {
        "thought": thought,
        "answer": answer,
        "correct": all(entry["correct"]),
        "well_formed": entry["well_formed"],
    }


def _telling(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An answer, step by step; a step that lacks its thought or picture has None there."""
    if entry is None:
        return None
    thoughts = [text for text in entry["texts"] if text.strip()]
    thoughts = [words_of(text) if is_thought(text) else text for text in thoughts]
    images, correct = entry["images_png"], entry["correct"]
    steps = [
        {
            "thought": thoughts[k] if k < len(thoughts) else None,
            "image": images[k] if k < len(images) else None,
            "correct": correct[k] if k < len(correct) else False,
            "superfluous": k >= len(correct),
        }
        for k in range(max(len(correct), len(images), len(thoughts)))
    ]
    return {"steps": steps, "well_formed": entry["well_formed"]}
