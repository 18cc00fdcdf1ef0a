"""The micro-world's prompts to draw, each with the question and answer that belong to it."""

import functools
from collections.abc import Mapping

from unified_rl.core.sample import Sample
from unified_rl.data.self_questions import MICRO_WORLD, micro_sample
from unified_rl.microworld.prompts import Prompt
from unified_rl.prompting.builder import PromptBuilder
from unified_rl.prompting.phrases import PromptItem


def self_question(prompt: Prompt) -> Sample:
    """A text-to-image sample with the facts "question", "answer" and "include" (GenEval's form)."""
    return micro_sample(prompt, _items(prompt.category)[prompt.text])


@functools.cache
def _items(category: str) -> Mapping[str, PromptItem]:
    """All prompts of a category, of every split, by their texts."""
    return {item.prompt: item for item in PromptBuilder(MICRO_WORLD).all_items(category)}
