"""A few generated rows in the place of downloaded data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import (
    ANSWER,
    ANSWER_END,
    THINK,
    THINK_END,
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
from unified_rl.runtime.dry_run.published_rows import (
    MAKERS,
    ROWS,
    own_schema,
    write_lines,
    write_pictures,
)
from unified_rl.runtime.dry_run.texts import ANSWER_WORD, PROMPT, QUESTION

_VIDEOS = "ActivityNetCaptions"
"""A source of videos, which take an extra to be read."""


def replace_data(changes: Changes, folder: Path, specimen: Specimen) -> None:
    """Gives every source of data a few generated rows.

    Videos are not generated: rows of our own schema stand in for a source of them.

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
        elif name == "PreferenceSource":
            changes.set(f"{key}.path", _preferences(own, specimen), _told(own))
        elif name == _VIDEOS:
            target = "unified_rl.data.jsonl.JsonlSource"
            now = {"_target_": target, **own_schema(own), "image_size": specimen.image_size}
            changes.swap(key, now, f"JsonlSource, {_told(own)}")
            continue
        elif name in MAKERS:
            for setting, value in MAKERS[name](own).items():
                changes.set(f"{key}.{setting}", value, _told(own) if value else "none")
        elif "path" in node:
            raise ConfigError(f"a dry run knows no small data for {key}, a {name}")
        if "image_size" in node:
            changes.set(f"{key}.image_size", specimen.image_size)


def _above(changes: Changes, key: str) -> Mapping[str, Any]:
    """The node that holds the one at `key`."""
    return dict(changes.nodes("data.sources"))[key.rpartition(".")[0]]


def _told(folder: Path) -> str:
    return f"{ROWS} generated rows, {folder}"


def _table(folder: Path, columns: Mapping[str, str | None]) -> str:
    """Rows with the columns of `data.x2x.COLUMNS`, under the names that the experiment gives."""
    solution = f"{THINK} it is {ANSWER_WORD} {THINK_END}{ANSWER}{ANSWER_WORD}{ANSWER_END}"
    names = [f"{row}.png" for row in range(ROWS)]
    write_pictures(folder, names)
    rows = []
    for row, name in enumerate(names):
        cells = {
            "image": name,
            "prompt": PROMPT,
            "problem": QUESTION,
            "solution": solution,
            "kind": "MC" if row % 2 else "OE",
        }
        rows.append({columns[part]: cell for part, cell in cells.items() if columns[part]})
    return str(write_lines(folder / "train.jsonl", rows))


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
        facts = {"question": QUESTION, "answer": ANSWER_WORD}
        prompt = (Text(f"{PROMPT} {row}"),)
        ranked = Ranked(
            Sample(f"drawing/{row}", Task.TEXT_TO_IMAGE, prompt, facts=facts),
            Choice(drawings[0], drawings[1], 1.0, 0.0),
            drawings[2],
            Choice(Text(ANSWER_WORD), Text("blue"), 1.0, 0.0),
        )
        made.write(ranked)
        halves[ranked.sample.id] = ranked.halves
    made.finish(halves)
    return str(folder)
