"""Prompts to draw that come with a question and its answer, by category."""

from collections.abc import Sequence
from typing import Protocol

from unified_rl.core.sample import Sample
from unified_rl.prompting.categories import CATEGORIES


class PromptSource(Protocol):
    """Prompts of the six categories."""

    def __call__(self, category: str) -> Sequence[Sample]:
        """All prompts of a category, always in the same order.

        Each is of text to image, with the facts "category", "include" (GenEval's form), "question"
        and "answer".
        """
        ...


def classes_of(source: PromptSource) -> list[str]:
    """Names of all objects that its prompts ask for."""
    samples = [sample for category in CATEGORIES for sample in source(category)]
    return sorted({entry["class"] for sample in samples for entry in sample.facts["include"]})
