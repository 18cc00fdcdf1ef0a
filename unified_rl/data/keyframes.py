"""Which moments of a stretch of video stand for it, and their pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Image
from unified_rl.data.images import ImageError, fit
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.video import VideoError, find_video, read_frames


@dataclass(frozen=True)
class KeyframeRule:
    """A longer stretch has more keyframes, each in the middle of one of its equal parts.

    Source: UnifiedGRPO, appendix A (ActivityNet): their number adapts to the clip's duration.
    Departs: the paper prints no rule and no numbers; all of these are ours.

    Attributes:
        seconds_per_frame: one keyframe for each stretch of so many seconds that is begun.
        least: keyframes of the shortest stretch, at least 1.
        most: keyframes of the longest one.

    Raises:
        ConfigError: a setting outside of its range.
    """

    seconds_per_frame: float = 20.0
    least: int = 1
    most: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.seconds_per_frame < math.inf:
            raise ConfigError(f"seconds_per_frame={self.seconds_per_frame} must be more than 0")
        if not 1 <= self.least <= self.most:
            raise ConfigError(f"least={self.least} and most={self.most} must be 1 <= least <= most")

    def times(self, start_s: float, end_s: float) -> tuple[float, ...]:
        """Seconds at which the keyframes of the stretch from `start_s` to `end_s` lie."""
        length = end_s - start_s
        # a length that would be beyond any integer is cut by `most` first
        count = math.ceil(min(length / self.seconds_per_frame, self.most))
        count = max(count, self.least)
        return tuple(start_s + length * (part + 0.5) / count for part in range(count))


def keyframe_images(
    videos: Path,
    video_id: str,
    times_s: Sequence[float],
    image_size: int | None,
    image_fit: Literal["crop", "pad", "stretch"],
) -> list[Image]:
    """The pictures at some times of a video, made square as adapters have it.

    Raises:
        BrokenRowError: the video is missing or cannot be read.
    """
    try:
        frames = read_frames(find_video(videos, video_id), times_s)
        if image_size is None:
            return [Image(frame) for frame in frames]
        pictures = map(PillowImage.fromarray, frames)
        return [Image(fit(picture, image_size, image_fit)) for picture in pictures]
    except (VideoError, ImageError) as error:
        raise BrokenRowError(f"video {video_id[:80]!r} {error}") from error
