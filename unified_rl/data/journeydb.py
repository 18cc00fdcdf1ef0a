"""JourneyDB: pictures that Midjourney drew, with their prompts and captions.

The annotations are JSON lines. The pictures come as `imgs/000.tgz` to `imgs/199.tgz`; they are read
of `imgs/000.tar` and so on once `gunzip` has been there, or of the folders that are packed in them.
"""

from pathlib import Path
from typing import Literal

from unified_rl.core.errors import ConfigError, DataError, nearest
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.cells import text_of
from unified_rl.data.fields import field_of
from unified_rl.data.jsonl_table import JsonlTable
from unified_rl.data.tar_pictures import SUFFIX, TarPictures
from unified_rl.data.telling import target_folder

TEXT_LENGTH = 8192
"""Characters; a longer prompt breaks its row."""


class JourneyDB(DatasetAdapter):
    """A text to draw and the picture that was drawn: a text-to-image sample each.

    Facts: "image", its path.

    Source: UnifiedGRPO 4.1, where a million of these keep up drawing during the warm-up; its
    number is of samples, and which of the texts it takes is not stated.

    Args:
        path: of the annotations: .jsonl.
        images: folder of the pictures, or of .tar archives with them, which are read in place;
            None where no target is read.
        text: field that is the prompt: "prompt" as it was given to Midjourney, "Task2.Caption" as
            a language model described the picture.
        image: field that is the path of the picture in `images`.
        read_target: false leaves the pictures unread, for reinforcement learning needs no target.
        quarantine: file that lists broken rows; None is one beside `path`.
        image_size: side in pixels of the squares that images are made; None leaves them as they
            are.
        image_fit: how they are made squares; see `images.fit`.
        max_broken: share of broken rows from 0 to 1 above which the data set is refused.

    Raises:
        DataError: no such file or folder, archives that are still compressed, or too many broken
            rows.
        ConfigError: a field that no row has, or a setting outside of its range.
    """

    def __init__(
        self,
        path: str,
        images: str | None,
        text: str = "prompt",
        image: str = "img_path",
        read_target: bool = True,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        folder = target_folder("images", images, read_target)
        if folder is not None:
            _check_reachable(Path(folder))
        super().__init__(path, folder, quarantine, image_size, image_fit, max_broken)
        self._text_field, self._image_field = text, image
        self._columns = [name.partition(".")[0] for name in (text, image)]
        self._table = JsonlTable(self.path)
        if not len(self._table):
            raise DataError(f"{path} holds no rows")
        for setting, column in zip(("text", "image"), self._columns, strict=True):
            if column not in self._table.columns:
                known = ", ".join(self._table.columns[:30])
                raise ConfigError(
                    f"{path} has no field {column!r}; {nearest(column, self._table.columns)} "
                    f"It has {known}; set {setting}"
                )
        self._archives = None if folder is None else TarPictures(self.image_root)
        for place, reason in () if self._archives is None else self._archives.lost:
            self._lost(place, reason)
        self._check_rows()

    def __len__(self) -> int:
        """Number of lines but blank ones."""
        return len(self._table)

    def place(self, index: int) -> int:
        """The line of a row."""
        return self._table.number(index)

    def load(self, index: int) -> Sample:
        """A text and its picture.

        Raises:
            BrokenRowError: a damaged row, or a picture that is missing or cannot be read.
        """
        row = self._table.row(index, self._columns)
        text = text_of(field_of(row, self._text_field), self._text_field, TEXT_LENGTH)
        name = text_of(field_of(row, self._image_field), self._image_field, TEXT_LENGTH)
        return Sample(
            id=f"journeydb/{self.place(index)}",
            task=Task.TEXT_TO_IMAGE,
            prompt=(Text(text),),
            target=() if self._archives is None else (self._picture(name, self._archives),),
            facts={"image": name},
        )

    def _picture(self, name: str, archives: TarPictures) -> Image:
        return self._image(archives.read(name) if len(archives) else name)


def _check_reachable(images: Path) -> None:
    """Raises DataError where pictures can be reached by unpacking all those before them only."""
    packed = sorted(entry.name for entry in images.iterdir() if entry.suffix == ".tgz")
    if packed and not any(entry.is_dir() or entry.suffix == SUFFIX for entry in images.iterdir()):
        raise DataError(
            f"images={images} holds {packed[0]}, of which no picture can be read alone; run "
            f"gunzip {images}/*.tgz, and the .tar files that it leaves are read in place"
        )
