"""ActivityNet Captions: what a video's captions become."""

import importlib.util
import json

import numpy as np
import pytest

from tests.data.paper_cases import listed_reasons
from tests.data.videos import number_of, write_video
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Completion, Image, Task, Text
from unified_rl.data.activitynet import ActivityNetCaptions
from unified_rl.data.keyframes import KeyframeRule
from unified_rl.rewards.format import is_well_formed

if importlib.util.find_spec("av") is None:
    pytest.skip("the extra 'video' is not installed", allow_module_level=True)

RULE = KeyframeRule(seconds_per_frame=1.5)
CAPTIONS = {
    "duration": 4.0,
    "timestamps": [[2.0, 4.2], [0.0, 1.0]],
    "sentences": ["  He mixes. ", "A man\nwalks in."],
}


@pytest.fixture
def opened(tmp_path):
    """Opens captions, with a video of four seconds for "v_good"."""
    write_video(tmp_path / "videos/v_good.mp4")

    def opened(captions, keyframes=RULE, **settings):
        captions = captions if isinstance(captions, bytes) else json.dumps(captions).encode()
        (tmp_path / "train.json").write_bytes(captions)
        return ActivityNetCaptions(
            str(tmp_path / "train.json"), str(tmp_path / "videos"), keyframes, **settings
        )

    return opened


def test_a_video_becomes_a_story(opened):
    sample = opened({"v_good": CAPTIONS}).load(0)
    assert (sample.id, sample.task) == ("activitynet/v_good", Task.INTERLEAVED)
    assert sample.prompt == (
        Text("Tell what happens step by step and show each step. A man walks in. He mixes."),
    )
    # 0..1 s is one stretch of 1.5 s: 0.5 s. 2..4 s, cut at the duration, is two: 2.5 s and 3.5 s
    assert [s.text for s in sample.target if isinstance(s, Text)] == [
        "<think> A man walks in. <vis>",
        "<think> He mixes. (1 of 2) <vis>",
        "<think> He mixes. (2 of 2) <vis>",
    ]
    images = [s.pixels for s in sample.target if isinstance(s, Image)]
    assert [number_of(image) for image in images] == [5, 25, 35]
    assert is_well_formed(Completion(sample.target, finished=True))
    assert sample.facts == {
        "video": "v_good",
        "sentences": ["A man walks in.", "He mixes."],
        "times_s": [0.5, 2.5, 3.5],
    }


def test_events_behind_the_most_images_are_left_out_of_the_prompt_too(opened):
    rows = opened(
        {"v_good": CAPTIONS}, KeyframeRule(1.5, most=2), most_images=2, instruction="{story}"
    )
    sample = rows.load(0)
    assert sample.prompt == (Text("A man walks in."),)
    assert sample.facts["times_s"] == [0.5]


def test_frames_are_made_square(opened):
    sample = opened({"v_good": CAPTIONS}, image_size=8, image_fit="stretch").load(0)
    shapes = {s.pixels.shape for s in sample.target if isinstance(s, Image)}
    assert shapes == {(8, 8, 3)}


BROKEN = {
    "not_an_object": ([], "is not an object"),
    "no_sentences": ({**CAPTIONS, "sentences": []}, "no timestamps or no sentences"),
    "too_few": ({**CAPTIONS, "sentences": ["one"]}, "2 timestamps for 1 sentences"),
    "no_duration": ({**CAPTIONS, "duration": None}, "has the duration None"),
    "nan": ({**CAPTIONS, "duration": float("nan")}, "has the duration nan"),
    "huge": ({**CAPTIONS, "timestamps": [[0, 10**400], [0, 1]]}, "has the timestamp"),
    "true": ({**CAPTIONS, "timestamps": [[0, True], [0, 1]]}, "has the timestamp"),
    "three": ({**CAPTIONS, "timestamps": [[0, 1, 2], [0, 1]]}, "has the timestamp"),
    "backwards": ({**CAPTIONS, "timestamps": [[3, 1], [0, 1]]}, "event from 3 to 1 s"),
    "behind_the_end": ({**CAPTIONS, "timestamps": [[5, 6], [0, 1]]}, "event from 5 to 4 s"),
    "tag": ({**CAPTIONS, "sentences": ["a <vis> b", "c"]}, "holds <vis>"),
    "not_a_text": ({**CAPTIONS, "sentences": [1, "c"]}, "is a int"),
}


@pytest.mark.parametrize(("captions", "reason"), BROKEN.values(), ids=BROKEN)
def test_damaged_captions_are_set_aside(opened, captions, reason):
    rows = opened({"v_good": CAPTIONS, "v_bad": captions})
    assert [sample.id for _, sample in rows.in_order()] == ["activitynet/v_good"]
    assert rows.broken_count == 1 and reason in listed_reasons(rows.path)


def test_a_video_that_ends_early_is_set_aside(opened, tmp_path):
    write_video(tmp_path / "videos/v_short.mp4", count=10)
    rows = opened({"v_good": CAPTIONS, "v_short": CAPTIONS})
    assert len(list(rows.in_order())) == 1
    assert "'v_short' ends at 1.000 s" in listed_reasons(rows.path)


def test_draws_pass_over_videos_that_are_missing(opened):
    rows = opened({"v_good": CAPTIONS, **{f"v_{n}": CAPTIONS for n in range(9)}}, max_broken=0.95)
    ids = {rows.draw(np.random.default_rng(seed)).id for seed in range(5)}
    assert ids == {"activitynet/v_good"}


def test_captions_behind_a_cut_are_lost(opened):
    content = json.dumps({"v_good": CAPTIONS, "v_more": CAPTIONS}).encode()
    rows = opened(content[:-30])
    assert [sample.facts["video"] for _, sample in rows.in_order()] == ["v_good"]
    assert rows.faults[0].place == "the file" and "cut off" in rows.faults[0].reason


def test_a_video_that_is_there_twice_is_read_once(opened):
    good = json.dumps({"v_good": CAPTIONS})[:-1].encode()
    rows = opened(good + b", " + good[1:] + b"}")
    assert len(rows) == 1 and rows.faults[0].place == "v_good"


def test_files_that_are_refused(opened, tmp_path):
    with pytest.raises(DataError, match="the file holds a value that is cut off"):
        opened(b'{"v_good": {"dura')
    with pytest.raises(DataError, match="the file is no JSON object"):
        opened([CAPTIONS])
    with pytest.raises(DataError, match="all of them"):
        opened({"v_other": CAPTIONS})
    with pytest.raises(DataError, match=r"videos=.* is not a folder"):
        ActivityNetCaptions(str(tmp_path / "train.json"), "nowhere", KeyframeRule())
    with pytest.raises(ConfigError, match="most_images=2 must be at least keyframes.most=3"):
        opened({"v_good": CAPTIONS}, most_images=2)
