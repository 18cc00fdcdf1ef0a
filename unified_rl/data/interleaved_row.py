"""Our own schema: one sample as a JSON object, whose images are named and stored beside.

{"id": "a1",                      unique within its file
 "task": "interleaved",           a value of `core.sample.Task`
 "prompt": [{"text": "draw a cat"}, {"image": "cats/1.png"}],    at least one segment
 "target": [{"text": "<think> .. <vis>"}, {"image": "cats/2.png"}],    optional
 "facts": {"answer": "two"}}      optional; anything that rewards and evaluations check

What an image's name is relative to is the container's matter: see `jsonl` and `webdataset`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unified_rl.core.errors import DataError, nearest
from unified_rl.core.sample import DrawnImage, Image, Sample, Segment, Task, Text
from unified_rl.data.images import IMAGE_PIXELS
from unified_rl.data.quarantine import BrokenRowError

REQUIRED_KEYS = ("id", "task", "prompt")
KEYS = (*REQUIRED_KEYS, "target", "facts")
ROW_PIXELS = 4 * IMAGE_PIXELS
"""A row whose images hold more, after they are made as large as the settings say, is broken."""


def check_row(row: Mapping[str, Any], check_image: Callable[[str], None]) -> None:
    """Refuses a row that does not fit the schema.

    Args:
        row: a JSON object.
        check_image: raises BrokenRowError for the name of an image that is not there.

    Raises:
        BrokenRowError: a clause to put behind the row's place.
    """
    for key in REQUIRED_KEYS:
        if key not in row:
            raise BrokenRowError(f"has no {key!r}")
    for key in row:
        if key not in KEYS:
            raise BrokenRowError(f"{key!r} is none of {', '.join(KEYS)}; {nearest(key, KEYS)}")
    if not isinstance(row["id"], str) or not row["id"]:
        raise BrokenRowError(f"id {row['id']!r} is not a text")
    tasks = [task.value for task in Task]
    if row["task"] not in tasks:
        raise BrokenRowError(f"task {row['task']!r}: {nearest(str(row['task']), tasks)}")
    if not isinstance(row.get("facts", {}), dict):
        raise BrokenRowError("facts are not an object")
    if not row["prompt"]:
        raise BrokenRowError("the prompt is empty")
    for key in ("prompt", "target"):
        segments = row.get(key, [])
        if not isinstance(segments, list):
            raise BrokenRowError(f"{key} is not a list")
        for place, segment in enumerate(segments):
            _check_segment(f"{key}[{place}]", segment, check_image)


def sample_of(row: Mapping[str, Any], image_of: Callable[[str], Image]) -> Sample:
    """The sample of a row that `check_row` lets pass.

    Args:
        row: a JSON object.
        image_of: reads the image of a name.

    Raises:
        BrokenRowError: its images hold more than `ROW_PIXELS`, or one cannot be read.
    """
    pixel_count = 0

    def segment_of(segment: Mapping[str, str]) -> Segment:
        nonlocal pixel_count
        if "text" in segment:
            return Text(segment["text"])
        image = image_of(segment["image"])
        pixel_count += image.pixels.shape[0] * image.pixels.shape[1]
        if pixel_count > ROW_PIXELS:
            raise BrokenRowError(f"shows over {ROW_PIXELS} pixels; set image_size")
        return image

    return Sample(
        id=row["id"],
        task=Task(row["task"]),
        prompt=tuple(map(segment_of, row["prompt"])),
        target=tuple(map(segment_of, row.get("target", ()))),
        facts=row.get("facts", {}),
    )


def written_row(sample: Sample, name_of: Callable[[Image], str], max_bytes: int) -> bytes:
    """A sample as a JSON object on one line.

    Args:
        sample: with JSON-able facts (tuples come back as lists).
        name_of: stores an image and gives the name that it goes by.
        max_bytes: of the line.

    Raises:
        DataError: a sample that would not be read back: names its id.
    """
    if not sample.prompt:
        raise DataError(f"sample {sample.id!r} has an empty prompt")
    if any(isinstance(segment, DrawnImage) for segment in (*sample.prompt, *sample.target)):
        raise DataError(
            f"sample {sample.id!r} has codes that a policy drew, which a file has no place for; "
            "give their pixels"
        )
    row = {
        "id": sample.id,
        "task": sample.task.value,
        "prompt": _written(sample.prompt, name_of),
        "target": _written(sample.target, name_of),
        "facts": dict(sample.facts),
    }
    row = {key: value for key, value in row.items() if value or key in REQUIRED_KEYS}
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"sample {sample.id!r} cannot be written as JSON: {error}") from error
    if len(line) > max_bytes:
        raise DataError(f"sample {sample.id!r} takes {len(line)} bytes, limit {max_bytes}")
    return line


def written_pixels(image: Image) -> np.ndarray:
    """Pixels that an image file can hold and that are read back.

    Raises:
        DataError: none, or more than `IMAGE_PIXELS`.
    """
    pixels = np.ascontiguousarray(image.pixels)
    height, width, _ = pixels.shape
    if not 0 < height * width <= IMAGE_PIXELS:
        raise DataError(f"an image of {width} x {height} pixels is outside 1..{IMAGE_PIXELS}")
    return pixels


def _check_segment(where: str, segment: Any, check_image: Callable[[str], None]) -> None:
    if (
        not isinstance(segment, dict)
        or list(segment) not in (["text"], ["image"])
        or not isinstance(next(iter(segment.values())), str)
    ):
        raise BrokenRowError(f'{where} is neither {{"text": ..}} nor {{"image": ..}}')
    if "image" in segment:
        check_image(segment["image"])


def _written(segments: Sequence[Segment], name_of: Callable[[Image], str]) -> list[dict[str, str]]:
    return [
        {"text": segment.text} if isinstance(segment, Text) else {"image": name_of(segment)}
        for segment in segments
    ]
