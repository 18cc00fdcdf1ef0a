"""The answers of an evaluation as one page that needs nothing beside it."""

from pathlib import Path
from typing import Any

import jinja2

from unified_rl.evaluation.record import Evaluation

PAGE = "evaluation.html"
PAGE_BYTES = 48 * 2**20
"""The page embeds pictures up to this size in all; later answers stand in gallery.json only."""


def write_page(evaluation: Evaluation, folder: Path, title: str) -> Path | None:
    """Writes the page of an evaluation whose gallery holds anything; its path.

    Whatever a prompt or an answer says is shown as text: nothing of it becomes markup.

    Args:
        evaluation: whose gallery is shown.
        folder: that exists.
        title: of the page.
    """
    if not evaluation.gallery:
        return None
    entries: list[dict[str, Any]] = []
    size = 0
    for entry in evaluation.gallery:
        shown = entry.to_json()
        size += sum(map(len, (*shown["images_png"], *shown["shown_png"])))
        if size > PAGE_BYTES:
            break
        entries.append(shown | {"parts": _parts(shown)})
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unified_rl", "runtime"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("evaluation.html.j2").render(
        title=title,
        suite=evaluation.suite,
        metrics=evaluation.metrics,
        labels=evaluation.labels,
        entries=entries,
        left_out=len(evaluation.gallery) - len(entries),
    )
    beside = folder / f".{PAGE}.tmp"
    beside.write_text(text, encoding="utf-8", errors="replace")
    beside.replace(folder / PAGE)
    return folder / PAGE


def _parts(shown: dict[str, Any]) -> list[dict[str, str]]:
    """Texts and pictures by turns, as the grammar of answers has them."""
    parts: list[dict[str, str]] = []
    for place in range(max(len(shown["texts"]), len(shown["images_png"]))):
        parts += [{"text": text} for text in shown["texts"][place : place + 1]]
        parts += [{"png": png} for png in shown["images_png"][place : place + 1]]
    return parts
