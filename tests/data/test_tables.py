"""Rows in files of any kind: the same cells, whichever holds them, and nothing but the rows."""

import json
import pickle
import socket
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.data import arrow_table
from unified_rl.data.arrow_table import ArrowTable
from unified_rl.data.jsonl import BrokenRowError
from unified_rl.data.tables import open_table

ROWS = [{"word": "été 猫 🐈", "count": 1}, {"word": "two", "count": 2}, {"word": None, "count": 3}]


def as_jsonl(folder, rows):
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder / "rows.jsonl"


def as_parquet(folder, rows, name="rows.parquet"):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder / name


def as_shards(folder, rows):
    for number, row in enumerate(rows):
        table = pa.Table.from_pylist([row], pa.Table.from_pylist(rows).schema)
        (folder / "shards").mkdir(exist_ok=True)
        pq.write_table(table, folder / "shards" / f"part{number}.parquet")
    return folder / "shards"


def as_saved(folder, rows):
    Dataset.from_list(rows).save_to_disk(folder / "saved")
    return folder / "saved"


def as_saved_splits(folder, rows):
    other = Dataset.from_list([{"word": "other", "count": 0}])
    splits = DatasetDict(train=Dataset.from_list(rows), test=other)
    splits.save_to_disk(folder / "splits")
    return folder / "splits"


CONTAINERS = {
    "jsonl": as_jsonl,
    "parquet": as_parquet,
    "shards": as_shards,
    "saved": as_saved,
    "saved_splits": as_saved_splits,
}


@pytest.fixture
def opened(tmp_path):
    def opened(path, **settings):
        return open_table(str(path), cache_folder=str(tmp_path / "cache"), **settings)

    return opened


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_cells(opened, tmp_path, container):
    table = opened(CONTAINERS[container](tmp_path, ROWS))
    assert (len(table), set(table.columns)) == (3, {"word", "count"})
    assert [dict(table.row(index, ["word", "count"])) for index in (2, 0, 1)] == [
        ROWS[2],
        ROWS[0],
        ROWS[1],
    ]
    assert table.row(1, ["count"]) == {"count": 2}
    assert list(table.column("word")) == ["été 猫 🐈", "two", None]
    assert [table.number(index) for index in range(3)] == [1, 2, 3]


def test_a_folder_with_odd_letters_is_read(opened, tmp_path):
    folder = tmp_path / "a [1] *?"
    assert opened(as_parquet(folder, ROWS)).row(1, ["word"]) == {"word": "two"}


def test_shards_of_other_splits_are_left_out(opened, tmp_path):
    for split in ("train", "test"):
        row = {"word": split}
        as_parquet(tmp_path / "data", [row], f"{split}-00000-of-00001.parquet")
    assert list(opened(tmp_path).column("word")) == ["train"]
    assert list(opened(tmp_path, split="test").column("word")) == ["test"]
    with pytest.raises(DataError, match="has no split 'tran'; did you mean 'train'"):
        opened(tmp_path, split="tran")


def test_a_saved_split_that_is_not_there_is_refused(opened, tmp_path):
    with pytest.raises(DataError, match="has no split 'tests'; did you mean 'test'"):
        opened(as_saved_splits(tmp_path, ROWS), split="tests")


def test_parquet_is_copied_into_the_cache_that_is_named(opened, tmp_path):
    opened(as_parquet(tmp_path, ROWS))
    assert list((tmp_path / "cache").rglob("*.arrow"))


def test_a_table_is_mapped_not_loaded(opened, tmp_path):
    """64 MiB of cells cost Arrow's memory pool, where tables that are loaded live, next to none."""
    rows = [{"word": chr(97 + place) * 2**20} for place in range(16)] * 4
    path = as_saved(tmp_path, rows)
    before = pa.total_allocated_bytes()
    table = opened(path)
    assert table.row(17, ["word"]) == {"word": "b" * 2**20}
    assert pa.total_allocated_bytes() - before < 8 * 2**20


def test_lines_that_are_no_rows_are_broken_alone(opened, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"word": "a"}\n\n[1]\n{"word": "\xff"}\n{"word": "b"}')
    table = opened(tmp_path / "rows.jsonl")
    assert list(table.column("word")) == ["a", None, None, "b"]
    assert [table.number(index) for index in range(4)] == [1, 3, 4, 5]
    for index, reason in ((1, "not a JSON object"), (2, "not JSON")):
        with pytest.raises(BrokenRowError, match=reason):
            table.row(index, ["word"])


def test_a_stored_path_or_address_is_never_opened(tmp_path, monkeypatch):
    """The library would open both as it decodes; here cells come as they are stored."""

    def connect(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "socket", connect)
    named = [{"bytes": None, "path": path} for path in ("https://example.com/a.png", "/etc/passwd")]
    dataset = Dataset.from_dict({"image": named}, features=Features(image=ImageFeature()))
    table = ArrowTable(dataset, "rows")
    assert [table.row(index, ["image"])["image"] for index in (0, 1)] == named


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_a_pickle_stays_bytes(opened, tmp_path):
    content = pickle.dumps(Boom())
    table = opened(as_parquet(tmp_path, [{"word": content}]))
    assert table.row(0, ["word"]) == {"word": content}


def test_text_that_is_not_unicode_is_a_broken_row():
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    dataset = Dataset(pa.table({"word": text}))
    with pytest.raises(BrokenRowError, match="is damaged"):
        ArrowTable(dataset, "rows").row(0, ["word"])


def test_offsets_that_lead_out_of_a_file_are_a_broken_row(tmp_path):
    """A stored length of 1 GiB where there are 11 bytes: read unchecked, it is other memory."""
    folder = tmp_path / "saved"
    Dataset.from_dict({"word": [b"a" * 5, b"b" * 6]}).save_to_disk(folder)
    file = folder / "data-00000-of-00001.arrow"
    offsets, wrong = struct.pack("<3i", 0, 5, 11), struct.pack("<3i", 0, 2**30, 11)
    content = file.read_bytes()
    assert content.count(offsets) == 1
    file.write_bytes(content.replace(offsets, wrong))
    with pytest.raises(BrokenRowError, match="is damaged"):
        open_table(str(folder)).row(0, ["word"])


def test_a_huge_row_is_broken_before_it_is_copied(monkeypatch):
    monkeypatch.setattr(arrow_table, "ROW_BYTES", 1000)
    dataset = Dataset.from_dict({"word": [b"a" * 900, b"a" * 1001]})
    table = ArrowTable(dataset, "rows")
    assert table.row(0, ["word"])
    with pytest.raises(BrokenRowError, match=r"takes 10\d\d bytes, over 1000"):
        table.row(1, ["word"])


def test_a_saved_folder_names_no_file_outside(opened, tmp_path):
    folder = as_saved(tmp_path, ROWS)
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"][0]["filename"] = "../saved/data-00000-of-00001.arrow"
    (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="which is no file of the folder"):
        opened(folder)


def broken_parquet(folder):
    (folder / "rows.parquet").write_bytes(b"PAR1 but nothing else")
    return folder / "rows.parquet"


def broken_state(folder):
    (folder / "state.json").write_text("[]")
    return folder


REFUSED = {
    "nothing": (lambda folder: folder / "rows.parqet", r"there is no .*rows.parqet.*hub=true"),
    "no_folder": (lambda folder: folder / "a" / "b.jsonl", "nor a folder"),
    "empty_folder": (lambda folder: folder, r"holds no \*\.parquet"),
    "other_file": (lambda folder: as_parquet(folder, ROWS, "rows.csv"), "neither .jsonl nor"),
    "parquet": (broken_parquet, "cannot be read as parquet: Arrow.*magic bytes"),
    "state": (broken_state, "cannot be read: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_line(opened, tmp_path, name):
    make, reason = REFUSED[name]
    with pytest.raises(DataError, match=reason) as caught:
        opened(make(tmp_path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_the_hub_is_asked_only_when_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="set hub=true if it is a data set of the Hugging Face Hub"):
        open_table("mm-vl/x2x_rft_22k")
    with pytest.raises(ConfigError, match="revision=main has no effect on files"):
        open_table("rows.jsonl", revision="main")
    for name in ("x2x", "a/b/c", "../x", "/etc/passwd", "https://a/b", "a/../b"):
        with pytest.raises(ConfigError, match="is no data set of the Hub; give owner/name"):
            open_table(name, hub=True)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is on this machine; set hub=false"):
        open_table("owner/name", hub=True)


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"mm-vl/none \(split train\) cannot be loaded from") as got:
        open_table("mm-vl/none", hub=True, cache_folder=str(tmp_path))
    assert "\n" not in str(got.value)


def test_columns_of_any_type_come_as_plain_values():
    features = Features(word={"a": Value("int32")}, count=Value("timestamp[s]"))
    table = ArrowTable(Dataset.from_dict({"word": [{"a": 1}], "count": [0]}, features), "rows")
    assert table.row(0, ["word"]) == {"word": {"a": 1}}
