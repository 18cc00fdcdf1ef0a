"""ActivityNet Captions: what happens in a video, event by event, with keyframes of each.

The file is JSON: `{video id: {"duration": s, "timestamps": [[s, s], ..], "sentences": [..]}, ..}`.
The videos lie in a folder, named by their ids, with or without the prefix "v_".
"""

from typing import Any, Literal

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Sample, Task
from unified_rl.data.adapter import DatasetAdapter
from unified_rl.data.json_elements import JsonDamageError, json_members
from unified_rl.data.keyframes import KeyframeRule, keyframe_images
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.telling import Instruction, sentence_of, target_folder, telling
from unified_rl.data.video import check_extra

LONGEST_S = 10**6
"""Seconds; a time beyond it is none."""


class ActivityNetCaptions(DatasetAdapter):
    """A video as a story that is told and shown: an interleaved sample each.

    The events follow one another by their beginnings. An event with several keyframes is told over
    again with each of them, as "sentence (2 of 3)": the grammar has a thought before every image.
    Facts: "video", "sentences" of the events and "times_s" of the keyframes.

    Source: UnifiedGRPO 4.1 and appendix A, where these samples warm the policy up.
    Departs: the paper shows no sample in text; the instruction, its order and the bound on images
    are ours, and so is the number of keyframes, see `keyframes.KeyframeRule`.

    Args:
        path: of the captions: train.json, val_1.json or val_2.json.
        videos: folder of the videos, .mp4, .mkv or .webm; None where no target is read.
        keyframes: which moments of an event are shown.
        instruction: the prompt; {story} in it is all sentences, {first} the first one, {count}
            how many there are.
        most_images: images of a sample; the events behind them are left out.
        read_target: false leaves the videos unread, for reinforcement learning needs no target.
        quarantine: file that lists broken rows; None is one beside `path`.
        image_size: side in pixels of the squares that frames are made; None leaves them as they
            are.
        image_fit: how they are made squares; see `images.fit`.
        max_broken: share of broken rows from 0 to 1 above which the data set is refused.

    Raises:
        DataError: no such file or folder, a file of another format, or too many broken rows.
        ConfigError: a setting outside of its range, or PyAV is not installed.
    """

    def __init__(
        self,
        path: str,
        videos: str | None,
        keyframes: KeyframeRule,
        instruction: str = "Tell what happens step by step and show each step. {story}",
        most_images: int = 6,
        read_target: bool = True,
        quarantine: str | None = None,
        image_size: int | None = None,
        image_fit: Literal["crop", "pad", "stretch"] = "crop",
        max_broken: float = 0.5,
    ) -> None:
        if most_images < keyframes.most:
            raise ConfigError(
                f"most_images={most_images} must be at least keyframes.most={keyframes.most}"
            )
        if read_target:
            check_extra()
        super().__init__(
            path,
            target_folder("videos", videos, read_target),
            quarantine,
            image_size,
            image_fit,
            max_broken,
        )
        self._rule, self._most_images = keyframes, most_images
        self._read_target = read_target
        self._instruction = Instruction(instruction)
        self._captions: dict[str, Any] = {}
        self._read_captions()
        self._ids = tuple(self._captions)
        self._check_rows()

    def __len__(self) -> int:
        """Number of videos in the file, whether they are there or not."""
        return len(self._ids)

    def place(self, index: int) -> str:
        """The id of a video."""
        return self._ids[index][:80]

    def load(self, index: int) -> Sample:
        """The story of a video.

        Raises:
            BrokenRowError: damaged captions, or a video that is missing or cannot be read.
        """
        video_id = self._ids[index]
        sentences, steps, times_s = [], [], []
        for start_s, end_s, sentence in _events(self._captions[video_id]):
            moments = self._rule.times(start_s, end_s)
            if len(times_s) + len(moments) > self._most_images:
                break
            sentences.append(sentence)
            times_s += moments
            steps += _counted(sentence, len(moments))
        target = ()
        if self._read_target:
            images = keyframe_images(
                self.image_root, video_id, times_s, self.image_size, self.image_fit
            )
            target = telling(zip(steps, images, strict=True))
        return Sample(
            id=f"activitynet/{video_id}",
            task=Task.INTERLEAVED,
            prompt=(self._instruction.text(sentences),),
            target=target,
            facts={"video": video_id, "sentences": sentences, "times_s": times_s},
        )

    def _read_captions(self) -> None:
        try:
            for video_id, captions in json_members(self.path):
                if video_id in self._captions:
                    self._lost(video_id[:80], "is there twice; the first one is read")
                self._captions.setdefault(video_id, captions)
        except JsonDamageError as error:
            self._lost("the file", str(error))


def _counted(sentence: str, count: int) -> list[str]:
    if count == 1:
        return [sentence]
    return [f"{sentence} ({number} of {count})" for number in range(1, count + 1)]


def _events(captions: Any) -> list[tuple[float, float, str]]:
    """Start and end in seconds and the sentence of each event, the earliest first."""
    if not isinstance(captions, dict):
        raise BrokenRowError("is not an object")
    stretches, sentences = captions.get("timestamps"), captions.get("sentences")
    if not isinstance(stretches, list) or not isinstance(sentences, list) or not sentences:
        raise BrokenRowError("has no timestamps or no sentences")
    if len(stretches) != len(sentences):
        raise BrokenRowError(f"has {len(stretches)} timestamps for {len(sentences)} sentences")
    duration_s = captions.get("duration")
    if not _is_time(duration_s):
        raise BrokenRowError(f"has the duration {str(duration_s)[:40]}")
    events = []
    for stretch, sentence in zip(stretches, sentences, strict=True):
        if not isinstance(stretch, list) or len(stretch) != 2 or not all(map(_is_time, stretch)):
            raise BrokenRowError(f"has the timestamp {str(stretch)[:40]}")
        start_s, end_s = float(stretch[0]), min(stretch[1], duration_s)
        if start_s >= end_s:
            raise BrokenRowError(
                f"has an event from {start_s:g} to {end_s:g} s of {duration_s:g} s"
            )
        events.append((start_s, float(end_s), sentence_of(sentence, "sentences")))
    return sorted(events, key=lambda event: event[:2])


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= LONGEST_S
