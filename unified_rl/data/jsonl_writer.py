"""Writes samples as a JSONL file with images beside, in our own schema."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Image, Sample
from unified_rl.data.interleaved_row import written_pixels, written_row
from unified_rl.data.jsonl import LINE_BYTES
from unified_rl.data.quarantine import beside


def write_jsonl(path: str, samples: Iterable[Sample], image_folder: str = "images") -> int:
    """Writes samples in the schema of `JsonlSource`, which reads them back unchanged.

    Images become PNG files named by a hash of their content, so that equal ones are stored once.
    Every file is written beside its place and renamed: a half-written one is never seen.

    Args:
        path: of the JSONL file; replaced if it exists.
        samples: with ids of their own and JSON-able facts (tuples come back as lists).
        image_folder: for the images, relative to the folder of `path` and inside it.

    Returns:
        Number of samples written.

    Raises:
        DataError: a sample that would not be read back: names its id. `path` is left untouched.
    """
    target = Path(path)
    folder = ImageFolder(target, image_folder)
    ids: set[str] = set()
    unfinished = beside(target)
    try:
        with unfinished.open("wb") as file:
            for sample in samples:
                if not sample.id or sample.id in ids:
                    raise DataError(f"sample id {sample.id!r} is empty or given twice")
                ids.add(sample.id)
                file.write(written_row(sample, folder.put, LINE_BYTES))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(ids)


class ImageFolder:
    """The images of a JSONL file, named by what they hold.

    Args:
        path: of the JSONL file.
        name: of the folder, relative to that of `path` and inside it.

    Raises:
        ConfigError: it would lie elsewhere.
    """

    def __init__(self, path: Path, name: str = "images") -> None:
        self._root = path.parent.resolve()
        self._folder = (self._root / name).resolve()
        if not self._folder.is_relative_to(self._root):
            raise ConfigError(f"image_folder={name} must lie inside {self._root}, beside {path}")
        self._folder.mkdir(parents=True, exist_ok=True)

    def put(self, image: Image) -> str:
        """Stores an image, unless it is stored; its path relative to that of the JSONL file."""
        pixels = written_pixels(image)
        content = repr(pixels.shape).encode() + pixels.tobytes()
        file = self._folder / f"{hashlib.sha256(content).hexdigest()[:24]}.png"
        if not file.exists():
            unfinished = beside(file)
            try:
                PillowImage.fromarray(pixels).save(unfinished, format="PNG")
                unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
        return file.relative_to(self._root).as_posix()
