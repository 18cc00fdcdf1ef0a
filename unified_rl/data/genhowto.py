"""GenHowTo: an object before it is changed, while it is, and after, with a text to each change.

Tables are CSV with a head. A row names a video (VID_ID), the seconds of three of its frames
(before: FRAME_S1, while: FRAME_AC, after: FRAME_S2) and the text of one of the latter two
(FRAME_AC_PROMPT or FRAME_S2_PROMPT). Other columns are not read.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Image, Sample, Task
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.jsonl import LINE_BYTES, existing_file, numbered_lines
from unified_rl.data.keyframes import keyframe_images
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.telling import Instruction, sentence_of, telling
from unified_rl.data.video import check_extra

KEY_COLUMNS = ("VID_ID", "FRAME_S1", "FRAME_AC", "FRAME_S2")
ACTION, STATE = "FRAME_AC_PROMPT", "FRAME_S2_PROMPT"


@dataclass(frozen=True)
class _Triplet:
    """A row, or both rows of the same frames; times are seconds as they are written."""

    place: str
    video: str
    before: str
    during: str
    after: str
    action: str | None
    state: str | None


class GenHowTo(DatasetAdapter):
    """A change that is told and shown: an interleaved sample each.

    The prompt is an instruction and the picture before; the target tells and shows the action, then
    the new state, or the one of them that the table has texts for. Facts: "video", "sentences" and
    "times_s" of the three frames.

    Source: UnifiedGRPO 4.1 and appendix A, where these samples warm the policy up, made of action
    prompts and state prompts with their images.
    Departs: the paper shows no sample in text; the instruction is ours, and so is it that the first
    picture, which has no text, belongs to the prompt.

    Args:
        path: of a table.
        partner: of the table with the other texts; the rows of both whose frames are the same
            become one, those without a counterpart are left out. None reads one table.
        videos: folder of the videos, .mp4, .mkv or .webm, named by their ids.
        images: folder of frames in place of videos.
        frame_name: of a frame in `images`; {video} and {second} in it are as in the table.
        instruction: the prompt; {story} in it is all sentences, {first} the first one, {count}
            how many there are.
        read_target: false leaves the pictures behind the first one unread, for reinforcement
            learning needs no target.
        quarantine: file that lists broken rows; None is one beside `path`.
        image_size: side in pixels of the squares that images are made; None leaves them as they
            are.
        image_fit: how they are made squares; see `images.fit`.
        max_broken: share of broken rows from 0 to 1 above which the data set is refused.

    Raises:
        DataError: no such file or folder, a table without the columns, or too many broken rows.
        ConfigError: not one of `videos` and `images`, a setting outside of its range, or PyAV is
            not installed where there are videos.
    """

    def __init__(
        self,
        path: str,
        partner: str | None = None,
        videos: str | None = None,
        images: str | None = None,
        frame_name: str = "{video}/{second}.jpg",
        instruction: str = "This is how it begins. Tell and show what is done next. {story}",
        read_target: bool = True,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        if (videos is None) == (images is None):
            raise ConfigError(f"videos={videos} and images={images}: give one of the two folders")
        if videos is not None:
            check_extra()
        folder = videos or images
        if not Path(folder).is_dir():
            raise DataError(f"{'images' if videos is None else 'videos'}={folder} is not a folder")
        for field in ("{video}", "{second}"):
            if field not in frame_name:
                raise ConfigError(f"frame_name={frame_name} has no {field}")
        super().__init__(path, folder, quarantine, image_size, image_fit, max_broken)
        self._from_videos, self._frame_name = videos is not None, frame_name
        self._read_target = read_target
        self._instruction = Instruction(instruction)
        rows = self._rows_of(self.path)
        if partner is not None:
            rows = _joined(rows, self._rows_of(existing_file(Path(partner))))
            if not any(row.action and row.state for row in rows.values()):
                raise DataError(
                    f"{path} and {partner} share no frames with texts of both kinds; drop partner "
                    f"or give the table with the other of {ACTION} and {STATE}"
                )
        self._triplets = list(rows.values())
        self._check_rows()

    def __len__(self) -> int:
        """Number of different triplets."""
        return len(self._triplets)

    def place(self, index: int) -> str:
        """The line of a triplet."""
        return self._triplets[index].place

    def load(self, index: int) -> Sample:
        """The sample of a triplet.

        Raises:
            BrokenRowError: a damaged text, or a frame that cannot be read.
        """
        row = self._triplets[index]
        steps = []
        for text, name, second in ((row.action, ACTION, row.during), (row.state, STATE, row.after)):
            if text is not None:
                steps.append((sentence_of(text, name), second))
        sentences = [sentence for sentence, _ in steps]
        seconds = [row.before]
        if self._read_target:
            seconds += [second for _, second in steps]
        first, *images = self._pictures(row.video, seconds)
        return Sample(
            id=f"genhowto/{row.video}/{row.before}-{row.during}-{row.after}",
            task=Task.INTERLEAVED,
            prompt=(self._instruction.text(sentences), first),
            target=telling(zip(sentences, images, strict=True)) if images else (),
            facts={
                "video": row.video,
                "sentences": sentences,
                "times_s": [float(row.before), float(row.during), float(row.after)],
            },
        )

    def _pictures(self, video: str, seconds: list[str]) -> list[Image]:
        if self._from_videos:
            times_s = [float(second) for second in seconds]
            return keyframe_images(self.image_root, video, times_s, self.image_size, self.image_fit)
        names = (
            self._frame_name.replace("{video}", video).replace("{second}", second)
            for second in seconds
        )
        return [self._image(name) for name in names]

    def _rows_of(self, table: Path) -> dict[tuple[str, ...], _Triplet]:
        """The rows of a table by their frames, the first of several with the same ones."""
        rows: dict[tuple[str, ...], _Triplet] = {}
        for number, row in self._parsed(table):
            try:
                key = _key(row)
            except BrokenRowError as error:
                self._lost(f"{table.name} line {number}", str(error))
                continue
            place = f"{table.name} line {number}"
            rows.setdefault(key, _Triplet(place, *key, row.get(ACTION), row.get(STATE)))
        return rows

    def _parsed(self, table: Path) -> Iterator[tuple[int, dict[str, str]]]:
        """The number of each line behind the head, and its cells by their columns."""
        head: list[str] | None = None
        with table.open("rb") as file:
            for number, _, line in numbered_lines(file):
                try:
                    cells = _cells(line)
                    if head is None:
                        head = cells
                        _check_head(table, head)
                        continue
                    if len(cells) != len(head):
                        raise BrokenRowError(f"has {len(cells)} cells for {len(head)} columns")
                except BrokenRowError as error:
                    self._lost(f"{table.name} line {number}", str(error))
                    continue
                yield number, dict(zip(head, cells, strict=True))
        if head is None:
            raise DataError(f"{table} holds no rows")


def _check_head(table: Path, head: list[str]) -> None:
    missing = [name for name in KEY_COLUMNS if name not in head]
    if missing or not {ACTION, STATE} & set(head):
        wanted = ", ".join((*KEY_COLUMNS, f"{ACTION} or {STATE}"))
        raise DataError(f"{table} has the columns {', '.join(head)[:300]}; it needs {wanted}")


def _cells(line: bytes) -> list[str]:
    """The cells of one line."""
    if len(line) > LINE_BYTES:
        raise BrokenRowError(f"is longer than {LINE_BYTES} bytes")
    try:
        return next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], strict=True))
    except (UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise BrokenRowError(f"is not CSV in UTF-8: {error}") from error


def _key(row: dict[str, str]) -> tuple[str, ...]:
    for name in KEY_COLUMNS[1:]:
        # "1e9" and "nan" are floats as well
        if not row[name].replace(".", "", 1).isdecimal() or len(row[name]) > 12:
            raise BrokenRowError(f"{name} {row[name][:40]!r} is no time in seconds")
    return tuple(row[name] for name in KEY_COLUMNS)


def _joined(
    rows: dict[tuple[str, ...], _Triplet], others: dict[tuple[str, ...], _Triplet]
) -> dict[tuple[str, ...], _Triplet]:
    both = {}
    for key, row in rows.items():
        if key in others:
            other = others[key]
            both[key] = replace(
                row, action=row.action or other.action, state=row.state or other.state
            )
    return both
