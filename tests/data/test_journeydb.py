"""JourneyDB: which text is drawn, and pictures that are still in archives."""

import json
import shutil
import tarfile

import numpy as np
import pytest

from tests.data.paper_cases import (
    listed_reasons,
    open_journeydb,
    write_archives,
    write_journeydb,
)
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Task, Text
from unified_rl.data.tar_pictures import TarPictures


@pytest.fixture
def folder(tmp_path):
    write_journeydb(tmp_path)
    return tmp_path


def test_a_line_becomes_a_drawing(folder):
    sample = open_journeydb(folder).load(2)
    assert (sample.id, sample.task) == ("journeydb/3", Task.TEXT_TO_IMAGE)
    assert sample.prompt == (Text("castle 2 --v 4"),)
    assert sample.facts == {"image": "./000/picture_2.png"}
    pixels = np.random.default_rng(2).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(sample.target[0].pixels, pixels)


def test_the_caption_in_place_of_the_prompt(folder):
    sample = open_journeydb(folder, text="Task2.Caption").load(2)
    assert sample.prompt == (Text("castle number 2"),)


def test_a_line_without_a_caption_is_set_aside(folder):
    lines = [json.loads(line) for line in (folder / "anno.jsonl").read_text().splitlines()]
    lines[1]["Task2"] = {}
    (folder / "anno.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = open_journeydb(folder, text="Task2.Caption")
    assert len(list(rows.in_order())) == 5
    assert "has no 'Task2.Caption'" in listed_reasons(rows.path)


def test_fields_that_are_not_there_are_named(folder):
    with pytest.raises(ConfigError, match="no field 'Prompt'; did you mean 'prompt'.*set text"):
        open_journeydb(folder, text="Prompt")
    with pytest.raises(DataError, match="no 'Task2.Text'; known: Caption"):
        open_journeydb(folder, text="Task2.Text")


def test_compressed_archives_are_refused(folder):
    for name in ("000", "001"):
        shutil.rmtree(folder / "imgs" / name)
        (folder / f"imgs/{name}.tgz").touch()
    with pytest.raises(DataError, match=r"holds 000\.tgz, of which.*run gunzip"):
        open_journeydb(folder)


def test_pictures_of_archives_are_those_of_folders(folder, tmp_path):
    (tmp_path / "packed").mkdir()
    write_archives(tmp_path / "packed")
    for index in range(6):
        in_folder = open_journeydb(folder).load(index)
        in_archive = open_journeydb(tmp_path / "packed").load(index)
        np.testing.assert_array_equal(in_folder.target[0].pixels, in_archive.target[0].pixels)


def test_links_in_archives_are_passed_over(tmp_path):
    write_archives(tmp_path)
    with tarfile.open(tmp_path / "imgs/002.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo("./000/picture_0.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    rows = open_journeydb(tmp_path, max_broken=0.4)
    assert len(list(rows.in_order())) == 6
    assert [fault.place for fault in rows.faults] == ["002.tar"] * 3


def test_the_first_of_equal_names_is_read(tmp_path):
    write_archives(tmp_path)
    shutil.copy(tmp_path / "imgs/000.tar", tmp_path / "imgs/002.tar")
    pictures = TarPictures(tmp_path / "imgs")
    before = pictures.read("000/picture_2.png")
    (tmp_path / "imgs/002.tar").write_bytes(b"")
    assert pictures.read("./000/picture_2.png") == before
    assert "000/picture_9.png" not in pictures
