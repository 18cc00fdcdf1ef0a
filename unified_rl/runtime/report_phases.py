"""What the report shows of a pipeline whose phases branch, and that names its own scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from unified_rl.runtime.report_gallery import drawings, questions
from unified_rl.runtime.report_graph import Place
from unified_rl.runtime.report_inputs import Phase, measured, parts
from unified_rl.runtime.report_scores import Dot, score_dots
from unified_rl.runtime.report_wording import change, spoken_name

_MEANINGS = {
    "generation_accuracy": "single drawings, all facts of the prompt right",
    "choice_accuracy": "choices of four, answered rightly after a thought",
    "open_accuracy": "questions answered rightly in own words after a thought",
    "understanding_accuracy": "questions about pictures, of all kinds",
    "understanding_accuracy_seen": "of objects that training showed",
    "understanding_accuracy_unseen": "of objects that training held out",
    "t2i_to_mmu": "answers about own pictures that are right",
    "mmu_to_t2i": "drawings of what was answered rightly",
    "reasoning_format": "answers of the form thought, then answer",
}


def phase_contents(
    phases: Sequence[Phase], tree: Sequence[Place], headline: Sequence[str]
) -> dict[str, Any]:
    """What `report_phases.html.j2` shows beside what every page has.

    Args:
        phases: in the order of the tree.
        tree: the place of each of them.
        headline: names of the pipeline's scores.
    """
    by_name = {phase.name: phase for phase in phases}
    starts = [by_name.get(place.start) for place in tree]
    scores = measured(phases, headline)
    scored = [row for row in zip(phases, tree, starts, strict=True) if row[0].scores]
    return {
        "rows": list(zip(phases, tree, starts, strict=True)),
        "scored": scored,
        "scores": scores,
        "meanings": _MEANINGS,
        "chart": _chart(scored, scores),
        "categories": {name: found for name in scores if (found := parts(phases, name))},
        "drawings": drawings(phases),
        "questions": questions(phases),
    }


def _chart(
    scored: Sequence[tuple[Phase, Place, Phase | None]], scores: Sequence[str]
) -> Markup | None:
    if not scores:
        return None
    rows = [
        (phase.label, place.depth, [_dot(phase.scores, start, name) for name in scores])
        for phase, place, start in scored
    ]
    return Markup(score_dots([spoken_name(name) for name in scores], rows))


def _dot(scores: Mapping[str, Mapping[str, float]], start: Phase | None, name: str) -> Dot | None:
    score = scores.get(name)
    if score is None:
        return None
    moved = change(score, start.scores.get(name)) if start else None
    ends = (100 * score[end] for end in ("value", "low", "high"))
    return Dot(*ends, verdict=moved["verdict"] if moved else "same")
