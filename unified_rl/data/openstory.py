"""OpenStory++: keyframes of videos with captions; those that follow one another are a story.

Parquet rows with a key "<video, 11 characters>_keyframe_<h>-<m>-<s>-<ms>", which may have more
behind it, and a caption. The pictures are frames that the data set's own script takes out of the
videos, or a column.
"""

import re
from array import array
from typing import Any, Literal

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Image, Sample, Task
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.fields import field_of
from unified_rl.data.parquet_rows import ParquetRows
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.telling import Instruction, sentence_of, target_folder, telling

ROWS_PER_FRAME = 8
"""Rows that may tell of one frame, of which the first is read."""
TRIED_KEYS = 1000
"""Rows of which one must have a key."""

_KEY = re.compile(r"([\w-]{11})_keyframe_(\d{1,9}(?:-\d{1,9}){3})(?!\d)", re.ASCII)


class OpenStory(DatasetAdapter):
    """Keyframes of one video that follow one another: an interleaved sample each.

    A longer run is cut into stories of `most_frames`; what is left over of a run and has fewer than
    `least_frames` is left out. Where several rows tell of one frame, the first does. Facts:
    "video", "sentences" and "frames", the keys of the frames.

    Source: UnifiedGRPO 4.1 and appendix A, where these samples warm the policy up.
    Departs: the paper says neither how long a story is nor what its prompt is; both are ours.

    Args:
        path: of a parquet file, or of the folder `story` with its shards.
        frames: folder of the pictures; None reads them of the column `image`.
        image: column of the pictures, as content of files; None reads them of `frames`.
        key: column of the keys.
        caption: column of the captions; behind a dot the field of it, be it a struct or JSON.
        frame_name: of a picture in `frames`; {video} and {frame} in it are parts of the key.
        instruction: the prompt; {story} in it is all captions, {first} the first one, {count}
            how many there are.
        most_frames: of a story.
        least_frames: of a story.
        read_target: false leaves the pictures unread, for reinforcement learning needs no target.
        quarantine: file that lists broken rows; None is one beside `path`.
        image_size: side in pixels of the squares that images are made; None leaves them as they
            are.
        image_fit: how they are made squares; see `images.fit`.
        max_broken: share of broken rows from 0 to 1 above which the data set is refused.

    Raises:
        DataError: no such file or folder, no stories, or too many broken ones.
        ConfigError: a column that is not there, or a setting outside of its range.
    """

    def __init__(
        self,
        path: str,
        frames: str | None = None,
        image: str | None = None,
        key: str = "__key__",
        caption: str = "json.caption",
        frame_name: str = "{video}/{frame}.jpg",
        instruction: str = "Tell a story and show each part of it. {story}",
        most_frames: int = 6,
        least_frames: int = 2,
        read_target: bool = True,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        if read_target and (frames is None) == (image is None):
            raise ConfigError(f"frames={frames} and image={image}: give a folder or a column")
        if not 1 <= least_frames <= most_frames:
            raise ConfigError(
                f"least_frames={least_frames} and most_frames={most_frames} must be "
                "1 <= least_frames <= most_frames"
            )
        folder = target_folder("frames", frames, read_target and image is None)
        if "{frame}" not in frame_name:
            raise ConfigError(f"frame_name={frame_name} has no {{frame}}")
        super().__init__(path, folder, quarantine, image_size, image_fit, max_broken)
        self._image_column = image if read_target else None
        self._read_target, self._frame_name = read_target, frame_name
        self._key, self._caption = key, caption
        self._most, self._least = most_frames, least_frames
        self._instruction = Instruction(instruction)
        columns = [key, caption.partition(".")[0], *filter(None, [self._image_column])]
        self._rows_of_file = ParquetRows(self.path, columns)
        self._check_columns()
        self._firsts, self._counts = array("Q"), array("Q")
        self._find_stories()
        for place, reason in self._rows_of_file.lost:
            self._lost(place, reason)
        if not self._firsts:
            raise DataError(f"{path} holds no story of {least_frames} frames or more")
        self._check_rows()

    def __len__(self) -> int:
        """Number of stories."""
        return len(self._firsts)

    def place(self, index: int) -> str:
        """The rows of a story, counted from 1 over all files."""
        first = self._firsts[index] + 1
        return f"rows {first} to {first + self._counts[index] - 1}"

    def load(self, index: int) -> Sample:
        """A story.

        Raises:
            BrokenRowError: a damaged caption or picture, or one that is missing.
        """
        told: dict[str, str] = {}
        images: list[Image] = []
        video = ""
        for row in self._rows_of_file.rows(self._firsts[index], self._counts[index]):
            key = _KEY.match(str(row[self._key]))
            if key is None:
                raise BrokenRowError("has changed since the data set was opened")
            if key[0] not in told:
                video = key[1]
                told[key[0]] = sentence_of(field_of(row, self._caption), self._caption)
                if self._read_target:
                    images.append(self._picture(row, key))
        sentences = list(told.values())
        return Sample(
            id=f"openstory/{next(iter(told))}",
            task=Task.INTERLEAVED,
            prompt=(self._instruction.text(sentences),),
            target=telling(zip(sentences, images, strict=True)) if images else (),
            facts={"video": video, "sentences": sentences, "frames": list(told)},
        )

    def _picture(self, row: dict[str, Any], key: re.Match[str]) -> Image:
        if self._image_column is None:
            name = self._frame_name.replace("{video}", key[1]).replace("{frame}", key[0])
            return self._image(name)
        cell = row[self._image_column]
        if isinstance(cell, dict):  # as the `datasets` library stores images
            cell = cell.get("bytes")
        if not isinstance(cell, bytes):
            raise BrokenRowError(f"{self._image_column!r} holds no content of an image")
        return self._image(cell)

    def _find_stories(self) -> None:
        video, frames, first, behind = "", 0, 0, 0
        last, good, bad = "", 0, 0
        for row, value in self._rows_of_file.column(self._key):
            key = _KEY.match(value) if isinstance(value, str) else None
            full = frames == self._most and (key is None or key[0] != last)
            long = behind - first >= self._most * ROWS_PER_FRAME
            if key is None or key[1] != video or row != behind or full or long:
                self._add_story(first, behind, frames)
                video, frames, first, last = "" if key is None else key[1], 0, row, ""
            behind = row + 1
            if key is None:
                bad += 1
                self._lost(f"row {row + 1}", f"{self._key!r} is no key of a keyframe")
                if bad >= TRIED_KEYS and not good:
                    raise ConfigError(
                        f"{self.path}: key={self._key} holds no keys like <video>_keyframe_0-0-1-2"
                    )
                continue
            good += 1
            frames += key[0] != last
            last = key[0]
        self._add_story(first, behind, frames)

    def _add_story(self, first: int, behind: int, frames: int) -> None:
        if frames >= self._least:
            self._firsts.append(first)
            self._counts.append(behind - first)

    def _check_columns(self) -> None:
        """Raises ConfigError for a column, or a field of a struct, that is not there."""
        import pyarrow

        schema = self._rows_of_file.schema
        column, *fields = self._caption.split(".")
        for setting, name in (
            ("key", self._key),
            ("caption", column),
            ("image", self._image_column),
        ):
            if name is not None and name not in schema.names:
                known = ", ".join(schema.names[:30])
                raise ConfigError(
                    f"{self.path} has no column {name!r}; it has {known}; set {setting}"
                )
        kind = schema.field(column).type
        if pyarrow.types.is_struct(kind):
            known = [field.name for field in kind]
            if not fields or fields[0] not in known:
                raise ConfigError(
                    f"{self.path}: caption={self._caption} names no field of {column!r}, which "
                    f"has {', '.join(known[:30])}"
                )
