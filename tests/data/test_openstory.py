"""OpenStory++: which rows are a story, and columns that are called otherwise."""

import json
import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.adapter_cases import picture
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Image, Task, Text
from unified_rl.data import openstory, parquet_rows
from unified_rl.data.openstory import OpenStory
from unified_rl.data.parquet_rows import ParquetRows
from unified_rl.data.quarantine import BrokenRowError


def key(video, second, more=""):
    return f"{video * 11}_keyframe_0-0-{second}-40{more}"


def row(name, caption=None):
    return {"__key__": name, "json": {"caption": caption or f"of {name}"}, "png": b"mask"}


@pytest.fixture
def opened(tmp_path):
    """Opens rows, one list of them a shard; there is a picture of every key."""

    def opened(*shards, **settings):
        for number, rows in enumerate(shards):
            path = tmp_path / f"story/{number}.parquet"
            path.parent.mkdir(exist_ok=True)
            table = pa.Table.from_pylist(rows)
            pq.write_table(table, path, row_group_size=settings.pop("group_rows", 3))
            for name in (str(row["__key__"]).partition("_override")[0] for row in rows):
                picture(tmp_path / f"frames/{name[:11]}/{name}.jpg".replace("\0", ""), len(name))
        settings = {"frames": str(tmp_path / "frames"), **settings}
        return OpenStory(str(tmp_path / "story"), **settings)

    return opened


def stories(rows):
    """First letters of the videos, and seconds of the frames, of each story."""
    return [
        "".join(f"{frame[0]}{frame.split('-')[2]}" for frame in sample.facts["frames"])
        for _, sample in rows.in_order()
    ]


def test_keyframes_of_a_video_become_a_story(opened):
    rows = opened([row(key("a", 1), "A cat sits."), row(key("a", 2), "It jumps.")])
    sample = rows.load(0)
    assert (sample.id, sample.task) == (f"openstory/{key('a', 1)}", Task.INTERLEAVED)
    assert sample.prompt == (Text("Tell a story and show each part of it. A cat sits. It jumps."),)
    assert sample.target[0] == Text("<think> A cat sits. <vis>")
    assert sample.target[2] == Text("<think> It jumps. <vis>")
    assert [type(segment) for segment in sample.target[1::2]] == [Image, Image]
    assert sample.facts["video"] == "a" * 11
    assert rows.place(0) == "rows 1 to 2"


def test_stories_run_over_row_groups_and_files(opened):
    # row groups of three rows: the story of b lies in two of them, the one of c in two files
    first = [row(key("a", n)) for n in range(2)] + [row(key("b", n)) for n in range(3)]
    first += [row(key("c", 0))]
    second = [row(key("c", 1)), row(key("d", 0)), row(key("d", 1))]
    assert stories(opened(first, second)) == ["a0a1", "b0b1b2", "c0c1", "d0d1"]


def test_long_runs_are_cut_and_what_is_left_over_is_left_out(opened):
    rows = [row(key("a", n)) for n in range(7)]
    assert stories(opened(rows, most_frames=3)) == ["a0a1a2", "a3a4a5"]
    assert stories(opened(rows, most_frames=3, least_frames=1))[-1] == "a6"


def test_the_first_of_several_rows_tells_of_a_frame(opened):
    names = [key("a", 1), key("a", 1, "_override_1"), key("a", 1, "_override_2"), key("a", 2)]
    rows = opened([row(name) for name in names], most_frames=2)
    assert stories(rows) == ["a1a2"]
    assert rows.load(0).facts["sentences"] == [f"of {names[0]}", f"of {names[3]}"]


def test_a_frame_that_is_told_of_without_end_is_cut(opened, monkeypatch):
    monkeypatch.setattr(openstory, "ROWS_PER_FRAME", 2)
    rows = opened([row(key("a", 1))] * 9 + [row(key("a", 2))], most_frames=2)
    assert stories(rows) == ["a1a2"]  # of rows 9 and 10; those before are of one frame
    assert rows.place(0) == "rows 9 to 10"


@pytest.mark.parametrize("bad", ["", "no key", "../../../etc_keyframe_0-0-1-2", None])
def test_a_key_that_is_none_parts_stories(opened, bad):
    names = [key("a", 1), key("a", 2), bad, key("a", 3), key("a", 4)]
    rows = opened([row(name, "text") for name in names])
    assert stories(rows) == ["a1a2", "a3a4"]
    assert rows.broken_count == 1 and rows.faults[0].place == "row 3"


@pytest.mark.parametrize(
    ("caption", "cell"),
    [
        ("json.caption", json.dumps({"caption": "told"})),
        ("json.caption", json.dumps({"caption": "told"}).encode()),
        ("json.text.en", {"text": {"en": "told"}}),
        ("json", "told"),
    ],
)
def test_captions_of_other_columns(opened, caption, cell):
    rows = opened([{"__key__": key("a", n), "json": cell} for n in range(2)], caption=caption)
    assert rows.load(0).facts["sentences"] == ["told", "told"]


def test_pictures_of_a_column(opened, tmp_path):
    picture(tmp_path / "one.png", 1)
    content = (tmp_path / "one.png").read_bytes()
    cells = [content, content], [{"bytes": content, "path": None}] * 2, ["/etc/passwd"] * 2
    for number, pictures in enumerate(cells):
        table = [{**row(key("a", n)), "image": pictures[n]} for n in range(2)]
        if number < 2:
            sample = opened(table, frames=None, image="image").load(0)
            assert sample.target[1].pixels.shape == (7, 9, 3)
        else:
            with pytest.raises(DataError, match="holds no content of an image"):
                opened(table, frames=None, image="image")


def test_columns_that_are_not_there_are_named(opened):
    table = [row(key("a", n)) for n in range(2)]
    with pytest.raises(ConfigError, match="no column 'text'; it has __key__, json, png; set capt"):
        opened(table, caption="text")
    with pytest.raises(ConfigError, match="names no field of 'json', which has caption"):
        opened(table, caption="json.text")
    with pytest.raises(ConfigError, match="names no field of 'json'"):
        opened(table, caption="json")
    with pytest.raises(ConfigError, match="no column 'id'.*set key"):
        opened(table, key="id")


def test_settings_that_are_refused(opened, monkeypatch):
    table = [row(key("a", n)) for n in range(2)]
    with pytest.raises(ConfigError, match="give a folder or a column"):
        opened(table, frames=None)
    with pytest.raises(ConfigError, match="1 <= least_frames <= most_frames"):
        opened(table, least_frames=3, most_frames=2)
    with pytest.raises(DataError, match="holds no story of 3 frames"):
        opened(table, least_frames=3)
    monkeypatch.setattr(openstory, "TRIED_KEYS", 2)
    with pytest.raises(ConfigError, match="key=png holds no keys"):
        opened([{**line, "png": "mask"} for line in table], key="png")


def test_a_row_group_that_is_too_large(opened, monkeypatch):
    table = [row(key(letter, n)) for letter in "ab" for n in range(2)]
    rows = opened(table, group_rows=4)
    monkeypatch.setattr(parquet_rows, "GROUP_BYTES", 10)
    with pytest.raises(DataError, match="row group of over 10 bytes"):
        opened(table, group_rows=4)
    assert stories(rows) == ["a0a1", "b0b1"]  # what was read is kept


def write_repeated(path, text, row_count):
    """Rows of one story that share one caption, which the file holds once."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * row_count, pa.int32()), pa.array([text]))
    captions = pa.StructArray.from_arrays([texts], ["caption"])
    keys = pa.array([key("a", number) for number in range(row_count)])
    pq.write_table(pa.table({"__key__": keys, "json": captions}), path)


def test_texts_that_are_repeated_are_not_unfolded_as_a_whole(tmp_path, monkeypatch):
    write_repeated(tmp_path / "0.parquet", "x" * 10**6, 10**5)  # 100 GB, unfolded
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = ParquetRows(tmp_path / "0.parquet", ["__key__", "json"])
    assert sum(1 for _ in rows.column("__key__")) == 10**5
    monkeypatch.setattr(parquet_rows, "GROUP_BYTES", 100 * 2**20)
    with pytest.raises(BrokenRowError, match="row group of over"):
        list(rows.rows(70_000, 3))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < 512 * 1024, f"{grown} KiB"


def test_cells_that_are_too_long(tmp_path, monkeypatch):
    write_repeated(tmp_path / "0.parquet", "x" * 2000, 10)
    monkeypatch.setattr(parquet_rows, "CELL_BYTES", 1999)
    rows = ParquetRows(tmp_path / "0.parquet", ["__key__", "json"])
    with pytest.raises(BrokenRowError, match="cell of 2000 bytes, over 1999"):
        list(rows.rows(0, 1))
    monkeypatch.setattr(parquet_rows, "KEY_BYTES", 10)
    assert list(rows.column("__key__")) == []
    assert "row group 0 is damaged" in rows.lost[0][1]


def test_a_file_that_is_no_parquet_costs_that_file_alone(opened, tmp_path):
    (tmp_path / "story").mkdir()
    (tmp_path / "story/9.parquet").write_bytes(b"PAR1" * 10)
    rows = opened([row(key("a", n)) for n in range(2)])
    assert stories(rows) == ["a0a1"]
    assert rows.faults[0].place == "9.parquet" and "as parquet" in rows.faults[0].reason
