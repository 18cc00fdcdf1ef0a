"""Frames at given times, and files that are not what they say."""

import math
import sys

import numpy as np
import pytest

from tests.data.videos import number_of, write_video
from unified_rl.core.errors import ConfigError
from unified_rl.data import video
from unified_rl.data.video import VideoError, find_video, read_frames

av = pytest.importorskip("av", reason="the extra 'video' is not installed")


def refused(path, times=(0.0,)):
    with pytest.raises(VideoError) as caught:
        read_frames(path, times)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "mpeg4"), ("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")],
)
def test_the_last_frame_that_begins_at_a_time_or_before_is_shown(tmp_path, name, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {codec}")
    path = write_video(tmp_path / name, codec=codec)
    # ten frames a second, a key frame every twelve: 1.19 s is the last of the first twelve
    times = [3.99, 0.0, 1.19, 1.2, 1.25, 2.0, 0.3]
    frames = read_frames(path, times)
    assert [number_of(frame) for frame in frames] == [39, 0, 11, 12, 12, 20, 3]
    assert {(frame.shape, frame.dtype) for frame in frames} == {((48, 64, 3), np.dtype("uint8"))}


def test_every_frame_is_found_at_its_own_time(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    frames = read_frames(path, [number / 10 for number in range(40)])
    assert [number_of(frame) for frame in frames] == list(range(40))


def test_the_last_frame_serves_a_little_longer_than_it_is_shown(tmp_path):
    path = write_video(tmp_path / "a.mp4", count=20)  # ends at 2 s
    assert number_of(read_frames(path, [2.9])[0]) == 19
    assert "ends at 2.000 s" in refused(path, [3.2])


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 1e300])
def test_a_time_that_is_none(tmp_path, seconds):
    refused(write_video(tmp_path / "a.mp4", count=5), [seconds])


# -- files that are not what they say --------------------------------------------------------------


def test_a_truncated_video_loses_what_was_cut_off(tmp_path):
    path = write_video(tmp_path / "a.mp4", codec="mpeg4", early_index=True, gop=4)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    assert number_of(read_frames(path, [0.2])[0]) == 2
    refused(path, [3.9])


def test_a_video_cut_before_its_index(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "is truncated, damaged" in refused(path)


@pytest.mark.parametrize("content", [b"", b"no video", b"\x00" * 5000])
def test_a_file_of_something_else(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    refused(tmp_path / "a.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_playlist_that_calls_itself_a_video_opens_nothing(tmp_path, name):
    inner = write_video(tmp_path / "inner.mp4")
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{inner}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {inner.name}\n",
    ):
        (tmp_path / name).write_text(text)
        assert "is truncated, damaged" in refused(tmp_path / name)


def test_a_file_without_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert refused(path) == "holds no video"


def test_a_codec_that_is_not_read(tmp_path):
    path = write_video(tmp_path / "a.mkv", codec="mjpeg")
    assert "is of codec mjpeg" in refused(path)


def test_a_frame_that_is_too_large(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", size=(320, 240), count=3)
    monkeypatch.setattr(video, "VIDEO_PIXELS", 320 * 240 - 1)
    assert f"over {320 * 240 - 1} pixels a frame" in refused(path)


def test_a_header_that_says_less_than_the_frames_have(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", codec="libx264", size=(320, 240), count=3)
    content = path.read_bytes()
    # a sample entry of an MP4 gives width and height as two 16-bit numbers, 24 bytes behind "avc1"
    at = content.index(b"avc1", content.index(b"stsd")) + 4 + 24
    assert content[at : at + 4] == (320).to_bytes(2, "big") + (240).to_bytes(2, "big")
    path.write_bytes(content[:at] + b"\x00\x10\x00\x10" + content[at + 4 :])
    assert read_frames(path, [0.0])[0].shape == (240, 320, 3)
    monkeypatch.setattr(video, "VIDEO_PIXELS", 100 * 100)
    refused(path)


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", count=3)
    monkeypatch.setattr(video, "VIDEO_BYTES", 100)
    assert "bytes, over 100" in refused(path)


def test_a_search_that_does_not_end(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", gop=40)
    monkeypatch.setattr(video, "DECODED_FRAMES", 8)
    assert number_of(read_frames(path, [0.5])[0]) == 5
    assert "shows no key frame in 8 frames" in refused(path, [3.0])


def test_a_video_that_takes_too_long(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "READ_S", 1e-9)
    assert refused(path, [1.0])


def test_bytes_that_were_turned_over_are_refused_or_read_but_never_fatal(tmp_path):
    content = write_video(tmp_path / "a.mp4", codec="mpeg4", count=12).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 20)] = rng.integers(0, 256, 20)
        (tmp_path / "b.mp4").write_bytes(damaged.tobytes())
        try:
            assert read_frames(tmp_path / "b.mp4", [0.5])[0].ndim == 3
        except VideoError as error:
            assert "\n" not in str(error)


# -- which file ------------------------------------------------------------------------------------


def test_a_video_is_found_with_or_without_its_prefix(tmp_path):
    for name in ("v_abc.mp4", "-x_Y.mkv", "v_both.webm", "both.mp4"):
        (tmp_path / name).touch()
    assert find_video(tmp_path, "abc").name == "v_abc.mp4"
    assert find_video(tmp_path, "v_abc").name == "v_abc.mp4"
    assert find_video(tmp_path, "v_-x_Y").name == "-x_Y.mkv"
    assert find_video(tmp_path, "v_both").name == "v_both.webm"


@pytest.mark.parametrize(
    "name", ["../out", "/etc/passwd", "a/b", "", "v" * 70, "ä", "a\x00b", "v_"]
)
def test_an_id_that_is_no_name_of_a_video(tmp_path, name):
    (tmp_path.parent / "out.mp4").touch()
    with pytest.raises(VideoError):
        find_video(tmp_path, name)


def test_a_link_that_leads_out(tmp_path):
    (tmp_path / "outside.mp4").touch()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "abc.mp4").symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(VideoError, match="leads out of"):
        find_video(tmp_path / "videos", "abc")


def test_the_extra_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"unified-rl\[video\]"):
        read_frames(tmp_path / "a.mp4", [0.0])
