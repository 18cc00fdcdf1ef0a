"""Published data in its own layout, as samples: at random, in order, or in shuffled order.

An adapter knows one layout: how many rows there are, where each stands, and what sample it makes
(`__len__`, `place`, `load`). Everything else is its base's: broken rows are set aside and listed,
ranks share the rows, and a reader that stopped goes on where it was.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Image, Sample
from unified_rl.data.checked_rows import CheckedRows, Fault
from unified_rl.data.images import ImageError, check_fit, fit, path_inside, read_image
from unified_rl.data.interleaved_row import ROW_PIXELS
from unified_rl.data.jsonl import existing_file
from unified_rl.data.ordered_rows import OrderedRows
from unified_rl.data.quarantine import BrokenRowError


class DatasetAdapter(OrderedRows):
    """Rows of a data set in its published layout.

    A subclass's constructor calls this one, finds its rows, and calls `_check_rows` last. What it
    loses on the way (the rest of an archive, say) it gives to `_lost`. Anything that is wrong with
    a single row is a BrokenRowError of `load`. Adapters hold no open files.

    Args:
        path: of the data set: a file or a folder.
        image_root: folder that image paths are relative to; None is the folder of the file, or
            the folder itself.
        quarantine: file that lists place and reason of broken rows; None puts `.quarantine.jsonl`
            behind `path`. It exists only if there are any.
        image_size: side in pixels of the squares that images are made; None leaves them as they
            are.
        image_fit: how they are made squares: "crop", "pad" or "stretch", see `images.fit`; the
            policy's `capabilities.image_fit` says what its family does.
        max_broken: share of broken rows from 0 to 1 above which the data set is refused.

    Raises:
        DataError: no such file or folder, no good row, or too many broken ones.
        ConfigError: a setting outside of its range.
    """

    def __init__(
        self,
        path: str,
        image_root: str | None = None,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        if image_size is not None and image_size < 1:
            raise ConfigError(f"image_size={image_size} must be at least 1, or null")
        check_fit(image_fit)
        self.path = Path(path)
        if not self.path.exists():
            existing_file(self.path)  # names the nearest that does
        if image_root is not None:
            self.image_root = Path(image_root)
        else:
            self.image_root = self.path if self.path.is_dir() else self.path.parent
        if not self.image_root.is_dir():
            raise DataError(f"image_root={self.image_root} is not a folder")
        self.image_size, self.image_fit = image_size, image_fit
        self._quarantine, self._max_broken = quarantine, max_broken
        self._faults: list[Fault] = []

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was lost before it became a row."""
        return tuple(self._faults)

    @property
    def broken_count(self) -> int:
        """Number of rows found broken so far, with what was lost before it became a row."""
        return self._rows.broken_count

    @property
    def broken_reasons(self) -> list[tuple[str, int]]:
        """Kinds of reasons why they are broken, with their counts; the most frequent first."""
        return self._rows.reasons.most_common()

    def draw(self, rng: np.random.Generator) -> Sample:
        """The sample of a random good row; depends on `rng` alone.

        Raises:
            DataError: too many rows have turned out broken.
        """
        return self._rows.draw(rng)

    def take(self, index: int) -> Sample | None:
        """The sample of the row at an index; None where it is broken, which is then listed.

        Raises:
            DataError: too many rows have turned out broken.
        """
        return self._rows.take(index)

    def _check_rows(self) -> None:
        """Reads some rows; the last thing that a subclass's constructor does."""
        quarantine = self._quarantine or f"{self.path}.quarantine.jsonl"
        self._rows = CheckedRows(
            str(self.path),
            self.place,
            range(len(self)),
            self.load,
            quarantine,
            self._max_broken,
            self._faults,
        )

    def _lost(self, place: int | str, reason: str) -> None:
        """Counts and lists something that never became a row."""
        self._faults.append(Fault(place, reason))

    def _image(self, source: str | bytes) -> Image:
        """An image as the settings have it.

        Args:
            source: path relative to `image_root`, which it cannot leave, or the content of a file.

        Raises:
            BrokenRowError: it cannot be read; names it.
        """
        name = f"image {source!r}" if isinstance(source, str) else "its image"
        try:
            content = source if isinstance(source, bytes) else path_inside(self.image_root, source)
            picture = read_image(content)
            if self.image_size is None:
                return Image(np.array(picture))
            return Image(fit(picture, self.image_size, self.image_fit))
        except ImageError as error:
            raise BrokenRowError(f"{name} {error}") from error

    def _images(self, sources: Sequence[str | bytes]) -> list[Image]:
        """The images of one row.

        Raises:
            BrokenRowError: one cannot be read, or all of them hold more than `ROW_PIXELS`.
        """
        images, pixel_count = [], 0
        for source in sources:
            images.append(self._image(source))
            pixel_count += images[-1].pixels.shape[0] * images[-1].pixels.shape[1]
            if pixel_count > ROW_PIXELS:
                raise BrokenRowError(f"shows over {ROW_PIXELS} pixels; set image_size")
        return images
