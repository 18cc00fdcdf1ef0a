"""A few generated rows in the place of downloaded data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import (
    ANSWER,
    ANSWER_END,
    THINK,
    THINK_END,
    VISUALISE,
    DrawnImage,
    Sample,
    Task,
    Text,
)
from unified_rl.data.preferences import PreferenceFolder
from unified_rl.data.ranked import Choice, Ranked
from unified_rl.data.x2x import COLUMNS
from unified_rl.runtime.dry_run.change import Changes
from unified_rl.runtime.dry_run.models import Specimen

ROWS = 4
_SIDE = 40
"""Pictures as they are stored, px: wider than the small models', so that they are fitted."""
_QUESTION = "what is the color of the circle?"
_ANSWER = "red"
_PROMPT = "a red circle left of a blue square"


def replace_data(changes: Changes, folder: Path, specimen: Specimen) -> None:
    """Gives every source of data a few generated rows.

    Args:
        changes: of the configuration.
        folder: where they are written.
        specimen: the model that is given them.

    Raises:
        ConfigError: a source of which nothing small is known.
    """
    for key, node in changes.nodes("data.sources"):
        name = node["_target_"].rpartition(".")[2]
        own = folder / key
        if name == "open_table":
            columns = {**COLUMNS, **(_above(changes, key).get("columns") or {})}
            changes.set(f"{key}.path", _table(own, columns), _told(own))
            changes.set(f"{key}.hub", False)
        elif name == "JsonlSource":
            changes.set(f"{key}.path", _jsonl(own), _told(own))
        elif name == "PreferenceSource":
            changes.set(f"{key}.path", _preferences(own, specimen), _told(own))
        elif "path" in node:
            raise ConfigError(f"a dry run knows no small data for {key}, a {name}")
        if node.get("image_root") is not None:
            changes.set(f"{key}.image_root", None)
        if "image_size" in node:
            changes.set(f"{key}.image_size", specimen.image_size)


def _above(changes: Changes, key: str) -> Mapping[str, Any]:
    """The node that holds the one at `key`."""
    return dict(changes.nodes("data.sources"))[key.rpartition(".")[0]]


def _told(folder: Path) -> str:
    return f"{ROWS} generated rows, {folder}"


def _picture(seed: int) -> PillowImage.Image:
    """Noise."""
    rng = np.random.default_rng(seed)
    return PillowImage.fromarray(rng.integers(256, size=(_SIDE, _SIDE, 3), dtype=np.uint8))


def _write_pictures(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{row}.png" for row in range(ROWS)]
    for row, name in enumerate(names):
        _picture(row).save(folder / name)
    return names


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _table(folder: Path, columns: Mapping[str, str | None]) -> str:
    """Rows with the columns of `data.x2x.COLUMNS`, under the names that the experiment gives."""
    solution = f"{THINK} it is {_ANSWER} {THINK_END}{ANSWER}{_ANSWER}{ANSWER_END}"
    rows = []
    for row, name in enumerate(_write_pictures(folder)):
        cells = {
            "image": name,
            "prompt": _PROMPT,
            "problem": _QUESTION,
            "solution": solution,
            "kind": "MC" if row % 2 else "OE",
        }
        rows.append({columns[part]: cell for part, cell in cells.items() if columns[part]})
    return _write_lines(folder / "train.jsonl", rows)


def _jsonl(folder: Path) -> str:
    """Rows of our own schema, of each task."""
    names = _write_pictures(folder)
    told = [{"text": f"{THINK} a red circle {VISUALISE}"}, {"image": names[0]}]
    shown = [{"image": names[1]}, {"text": _QUESTION}]
    rows = [
        {"task": "interleaved", "prompt": [{"text": f"a story of {_PROMPT}"}], "target": told},
        {"task": "understanding", "prompt": shown, "target": [{"text": _ANSWER}]},
        {"task": "text_to_image", "prompt": [{"text": _PROMPT}], "target": [{"image": names[2]}]},
        {"task": "interleaved", "prompt": [{"text": f"how to draw {_PROMPT}"}], "target": told},
    ]
    return _write_lines(
        folder / "rows.jsonl", [{"id": str(number), **row} for number, row in enumerate(rows)]
    )


def _preferences(folder: Path, specimen: Specimen) -> str:
    """Preferences of both halves."""
    made = PreferenceFolder(folder)
    made.begin({"made": "by a dry run"})
    positions, depth, codes = specimen.codes
    drawings = [
        DrawnImage(np.random.default_rng(seed).integers(codes, size=(positions, depth)))
        for seed in range(3)
    ]
    halves = {}
    for row in range(ROWS):
        facts = {"question": _QUESTION, "answer": _ANSWER}
        prompt = (Text(f"{_PROMPT} {row}"),)
        ranked = Ranked(
            Sample(f"drawing/{row}", Task.TEXT_TO_IMAGE, prompt, facts=facts),
            Choice(drawings[0], drawings[1], 1.0, 0.0),
            drawings[2],
            Choice(Text(_ANSWER), Text("blue"), 1.0, 0.0),
        )
        made.write(ranked)
        halves[ranked.sample.id] = ranked.halves
    made.finish(halves)
    return str(folder)
