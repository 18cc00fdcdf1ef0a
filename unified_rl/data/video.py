"""Frames of video files at given times, read within bounds.

Read: .mp4, .mkv and .webm files of the codecs `CODECS`, by PyAV (the extra `video`). A file is read
as what its name says and as nothing else: FFmpeg would otherwise look into it, and a playlist that
calls itself a video would open whatever files and addresses it lists.
"""

import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unified_rl.core.errors import ConfigError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VIDEO_BYTES = 4 * 2**30
"""A larger file is refused unopened."""
VIDEO_PIXELS = 4096 * 4096
"""A larger frame is refused, whatever the header says of its size."""
DECODED_FRAMES = 3000
"""Frames decoded in search of one; a GOP, from one key frame to the next, is some 250."""
READ_S = 60.0
"""Seconds that the frames of one video may take."""
END_SLACK_S = 1.0
"""Seconds behind the last frame in which it still serves: containers round their lengths up."""
FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".webm": "matroska"}
CODECS = ("av1", "h264", "hevc", "mpeg4", "vp8", "vp9")

_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


class VideoError(ValueError):
    """What is wrong with a video: a clause to put behind its name."""


def check_extra() -> None:
    """Raises ConfigError where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ConfigError("videos need PyAV: pip install 'unified-rl[video]'") from error


def find_video(folder: Path, video_id: str) -> Path:
    """The file of a video, named by its id with or without ActivityNet's prefix "v_".

    Raises:
        VideoError: an id that is no name of a file, no such file, or one that leads elsewhere.
    """
    if not _ID.fullmatch(video_id):
        raise VideoError("is no id of a video: letters, digits, - and _")
    stems = dict.fromkeys((video_id, video_id.removeprefix("v_"), f"v_{video_id}"))
    for name in (stem + suffix for stem in stems if stem for suffix in FORMATS):
        path = folder / name
        if path.is_file():
            if not path.resolve().is_relative_to(folder.resolve()):
                raise VideoError(f"is a link that leads out of {folder}")
            return path
    raise VideoError(f"is missing: no {video_id} with {', '.join(FORMATS)} in {folder}")


def read_frames(path: Path, times_s: Sequence[float]) -> list[np.ndarray]:
    """The frames that are shown at some times, as they are stored.

    At a time stands the last frame that begins at it or before. The file is sought to the key frame
    before and decoded from there. Turns and pixel proportions that a container gives beside its
    frames are not applied.

    Args:
        path: of the file; its suffix is one of `FORMATS`.
        times_s: seconds from the first frame, in any order.

    Returns:
        RGB pixels, uint8 of shape (height, width, 3), one a time.

    Raises:
        VideoError: a file that is too large, damaged, without video, of another format or codec,
            ends before one of the times, or takes too long.
        ConfigError: PyAV is not installed.
    """
    check_extra()
    import av

    if path.suffix.lower() not in FORMATS:
        raise VideoError(f"is none of {', '.join(FORMATS)}")
    try:
        size = path.stat().st_size
        if size > VIDEO_BYTES:
            raise VideoError(f"has {size} bytes, over {VIDEO_BYTES}")
        with av.open(
            str(path.absolute()),
            format=FORMATS[path.suffix.lower()],
            # the probing decoders take it as well as the one that reads
            options={"protocol_whitelist": "file", "max_pixels": str(VIDEO_PIXELS)},
            metadata_errors="replace",
            timeout=READ_S,
        ) as container:
            video = _Video(container)
            return [video.at(seconds) for seconds in times_s]
    except VideoError:
        raise
    except Exception as error:  # decoders raise whatever they like
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(
            f"is truncated, damaged or over {VIDEO_PIXELS} pixels a frame: {reason[:200]}"
        ) from error


class _Video:
    def __init__(self, container: "InputContainer") -> None:
        self._container = container
        self._deadline = time.monotonic() + READ_S
        if not container.streams.video:
            raise VideoError("holds no video")
        self._stream: VideoStream = container.streams.video[0]
        context = self._stream.codec_context
        codec = None if context is None else context.codec.canonical_name
        if codec not in CODECS:
            raise VideoError(f"is of codec {codec}, which is none of {', '.join(CODECS)}")
        context.options = {"max_pixels": str(VIDEO_PIXELS)}
        context.thread_count = 1  # threads hold as many frames again
        if not self._stream.time_base:
            raise VideoError("gives its frames no times")
        self._tick_s = float(self._stream.time_base)
        self._first = self._stream.start_time or 0

    def at(self, seconds: float) -> np.ndarray:
        if not 0 <= seconds < math.inf:
            raise VideoError(f"has no frame at {seconds} s")
        ticks = self._first + math.floor(seconds / self._tick_s + 1e-6)
        frame = self._search(ticks, ticks)
        if frame is None:  # its index led behind the frame, or nowhere
            frame = self._search(ticks, self._first)
        if frame is None:
            raise VideoError(f"has no frame at {seconds:.3f} s")
        if frame.is_corrupt:
            raise VideoError(f"is damaged at {seconds:.3f} s")
        return frame.to_ndarray(format="rgb24")

    def _search(self, ticks: int, start: int) -> "VideoFrame | None":
        """The frame that is shown at a time; None where none is found from `start` on."""
        self._container.seek(start, stream=self._stream, backward=True)
        slack, last = END_SLACK_S / self._tick_s, None
        for frame in self._frames():
            if frame.pts > ticks:
                opens = start == self._first and frame.pts - ticks <= slack
                return frame if last is None and opens else last
            last = frame
        if last is not None and ticks - last.pts - (last.duration or 0) > slack:
            end = (last.pts + (last.duration or 0) - self._first) * self._tick_s
            raise VideoError(f"ends at {end:.3f} s, before a frame that is wanted")
        return last

    def _frames(self) -> Iterator["VideoFrame"]:
        for count, packet in enumerate(self._container.demux(self._stream), start=1):
            if count > DECODED_FRAMES:
                raise VideoError(f"shows no key frame in {DECODED_FRAMES} frames")
            if time.monotonic() > self._deadline:
                raise VideoError(f"took longer than {READ_S:g} s")
            for frame in packet.decode():
                if frame.pts is None:
                    raise VideoError("gives its frames no times")
                yield frame
