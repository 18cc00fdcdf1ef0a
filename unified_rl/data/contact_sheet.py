"""One self-contained page of what a source holds; nothing that data says is taken for markup."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image as PillowImage

from unified_rl.core.sample import Image, Sample, Segment, Text
from unified_rl.data.inspection import Inspection

LARGEST_SHOWN = 176
"""Longer side in pixels to which pictures are scaled down."""
SMALL = 64
"""Pictures up to this side are shown enlarged, pixel by pixel."""
TEXT_LENGTH = 480
"""Characters of a text that are shown."""
IMAGE_COUNT = 8
"""Pictures of a prompt or target that are shown."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def contact_sheet(title: str, inspections: Sequence[Inspection], settings: str) -> str:
    """The page as HTML.

    Args:
        title: of the page.
        inspections: one a source.
        settings: text that says how it was made.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("contact_sheet.html.j2")
    sources = [_source(inspection) for inspection in inspections]
    # without marks that turn the direction of reading, and other controls
    return _CONTROL.sub("\ufffd", page.render(title=title, sources=sources, settings=settings))


def _source(inspection: Inspection) -> dict[str, Any]:
    figures = inspection.as_json()
    return {
        "name": inspection.name,
        **figures,
        "reasons": [(_plain(row["reason"]), row["rows"]) for row in figures["reasons"]],
        "entries": [_entry(place, sample) for place, sample in inspection.picked],
    }


def _entry(place: int, sample: Sample) -> dict[str, Any]:
    return {
        "number": place + 1,
        "id": _plain(sample.id),
        "task": sample.task.value.replace("_", " "),
        "prompt": _parts(sample.prompt),
        "target": _parts(sample.target),
        "facts": _facts(sample.facts),
    }


def _parts(segments: Sequence[Segment]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    count = 0
    for segment in segments:
        if isinstance(segment, Text):
            parts.append({"text": _plain(segment.text)})
        elif isinstance(segment, Image):
            count += 1
            if count <= IMAGE_COUNT:
                parts.append(_picture(segment))
        else:
            parts.append({"text": f"(a drawing of {len(segment.codes)} positions)"})
    if count > IMAGE_COUNT:
        parts.append({"text": f"(and {count - IMAGE_COUNT} more pictures)"})
    return parts


def _picture(image: Image) -> dict[str, Any]:
    height, width = image.pixels.shape[:2]
    picture = PillowImage.fromarray(image.pixels)
    small = max(width, height) <= SMALL
    if not small:
        picture.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
    factor = max(1, LARGEST_SHOWN // 2 // max(width, height)) if small else 1
    file = io.BytesIO()
    kind = "png" if small else "jpeg"
    picture.save(file, format=kind, **({} if small else {"quality": 80}))
    return {
        "src": f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}",
        "name": f"{width} x {height}",
        "width": picture.width * factor,
        "height": picture.height * factor,
        "pixelated": small,
    }


def _facts(facts: Mapping[str, Any]) -> str:
    return _plain(", ".join(f"{key}: {value}" for key, value in facts.items()))


def _plain(text: str) -> str:
    """A text as it may be shown: cut, and Unicode."""
    cut = text[:TEXT_LENGTH].encode("utf-8", "replace").decode()
    return cut + ("…" if len(text) > TEXT_LENGTH else "")
