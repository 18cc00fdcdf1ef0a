"""GenHowTo: tables of triplets, alone and joined."""

import pytest

from tests.data.adapter_cases import picture
from tests.data.paper_cases import listed_reasons
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Image, Task, Text
from unified_rl.data.genhowto import GenHowTo

STATES = "VID_ID,DS_CAT,DS_CAT_NAME,FRAME_S1,FRAME_S2,FRAME_AC,SCORE,FRAME_S2_PROMPT,FILENAME"
ACTIONS = STATES.replace("S2_PROMPT", "AC_PROMPT")
GOOD = 'video_-1234,0,apple,3,40,17,0.9,"an apple, cut",states_0/1.jpg'


@pytest.fixture
def tables(tmp_path):
    """Opens lines of one table or of two; there are frames of "video_-1234"."""
    for second in (3, 17, 40):
        picture(tmp_path / f"frames/video_-1234/{second}.jpg", second)

    def tables(states, actions=None, **settings):
        (tmp_path / "states.txt").write_bytes("\n".join(states).encode("latin-1") + b"\n")
        if actions is not None:
            (tmp_path / "actions.txt").write_text("\n".join(actions) + "\n")
            settings["partner"] = str(tmp_path / "actions.txt")
        settings = {"images": str(tmp_path / "frames"), **settings}
        return GenHowTo(str(tmp_path / "states.txt"), **settings)

    return tables


def shown(sample):
    """Texts, and images by the sums of their pixels."""
    return [
        segment.text if isinstance(segment, Text) else int(segment.pixels.sum())
        for segment in (*sample.prompt, *sample.target)
    ]


def frame(tables_rows, second):
    return int(tables_rows._image(f"video_-1234/{second}.jpg").pixels.sum())


def test_two_tables_make_triplets(tables):
    rows = tables(
        [STATES, GOOD, GOOD.replace("video", "other")],
        [ACTIONS, GOOD.replace("an apple, cut", "a hand cuts"), GOOD.replace(",17,", ",18,")],
        instruction="Go on. {story}",
    )
    assert len(rows) == 1 and rows.place(0) == "states.txt line 2"
    sample = rows.load(0)
    assert (sample.id, sample.task) == ("genhowto/video_-1234/3-17-40", Task.INTERLEAVED)
    assert shown(sample) == [
        "Go on. a hand cuts an apple, cut",
        frame(rows, 3),
        "<think> a hand cuts <vis>",
        frame(rows, 17),
        "<think> an apple, cut <vis>",
        frame(rows, 40),
    ]
    assert sample.facts["times_s"] == [3.0, 17.0, 40.0]


@pytest.mark.parametrize(("head", "second"), [(STATES, 40), (ACTIONS, 17)])
def test_one_table_makes_pairs(tables, head, second):
    rows = tables([head, GOOD])
    sample = rows.load(0)
    assert shown(sample)[2:] == ["<think> an apple, cut <vis>", frame(rows, second)]


def test_rows_of_the_same_frames_are_read_once(tables):
    rows = tables([STATES, GOOD, GOOD.replace("0.9", "0.8").replace("cut", "sliced")])
    assert len(rows) == 1 and "cut" in rows.load(0).facts["sentences"][0]


OTHER = GOOD.replace(",3,40,", ",17,40,")  # a triplet of its own
BROKEN = {
    "cells": (GOOD.replace(",0.9", ""), "8 cells for 9 columns"),
    "time": (GOOD.replace(",40,", ",forty,"), "FRAME_S2 'forty' is no time"),
    "nan": (GOOD.replace(",40,", ",nan,"), "is no time"),
    "negative": (GOOD.replace(",40,", ",-1,"), "is no time"),
    "latin": (GOOD.replace("cut", "cut\xe9"), "not CSV in UTF-8"),
    "quote": (GOOD.replace('cut"', "cut"), "not CSV in UTF-8"),
    "empty": (OTHER.replace("an apple, cut", ""), "is empty"),
    "tag": (OTHER.replace("cut", "<think>"), "holds <think>"),
}


@pytest.mark.parametrize(("line", "reason"), BROKEN.values(), ids=BROKEN)
def test_damaged_lines_are_set_aside(tables, line, reason):
    rows = tables([STATES, GOOD, line])
    assert len(list(rows.in_order())) == 1
    assert rows.broken_count == 1
    assert reason in listed_reasons(rows.path)


def test_frames_of_videos(tables, tmp_path):
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    from tests.data.videos import number_of, write_video

    write_video(tmp_path / "videos/video_-1234.webm", codec="libvpx-vp9")
    line = GOOD.replace(",3,40,17,", ",0,3,1.5,")
    rows = tables([STATES, line], images=None, videos=str(tmp_path / "videos"))
    sample = rows.load(0)
    segments = (*sample.prompt, *sample.target)
    images = [segment.pixels for segment in segments if isinstance(segment, Image)]
    assert [number_of(image) for image in images] == [0, 30]


def test_what_is_refused(tables, tmp_path):
    with pytest.raises(DataError, match="has the columns a, b; it needs VID_ID"):
        tables(["a,b", "1,2"])
    with pytest.raises(DataError, match="holds no rows"):
        tables([""])
    with pytest.raises(DataError, match="share no frames"):
        tables([STATES, GOOD], [STATES, GOOD])
    with pytest.raises(DataError, match="share no frames"):
        tables([STATES, GOOD], [ACTIONS, GOOD.replace(",3,", ",4,")])
    with pytest.raises(ConfigError, match="give one of the two folders"):
        tables([STATES, GOOD], images=None)
    with pytest.raises(ConfigError, match=r"has no \{second\}"):
        tables([STATES, GOOD], frame_name="{video}.jpg")
    with pytest.raises(DataError, match="images=nowhere is not a folder"):
        tables([STATES, GOOD], images="nowhere")
