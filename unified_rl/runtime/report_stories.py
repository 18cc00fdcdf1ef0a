"""What the report shows of a pipeline whose phases, one after another, tell stories."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from unified_rl.runtime.report_gallery import stories
from unified_rl.runtime.report_inputs import Phase, measured, parts
from unified_rl.runtime.report_scores import score_chart
from unified_rl.runtime.report_wording import spoken_name
from unified_rl.runtime.summary import HEADLINE

STORY_COUNT = 8
"""Stories that the report shows, from the first."""

_STORY_SCORES = (
    "format_validity",
    "text_relevance",
    "visual_correctness",
    "visual_correctness/step_1",
    "visual_correctness/step_2",
    "visual_correctness/step_3",
    "joint_correctness",
    "consistency",
    "coherence",
)
_PRESERVED_SCORES = ("generation_accuracy", "understanding_accuracy")
_MEANINGS = {
    "format_validity": "answers that keep to the grammar (thought, picture)+",
    "text_relevance": "facts of the step that its thought states",
    "visual_correctness": "required pictures that are exactly right",
    "joint_correctness": "answers with everything right: format, number and content of pictures",
    "consistency": "pictures that show exactly what their own thought says",
    "coherence": "how well each picture keeps what the one before shows",
    "generation_accuracy": "single drawings, mean over six categories",
    "understanding_accuracy": "questions on a picture, mean over six categories",
}


def story_contents(phases: Sequence[Phase]) -> dict[str, Any]:
    """What `report.html.j2` shows beside what every page has."""
    labels: dict[str, str] = {}
    for phase in phases:
        labels |= phase.evaluation.get("labels", {})
    return {
        "labels": labels,
        "meanings": _MEANINGS,
        "story_scores": measured(phases, _STORY_SCORES),
        "preserved_scores": measured(phases, _PRESERVED_SCORES),
        "categories": {parent: parts(phases, parent) for parent in _PRESERVED_SCORES},
        "stand_ins": measured(phases, [*parts(phases, "interleavedbench_like"), "mmie_like"]),
        "chart": _chart(phases),
        "stories": stories(phases, STORY_COUNT),
        "gallery_count": max((len(phase.gallery) for phase in phases), default=0),
    }


def _chart(phases: Sequence[Phase]) -> Markup | None:
    names = measured(phases, HEADLINE)
    if not names:
        return None
    bars: dict[str, list[tuple[float, float, float] | None]] = {}
    for phase in phases:
        scores = [phase.scores.get(name) for name in names]
        bars[phase.name] = [
            s and (100 * s["value"], 100 * s["low"], 100 * s["high"]) for s in scores
        ]
    return Markup(score_chart([spoken_name(name) for name in names], bars))
