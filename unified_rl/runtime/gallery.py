"""What a policy answered, on disk: PNG files, one line of JSON an answer, and one page to look at.

Everything is written batch by batch, so that a run that is killed keeps what it has finished.
"""

import base64
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import jinja2
import numpy as np
import yaml
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError, UserError
from unified_rl.core.sample import Completion, Image, Sample, Segment, Text
from unified_rl.data.quarantine import Quarantine
from unified_rl.data.requests import TASKS, BrokenRow
from unified_rl.rewards.grammar import is_thought, spoken, words_of

RESULTS, PAGE, IMAGES = "results.jsonl", "index.html", "images"
SKIPPED, CARD = "skipped.jsonl", "provenance.json"
PAGE_BYTES = 48 * 2**20
"""The page embeds images up to this size in all; later answers stand in the other files only."""
SMALLEST_SHOWN = 144
"""Images of fewer pixels are enlarged on the page by a whole factor, to about this side."""
LARGEST_SHOWN = 288
"""Side in CSS pixels to which the page scales larger images down."""
RENDER_SHARE = 0.1
"""Share of the time of a run that writing the page anew may take."""

_NAMES = {task: name for name, task in TASKS.items()}


@dataclass(frozen=True, eq=False)
class Answer:
    """One completion of one prompt.

    Attributes:
        number: of the prompt, from 1.
        turn: which completion of its prompt, from 1.
        sample: what was asked.
        image_names: paths of the files that the prompt's images came from.
        completion: what was answered.
    """

    number: int
    turn: int
    sample: Sample
    image_names: tuple[str, ...]
    completion: Completion

    def parts(self) -> Iterator[tuple[Segment, str]]:
        """The segments in order, each image with the name of its file; a text with ""."""
        count = 0
        for segment in self.completion.segments:
            count += isinstance(segment, Image)
            name = f"prompt{self.number:04d}-sample{self.turn}-image{count}.png"
            yield segment, name if isinstance(segment, Image) else ""


class Gallery:
    """A folder of answers; a context that leaves the page complete however it ends.

    Args:
        folder: made if it is missing.
        title: of the page.
        seed: of the run; noted beside each answer.
        settings: JSON-able, noted beside each answer.
        provenance: JSON-able; written as `provenance.json`.
        skipped: rows of a prompt file that are not asked; see `skip`.

    Raises:
        ConfigError: the folder holds answers already, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        seed: int,
        settings: Mapping[str, Any],
        provenance: Mapping[str, Any],
        skipped: Sequence[BrokenRow] = (),
    ) -> None:
        self.folder, self.count = folder, 0
        self.skipped: list[BrokenRow] = []
        self._title, self._seed, self._settings = title, seed, dict(settings)
        self._provenance = dict(provenance)
        self._page, self._next_page = _Page(), 0.0
        check_free(folder)
        try:
            (folder / IMAGES).mkdir(parents=True)
            self._results: BinaryIO = (folder / RESULTS).open("xb")
            _write(folder / CARD, (json.dumps(self._provenance, indent=2) + "\n").encode())
        except OSError as error:
            raise ConfigError(f"output={folder} cannot be written: {error.strerror}") from error
        self._quarantine = Quarantine(folder / SKIPPED)
        for row in skipped:
            self.skip(row)

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with nullcontext() if kind is None else suppress(OSError):  # nothing hides the first fault
            self._results.close()
            self._write_page()

    def add(self, answers: Sequence[Answer]) -> None:
        """Keeps a batch of answers; on return its images and lines are on the disk.

        Args:
            answers: prompt by prompt.

        Raises:
            UserError: the disk is full, or the folder gone.
        """
        try:
            lines = [self._keep(answer) for answer in answers]
            self._results.write(b"".join(lines))
            self._results.flush()
            os.fsync(self._results.fileno())
            self.count += len(answers)
            started = time.monotonic()
            if started >= self._next_page:
                self._write_page()
                took = time.monotonic() - started
                self._next_page = time.monotonic() + took * (1 / RENDER_SHARE - 1)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written: {error.strerror}; "
                f"{self.count} answers are kept there"
            ) from error

    def skip(self, row: BrokenRow) -> None:
        """Lists a row that is not asked, on the page and in `skipped.jsonl`."""
        self.skipped.append(row)
        self._quarantine.append(*row)

    def _keep(self, answer: Answer) -> bytes:
        """Writes the images; the line of the answer."""
        segments, shown = [], []
        for segment, name in answer.parts():
            if isinstance(segment, Text):
                segments.append({"text": segment.text})
                continue
            content = png(segment.pixels)
            _write(self.folder / IMAGES / name, content)
            segments.append({"image": f"{IMAGES}/{name}"})
            shown.append(_picture(segment.pixels, content, name))
        self._page.add(answer, shown)
        row = {
            "id": answer.sample.id,
            "number": answer.number,
            "sample": answer.turn,
            "task": _NAMES[answer.sample.task],
            "prompt": answer.sample.prompt_text,
            "prompt_images": list(answer.image_names),
            "segments": segments,
            "finished": answer.completion.finished,
            "seed": self._seed,
            "settings": self._settings,
        }
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"

    def _write_page(self) -> None:
        text = self._page.render(
            title=self._title,
            count=self.count,
            skipped=self.skipped,
            seed=self._seed,
            settings=yaml.safe_dump(self._settings, sort_keys=False, allow_unicode=True),
            provenance=self._provenance,
        )
        _write(self.folder / PAGE, text.encode())


class _Page:
    """The answers that the page shows, the first ones up to `PAGE_BYTES`."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._left_out = self._bytes = 0

    def add(self, answer: Answer, pictures: Sequence[dict[str, Any]]) -> None:
        """Puts an answer and the pictures of its images on the page, if there is room."""
        known = bool(self._entries) and self._entries[-1]["number"] == answer.number
        prompt = [] if known else _prompt(answer)
        size = sum(len(picture["src"]) for picture in [*pictures, *prompt] if "src" in picture)
        if self._left_out or self._bytes + size > PAGE_BYTES:
            self._left_out += 1
            return
        self._bytes += size
        if not known:
            entry = {"number": answer.number, "id": answer.sample.id, "prompt": prompt}
            self._entries.append(entry | {"task": _NAMES[answer.sample.task], "answers": []})
        remaining = iter(pictures)
        parts = [
            next(remaining) if isinstance(segment, Image) else _words(segment.text)
            for segment in spoken(answer.completion)
        ]
        shown = {"turn": answer.turn, "finished": answer.completion.finished, "parts": parts}
        self._entries[-1]["answers"].append(shown)

    def render(self, **contents: Any) -> str:
        """The page, with what the template wants besides the answers."""
        page = _environment().get_template("gallery.html.j2")
        return page.render(entries=self._entries, left_out=self._left_out, **contents)


def check_free(folder: Path) -> None:
    """Refuses a folder that another run has written to, and a file.

    Raises:
        ConfigError: names what is in the way.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output={folder} is not a folder")
    for name in (RESULTS, PAGE, IMAGES, SKIPPED, CARD):
        if (folder / name).exists():
            raise ConfigError(
                f"output={folder} holds {name} of an earlier run, which is never overwritten; "
                "name another folder or move it away"
            )


def next_free(folder: Path) -> Path:
    """The folder, or the first of `folder-2`, `folder-3`, ... that does not exist."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 pixels (height, width, 3)."""
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _prompt(answer: Answer) -> list[dict[str, Any]]:
    names = iter(answer.image_names)
    return [
        _words(segment.text)
        if isinstance(segment, Text)
        else _picture(segment.pixels, png(segment.pixels), Path(next(names)).name)
        for segment in answer.sample.prompt
    ]


def _words(text: str) -> dict[str, Any]:
    return {"text": words_of(text) if is_thought(text) else text}


def _picture(pixels: np.ndarray, content: bytes, name: str) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    factor = max(1, round(SMALLEST_SHOWN / max(height, width)))
    factor = min(factor, LARGEST_SHOWN / max(height, width))
    return {
        "src": f"data:image/png;base64,{base64.b64encode(content).decode()}",
        "name": name,
        "width": round(width * factor),
        "height": round(height * factor),
        "pixelated": factor > 1,
    }


def _write(path: Path, content: bytes) -> None:
    """Writes beside and renames, so that nobody sees half a file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
