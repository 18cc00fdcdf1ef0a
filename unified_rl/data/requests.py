"""What to ask a policy: one prompt, or a file of them, broken rows set aside.

A text file holds one prompt a line. A JSONL file holds one object a line, in UTF-8:

    {"prompt": "what is this",           or segments: [{"text": ".."}, {"image": ".."}]
     "image": "cats/1.png",              optional, or a list; shown before the text
     "task": "question",                 optional: text_to_image, question, story or text
     "id": "a1"}                         optional, unique; else "line-" and the line's number

Rows of `jsonl.JsonlSource` are read as well; their targets and facts are passed over. Image paths
are relative to `image_root`, which they cannot leave. Blank lines are passed over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.data.images import ImageError, check_header, fit, path_inside, read_image
from unified_rl.data.jsonl import (
    LINE_BYTES,
    BrokenRowError,
    existing_file,
    numbered_lines,
    parse_row,
)

TASKS = {
    "text_to_image": Task.TEXT_TO_IMAGE,
    "question": Task.UNDERSTANDING,
    "story": Task.INTERLEAVED,
    "text": Task.TEXT,
}
"""What users call the tasks."""
AUTO = "auto"
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
KEYS = ("prompt", "image", "task", "id", "target", "facts")


@dataclass(frozen=True)
class Request:
    """A prompt whose images are still files.

    Attributes:
        number: from 1, in the order of asking; files are named by it.
        id: unique among the requests.
        line: of the file that it stands in; None for a prompt of the command line.
        task: what is asked for.
        prompt: texts, and paths of images, in order.
    """

    number: int
    id: str
    line: int | None
    task: Task
    prompt: tuple[str | Path, ...]

    @property
    def images(self) -> tuple[Path, ...]:
        """The files of the images in order."""
        return tuple(segment for segment in self.prompt if isinstance(segment, Path))

    def sample(self, image_size: int, image_fit: Literal["crop", "pad", "stretch"]) -> Sample:
        """What a policy is shown.

        Args:
            image_size: side of the policy's images, in pixels.
            image_fit: see `images.fit`.

        Raises:
            BrokenRowError: an image that cannot be read; names its file.
        """
        return self._sample({path: _pixels(path, image_size, image_fit) for path in self.images})

    def outline(self) -> Sample:
        """The sample with images of one pixel: enough to count its tokens."""
        return self._sample({path: np.zeros((1, 1, 3), np.uint8) for path in self.images})

    def _sample(self, pixels: dict[Path, np.ndarray]) -> Sample:
        prompt = tuple(
            Image(pixels[segment]) if isinstance(segment, Path) else Text(segment)
            for segment in self.prompt
        )
        return Sample(self.id, self.task, prompt)


class BrokenRow(NamedTuple):
    """A row that is passed over; `id` is None where it has none that could be read."""

    line: int
    id: str | None
    reason: str


def request_of(prompt: str, task: str = AUTO, images: Sequence[str] = ()) -> Request:
    """The request of a prompt and images from the command line.

    Args:
        prompt: the text.
        task: a name in `TASKS`; "auto" is a question where there are images, else a drawing.
        images: paths.

    Raises:
        ConfigError: an unknown task, or one that does not go with the images.
        DataError: an empty prompt, or an image that cannot be read; names its file.
    """
    _check_name(task)
    shown = _shown(images)
    try:
        return _request(1, "prompt", None, task, (*shown, prompt))
    except BrokenRowError as error:
        raise DataError(f"the prompt {error}") from error


def read_requests(
    path: Path,
    task: str = AUTO,
    images: Sequence[str] = (),
    image_root: Path | None = None,
) -> tuple[list[Request], list[BrokenRow]]:
    """The requests of a file, and its rows that are broken.

    Args:
        path: of a text file, or of a JSONL file by its suffix.
        task: of rows that name none.
        images: paths of images for rows that name none.
        image_root: folder that the images of rows are relative to; None is that of the file.

    Raises:
        ConfigError: an unknown task.
        DataError: no such file or folder, an image of `images` that cannot be read, or no good
            row; says what is wrong with the first.
    """
    _check_name(task)
    existing_file(path)
    root = path.parent if image_root is None else image_root
    if not root.is_dir():
        raise DataError(f"image_root={image_root} is not a folder")
    shown = _shown(images)
    read = _read_json if path.suffix.lower() in JSON_SUFFIXES else _read_text
    requests: dict[str, Request] = {}
    broken: list[BrokenRow] = []
    with path.open("rb") as file:
        for line, _, content in numbered_lines(file):
            row: dict[str, Any] = {}
            try:
                row = read(content)
                request = _request_of_row(row, len(requests) + 1, line, task, shown, root)
                if request.id in requests:
                    taken = requests[request.id].line
                    raise BrokenRowError(f"id {request.id!r} is taken by line {taken}")
                requests[request.id] = request
            except BrokenRowError as error:
                row_id = row.get("id")
                known = row_id if isinstance(row_id, str) else None
                broken.append(BrokenRow(line, known, str(error)))
    if not requests:
        raise DataError(nothing_left(path, broken))
    return list(requests.values()), broken


def nothing_left(path: Path, broken: Sequence[BrokenRow]) -> str:
    """Says that a file has no row to ask, and why."""
    if not broken:
        return f"{path} holds no prompts"
    line, _, reason = broken[0]
    return f"{path}: all {len(broken)} rows are broken; line {line}: {reason}"


def check_length(prompt_length: int, answer_length: int, context_length: int | None) -> None:
    """Refuses a prompt that leaves its answer too little room.

    Args:
        prompt_length: tokens of the prompt, its images' positions included.
        answer_length: most tokens of an answer.
        context_length: most tokens of a sequence; None is without limit.

    Raises:
        ConfigError: the answer alone does not fit.
        BrokenRowError: a clause to put behind the name of the prompt.
    """
    if context_length is None:
        return
    if answer_length >= context_length:
        raise ConfigError(
            f"an answer of up to {answer_length} tokens does not fit the model's context of "
            f"{context_length}; lower behaviour.max_text_tokens or behaviour.max_image_count"
        )
    room = context_length - answer_length
    if prompt_length > room:
        raise BrokenRowError(
            f"is {prompt_length} tokens long, but a context of {context_length} with answers of "
            f"up to {answer_length} leaves {room}; shorten it by {prompt_length - room} tokens"
        )


def _read_text(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES:
        raise BrokenRowError(f"is longer than {LINE_BYTES} bytes")
    try:
        return {"prompt": line.decode("utf-8-sig").strip()}
    except UnicodeDecodeError as error:
        raise BrokenRowError(f"is not UTF-8: {error.reason}") from error


def _read_json(line: bytes) -> dict[str, Any]:
    row = parse_row(line)
    for key in row:
        if key not in KEYS:
            raise BrokenRowError(f"{key!r} is none of {', '.join(KEYS)}; {nearest(key, KEYS)}")
    if "id" in row and (not isinstance(row["id"], str) or not row["id"]):
        raise BrokenRowError(f"id {row['id']!r} is not a text")
    if not isinstance(row.get("task", ""), str):
        raise BrokenRowError(f"task {row['task']!r} is not a text")
    return row


def _request_of_row(
    row: dict[str, Any], number: int, line: int, task: str, shown: tuple[Path, ...], root: Path
) -> Request:
    name = row.get("task", task)
    if name not in _NAMES:
        raise BrokenRowError(f"task {name!r}: {nearest(name, TASKS)}")
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        images = row.get("image", [])
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise BrokenRowError("image is neither a path nor a list of paths")
        segments = (*(_image(root, image) for image in images), prompt)
    elif isinstance(prompt, list) and "image" not in row:
        segments = tuple(_segment(root, place, part) for place, part in enumerate(prompt))
    else:
        raise BrokenRowError("prompt is neither a text nor, without 'image' beside, a list")
    if not any(isinstance(segment, Path) for segment in segments):
        segments = (*shown, *segments)
    return _request(number, row.get("id", f"line-{line}"), line, name, segments)


def _segment(root: Path, place: int, segment: Any) -> str | Path:
    if isinstance(segment, dict) and len(segment) == 1:
        ((kind, value),) = segment.items()
        if kind in ("text", "image") and isinstance(value, str):
            return value if kind == "text" else _image(root, value)
    raise BrokenRowError(f'prompt[{place}] is neither {{"text": ..}} nor {{"image": ..}}')


def _image(root: Path, name: str) -> Path:
    try:
        path = path_inside(root, name)
        check_header(path)
    except ImageError as error:
        raise BrokenRowError(f"image {name!r} {error}") from error
    return path


def _shown(names: Sequence[str]) -> tuple[Path, ...]:
    """Images of the command line."""
    for name in names:
        try:
            read_image(Path(name))  # few, so that damage shows before the weights are read
        except ImageError as error:
            raise DataError(f"image {name!r} {error}") from error
    return tuple(map(Path, names))


def _pixels(path: Path, size: int, how: Literal["crop", "pad", "stretch"]) -> np.ndarray:
    try:
        return fit(read_image(path), size, how)
    except ImageError as error:
        raise BrokenRowError(f"shows image {str(path)!r}, which {error}") from error


_NAMES = {**TASKS, **{task.value: task for task in Task}, AUTO: None}
"""Tasks by the names of users and by those of `core.sample.Task`."""


def _check_name(task: str) -> None:
    if task not in _NAMES:
        raise ConfigError(f"task={task} is not a task; {nearest(str(task), [AUTO, *TASKS])}")


def _request(
    number: int, request_id: str, line: int | None, task: str, prompt: tuple[str | Path, ...]
) -> Request:
    """Refuses what cannot be asked."""
    text = "".join(segment for segment in prompt if isinstance(segment, str))
    if not text.strip():
        raise BrokenRowError("is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BrokenRowError(f"holds text that is not Unicode: {error.reason}") from error
    has_image = any(isinstance(segment, Path) for segment in prompt)
    chosen = _NAMES[task] or (Task.UNDERSTANDING if has_image else Task.TEXT_TO_IMAGE)
    if chosen == Task.UNDERSTANDING and not has_image:
        raise BrokenRowError("asks a question of no image; name one with image")
    if chosen in (Task.TEXT_TO_IMAGE, Task.TEXT) and has_image:
        raise BrokenRowError(f"has an image, which {chosen.value} is not shown; use task question")
    return Request(number, request_id, line, chosen, prompt)
