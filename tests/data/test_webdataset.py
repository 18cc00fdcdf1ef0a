"""Tar shards: what is read in place, what is remembered, and archives that mean harm."""

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.webdataset_cases import changed, first, story, write_tar, write_webdataset
from unified_rl.core.errors import DataError
from unified_rl.core.sample import DrawnImage, Sample, Task, Text
from unified_rl.data import webdataset_index
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.tar_members import TarDamageError, tar_members
from unified_rl.data.webdataset import WebDatasetSource
from unified_rl.data.webdataset_writer import write_shard


def same(one, other):
    assert (one.id, one.task, one.facts) == (other.id, other.task, other.facts)
    for old, new in zip(one.prompt + one.target, other.prompt + other.target, strict=True):
        if isinstance(old, Text):
            assert old == new
        else:
            np.testing.assert_array_equal(old.pixels, new.pixels)


def test_written_samples_come_back(tmp_path):
    write_webdataset(tmp_path)
    source = WebDatasetSource(str(tmp_path))
    for number in range(8):
        same(source.load(number), story(number))
    assert source.place(5) == "stories-1.tar 000001"
    with tarfile.open(first(tmp_path)) as archive:
        assert archive.getnames()[:4] == [
            "000000.json",
            "000000.0.png",
            "000000.1.png",
            "000001.json",
        ]


def test_equal_samples_give_equal_bytes(tmp_path):
    for name in "ab":
        write_shard(tmp_path / f"{name}.tar", [story(1), story(2)])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


def test_sample_that_would_not_come_back_leaves_nothing(tmp_path):
    drawn = Sample("d", Task.TEXT, (DrawnImage(np.zeros((9, 2), int)),))
    with pytest.raises(DataError, match="'d' has codes"):
        write_shard(tmp_path / "a.tar", [story(1), drawn])
    assert not list(tmp_path.iterdir())


def test_index_is_remembered_until_the_shard_changes(tmp_path, monkeypatch):
    write_webdataset(tmp_path)
    WebDatasetSource(str(tmp_path))
    assert len(list(tmp_path.glob("*.index.json"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(webdataset_index, "_scanned", None)  # calling it would fail
        assert len(WebDatasetSource(str(tmp_path))) == 8
    write_shard(first(tmp_path), [story(11)])
    os.utime(first(tmp_path), ns=(1, 1))
    assert len(WebDatasetSource(str(tmp_path))) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"starts": "x"},
        {"starts": [-1] * 4},
        {"ends": []},
        {"ends": [0, 0, 0, 0]},
        {"version": 0},
        {"faults": [1]},
        {"starts": [[]]},
        {"starts": [2**63] * 4, "ends": [2**64 - 1] * 4},
        {"ends": [2**64 - 1] * 4},
    ],
)
def test_index_that_cannot_be_true_is_made_anew(tmp_path, change):
    write_webdataset(tmp_path)
    WebDatasetSource(str(tmp_path))
    place = tmp_path / "stories-0.tar.index.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    same(WebDatasetSource(str(tmp_path)).load(3), story(3))


def test_index_that_lies_breaks_its_rows_only(tmp_path):
    write_webdataset(tmp_path)
    WebDatasetSource(str(tmp_path))
    place = tmp_path / "stories-0.tar.index.json"
    index = json.loads(place.read_text())
    index["starts"][1] += 512  # in the middle of a member
    index["ends"][2] = index["ends"][3]  # two samples in one
    place.write_text(json.dumps(index))
    source = WebDatasetSource(str(tmp_path))
    for row in (1, 2):
        with pytest.raises(BrokenRowError):
            source.load(row)
    assert source.broken_count == 2 and len(list(source.in_order())) == 6
    assert isinstance(source.place(1), str)


def test_index_that_is_a_device_is_not_read(tmp_path):
    write_webdataset(tmp_path)
    (tmp_path / "stories-0.tar.index.json").symlink_to("/dev/zero")
    assert len(WebDatasetSource(str(tmp_path))) == 8


def test_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    write_webdataset(tmp_path)

    def refuse(*_):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(webdataset_index, "beside", lambda _: tmp_path / "no/where")
    assert len(WebDatasetSource(str(tmp_path))) == 8
    assert not list(tmp_path.glob("*.index.json"))


def plain(name, content=b"x", kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member, content


ODD = {
    "symlink": ([plain("000002.x", b"", tarfile.SYMTYPE, "/etc/passwd")], "is a symbolic link"),
    "link": ([plain("000002.x", b"", tarfile.LNKTYPE, "../../x")], "is a link"),
    "device": ([plain("000002.x", b"", tarfile.CHRTYPE)], "is a device"),
    "block": ([plain("000002.x", b"", tarfile.BLKTYPE)], "is a device"),
    "pipe": ([plain("000002.x", b"", tarfile.FIFOTYPE)], "is a pipe"),
    "sparse": ([plain("000002.x", b"", tarfile.GNUTYPE_SPARSE)], "is a sparse file"),
    "parent": ([plain("../000002.x")], "leads out of the archive"),
    "absolute": ([plain("/000002.x")], "leads out of the archive"),
    "windows": ([plain("C:\\000002.x")], "leads out of the archive"),
    "twice": ([plain("000002.json")], "has two members 'json'"),
    "long": ([plain("000002." + "x" * 3000)], "has a name of 3007 bytes"),
}


@pytest.mark.parametrize("kind", ODD)
def test_member_that_is_no_plain_file_breaks_its_sample(tmp_path, kind):
    members, reason = ODD[kind]
    write_webdataset(tmp_path)

    def put(old):
        place = next(i for i, (m, _) in enumerate(old) if m.name == "000003.json")
        return old[:place] + members + old[place:]

    changed(first(tmp_path), put, format=tarfile.GNU_FORMAT)
    source = WebDatasetSource(str(tmp_path), max_broken=0.9)
    left = [sample.id for _, sample in source.in_order()]
    own_row = members[0][0].name.startswith("000002.")
    assert left == [f"story {n}" for n in range(8) if n != 2 or not own_row]
    assert source.broken_count == 1
    (line,) = Path(f"{tmp_path}.quarantine.jsonl").read_text().splitlines()
    assert reason in json.loads(line)["reason"]


def test_key_that_comes_again_is_set_aside(tmp_path):
    write_webdataset(tmp_path)
    changed(first(tmp_path), lambda old: [*old, *old[:3]])
    source = WebDatasetSource(str(tmp_path))
    assert (len(source), source.broken_count) == (8, 1)
    assert source.faults == (("stories-0.tar 000000", "has a key that is taken"),)


def test_names_in_folders_and_of_any_length(tmp_path):
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        write_webdataset(tmp_path)

        def lengthen(old):
            for member, _ in old:
                member.name = f"{'deep/' * 40}été.d/{member.name}"
            return [(tarfile.TarInfo("deep"), b""), *old]

        def folders(old):
            members = lengthen(old)
            members[0][0].type = tarfile.DIRTYPE
            return members

        changed(first(tmp_path), folders, format=kind)
        same(WebDatasetSource(str(tmp_path)).load(2), story(2))


def test_what_gnu_tar_writes_is_read(tmp_path):
    write_webdataset(tmp_path)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "xf", first(tmp_path), "-C", unpacked], check=True)
    command = ["tar", "cf", first(tmp_path), "-C", unpacked, "--sort=name", "."]
    subprocess.run(command, check=True)
    source = WebDatasetSource(str(first(tmp_path)))
    assert sorted(sample.id for _, sample in source.in_order()) == [f"story {n}" for n in range(4)]


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_file_of_gnu_tar_is_refused(tmp_path, form):
    (tmp_path / "000000.json").write_bytes(b"")
    os.truncate(tmp_path / "000000.json", 2**20)  # a hole, which tar stores as none
    rest = tmp_path / "000001.json"
    rest.write_text(json.dumps({"id": "a", "task": "text", "prompt": [{"text": "x"}]}))
    command = ["tar", "cSf", tmp_path / "a.tar", f"--format={form}", "-C", tmp_path]
    subprocess.run([*command, "000000.json", "000001.json"], check=True)
    assert (tmp_path / "a.tar").stat().st_size < 2**20
    source = WebDatasetSource(str(tmp_path / "a.tar"))
    reasons = []
    for index in range(len(source)):
        try:
            source.load(index)
        except BrokenRowError as error:
            reasons.append(str(error))
    assert len(reasons) == 1 and "is a sparse file, not a plain file" in reasons[0]


@pytest.mark.parametrize(
    ("taken", "left", "reason"),
    [
        (0, 4, "has no mark at its end"),
        (400, 3, "is cut off in '000003.1.png'"),  # 112 bytes are left of the picture
        (700, 3, "is cut off at byte"),  # in its header
    ],
)
def test_archive_that_is_cut_off_keeps_what_is_before(tmp_path, taken, left, reason):
    write_webdataset(tmp_path)
    with first(tmp_path).open("rb") as file:
        end = list(tar_members(file, 10**9))[-1].end
    os.truncate(first(tmp_path), end - taken)
    source = WebDatasetSource(str(tmp_path))
    ids = [sample.id for _, sample in source.in_order()]
    assert ids == [f"story {n}" for n in range(8) if n < left or n > 3]
    assert reason in source.faults[0].reason


def test_file_that_is_no_archive(tmp_path):
    write_webdataset(tmp_path)
    first(tmp_path).write_bytes(b"hello" * 1000)
    source = WebDatasetSource(str(tmp_path))
    assert len(source) == 4 and "is no tar archive from byte 0 on" in source.faults[0].reason
    with pytest.raises(DataError, match="holds no good row; stories-0.tar is no tar archive"):
        WebDatasetSource(str(first(tmp_path)))


def test_member_of_a_huge_size_is_refused_by_its_header(tmp_path):
    write_webdataset(tmp_path)
    with first(tmp_path).open("rb") as file:
        member = list(tar_members(file, first(tmp_path).stat().st_size))[1]
    header = tarfile.TarInfo("000000.0.png")
    header.size = 2**39
    content = bytearray(first(tmp_path).read_bytes())
    content[member.start : member.offset] = header.tobuf(tarfile.GNU_FORMAT)
    first(tmp_path).write_bytes(content)
    os.truncate(first(tmp_path), 2**39 + 2**20)  # takes no room on the disk
    try:
        source = WebDatasetSource(str(tmp_path))
        with pytest.raises(BrokenRowError, match="takes 549755813888 bytes, over 256000000"):
            source.load(0)
    finally:
        first(tmp_path).unlink()


def test_headers_that_never_end_are_refused(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**30
    for content in (
        header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000),
        tarfile.TarInfo("x").tobuf()[:400],
    ):
        with pytest.raises(TarDamageError):
            list(tar_members(io.BytesIO(content), len(content)))


def test_compressed_and_empty_folders_say_so(tmp_path):
    with pytest.raises(DataError, match="holds no "):
        WebDatasetSource(str(tmp_path))
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="unpack what is compressed"):
        WebDatasetSource(str(tmp_path))
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="a.tar is compressed"):
        WebDatasetSource(str(tmp_path))


def test_row_that_is_broken(tmp_path):
    rows = {
        "a": {"id": "a", "task": "text", "prompt": [{"image": "9.png"}]},
        "b": {"id": "b", "task": "text"},
        "c": {"id": "c", "task": "text", "prompt": [{"text": "fine"}]},
    }
    members = [plain(f"{key}.json", json.dumps(row).encode()) for key, row in rows.items()]
    write_tar(tmp_path / "a.tar", [*members, plain("d.txt")])
    source = WebDatasetSource(str(tmp_path), max_broken=0.9)
    for index, reason in ((0, "no member '9.png'"), (1, "no 'prompt'"), (3, "no member 'json'")):
        with pytest.raises(BrokenRowError, match=reason):
            source.load(index)
    assert [sample.id for _, sample in source.in_order()] == ["c"]
