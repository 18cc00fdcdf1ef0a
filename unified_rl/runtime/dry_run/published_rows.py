"""A few generated rows in the layouts of published data sets, pictures and all."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from unified_rl.core.sample import THINK, VISUALISE
from unified_rl.runtime.dry_run.texts import ANSWER_WORD, PROMPT, QUESTION

ROWS = 4
SIDE = 40
"""Pictures as they are stored, px: wider than the small models', so that they are fitted."""
_VIDEO = "generated__"
"""As long as the ids of YouTube."""


def write_pictures(folder: Path, names: list[str]) -> None:
    """Noise under each name."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        picture = PillowImage.fromarray(rng.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def own_schema(folder: Path) -> dict[str, str | None]:
    """Rows of our own schema, of each task."""
    names = [f"{row}.png" for row in range(ROWS)]
    write_pictures(folder, names)
    told = [{"text": f"{THINK} a red circle {VISUALISE}"}, {"image": names[0]}]
    shown = [{"image": names[1]}, {"text": QUESTION}]
    rows: list[dict[str, Any]] = [
        {"task": "interleaved", "prompt": [{"text": f"a story of {PROMPT}"}], "target": told},
        {"task": "understanding", "prompt": shown, "target": [{"text": ANSWER_WORD}]},
        {"task": "text_to_image", "prompt": [{"text": PROMPT}], "target": [{"image": names[2]}]},
        {"task": "interleaved", "prompt": [{"text": f"how to draw {PROMPT}"}], "target": told},
    ]
    numbered = [{"id": str(number), **row} for number, row in enumerate(rows)]
    return {"path": str(write_lines(folder / "rows.jsonl", numbered)), "image_root": None}


def journeydb(folder: Path) -> dict[str, str | None]:
    """Annotations and pictures as JourneyDB has them."""
    names = [f"000/{row}.png" for row in range(ROWS)]
    write_pictures(folder / "imgs", names)
    rows = [{"img_path": f"./{n}", "prompt": PROMPT, "Task2": {"Caption": PROMPT}} for n in names]
    path = write_lines(folder / "annotations.jsonl", rows)
    return {"path": str(path), "images": str(folder / "imgs")}


def openstory(folder: Path) -> dict[str, str | None]:
    """A shard and frames as OpenStory++ has them."""
    import pyarrow
    import pyarrow.parquet

    keys = [f"{_VIDEO}_keyframe_0-0-{second}-0" for second in range(ROWS)]
    write_pictures(folder / "frames", [f"{_VIDEO}/{key}.jpg" for key in keys])
    rows = [{"__key__": key, "json": {"caption": PROMPT}} for key in keys]
    (folder / "story").mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "story" / "train-00000.parquet")
    return {"path": str(folder / "story"), "frames": str(folder / "frames")}


def genhowto(folder: Path) -> dict[str, str | None]:
    """Tables of states and actions and their frames as GenHowTo has them."""
    seconds = [f"{_VIDEO}/{second}.jpg" for second in range(3 * ROWS)]
    write_pictures(folder / "frames", seconds)
    written = {}
    for name, column in (("states", "FRAME_S2_PROMPT"), ("actions", "FRAME_AC_PROMPT")):
        written[name] = folder / f"{name}.txt"
        with written[name].open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["VID_ID", "FRAME_S1", "FRAME_S2", "FRAME_AC", column])
            for row in range(ROWS):
                rows.writerow([_VIDEO, 3 * row, 3 * row + 2, 3 * row + 1, f"{PROMPT} {row}"])
    return {
        "path": str(written["states"]),
        "partner": str(written["actions"]),
        "images": str(folder / "frames"),
        "videos": None,
    }


def llava(folder: Path) -> dict[str, str | None]:
    """Conversations about pictures in LLaVA's layout."""
    names = [f"pictures/{row}.png" for row in range(ROWS)]
    write_pictures(folder, names)
    said = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": "red"}]
    rows = [{"id": name, "image": name, "conversations": said} for name in names]
    path = folder / "conversations.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return {"path": str(path), "image_root": str(folder)}


MAKERS: Mapping[str, Callable[[Path], dict[str, str | None]]] = {
    "JsonlSource": own_schema,
    "JourneyDB": journeydb,
    "OpenStory": openstory,
    "GenHowTo": genhowto,
    "LlavaConversations": llava,
}
"""By the name of a source's class, what writes its files into a folder and gives its settings."""
