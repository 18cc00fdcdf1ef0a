"""Builds: what they write is read back, a killed one goes on, and nothing is overwritten."""

import json
import os
import signal

import numpy as np
import pytest

from tests.data.adapter_cases import all_cases, picture
from tests.data.webdataset_cases import story
from tests.killing import survivors
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import DrawnImage, Pair, Sample, Task, Text
from unified_rl.data.building import build
from unified_rl.data.jsonl import JsonlSource
from unified_rl.data.source_walk import SourceWalk
from unified_rl.data.webdataset import WebDatasetSource
from unified_rl.data.webdataset_writer import write_shard

SETTINGS = {"source": {"path": "x"}}


class Endless:
    """Draws one of ten stories, or a pair."""

    image_size = None

    def __init__(self, make=story):
        self._make = make

    def draw(self, rng):
        return self._make(int(rng.integers(10)))


def built(walk, output, form, per_part=3, report=lambda _: None, settings=SETTINGS):
    return build(walk, output, form, per_part, settings, report)


def reopened(output, form):
    if form == "jsonl":
        return JsonlSource(str(output / "rows.jsonl"))
    return WebDatasetSource(str(output))


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(params=["jsonl", "webdataset"])
def form(request):
    return request.param


@pytest.fixture
def stories(tmp_path):
    write_shard(tmp_path / "in.tar", [story(number) for number in range(10)])
    return WebDatasetSource(str(tmp_path / "in.tar"))


@pytest.mark.parametrize("case", all_cases(), ids=str)
def test_every_adapter_is_built_and_read_back(case, form, tmp_path):
    (tmp_path / "data").mkdir()
    case.write(tmp_path / "data")
    source = case.open(tmp_path / "data")
    counts = built(SourceWalk(source), tmp_path / "out", form)
    back = [sample for _, sample in reopened(tmp_path / "out", form).in_order()]
    assert counts.written == counts.passed == len(back) == case.row_count
    for old, new in zip((sample for _, sample in source.in_order()), back, strict=True):
        assert (old.id, old.task) == (new.id, new.task)
        assert json.loads(json.dumps(dict(old.facts))) == new.facts
        for one, other in zip(old.prompt + old.target, new.prompt + new.target, strict=True):
            assert type(one) is type(other)
            if isinstance(one, Text):
                assert one == other
            else:
                np.testing.assert_array_equal(one.pixels, other.pixels)


def killed(walk, output, form, place):
    """A build in a process of its own that is killed when it reports a place."""

    def kill(passed):
        if passed == place:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            built(walk, output, form, report=kill)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("place", [3, 4])
def test_killed_build_goes_on_to_the_same_bytes(stories, form, tmp_path, place):
    built(SourceWalk(stories), tmp_path / "a/set", form)
    output = tmp_path / "b/set"
    killed(SourceWalk(stories), output, form, place)
    assert not output.exists()
    places = []
    built(SourceWalk(stories), output, form, report=places.append)
    assert contents(output) == contents(tmp_path / "a/set")
    assert places[0] == (place - 1) // 3 * 3 + 1  # from the last whole part of three
    assert [path.name for path in output.parent.iterdir()] == ["set"]


def test_kill_between_any_two_file_operations(tmp_path, form):
    # 12 draws of three stories and of what cannot be written
    walk = SourceWalk(Endless(lambda number: drawn(max(number, 5))), draws=12)
    built(walk, tmp_path / "whole", form, per_part=2)

    def go_on(folder):
        if not (folder / "whole").exists():  # the kill came after the last rename
            built(walk, folder / "whole", form, per_part=2)
        assert [path.name for path in folder.iterdir()] == ["whole"]
        refused = (folder / "whole/refused.jsonl").read_text().splitlines()
        assert len(refused) == len(set(refused))
        return contents(folder / "whole")

    (tmp_path / "kills").mkdir()
    found = survivors(
        tmp_path / "kills",
        lambda folder: None,
        lambda folder: built(walk, folder / "whole", form, per_part=2),
        go_on,
    )
    assert len(found) > 15 and all(each == contents(tmp_path / "whole") for each in found)


def test_what_a_kill_left_in_the_middle_of_a_row_is_cut_off(stories, tmp_path):
    def kill(passed):
        if passed == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(SourceWalk(stories), tmp_path / "out", "jsonl", report=kill)
    with (tmp_path / "out.part/rows.jsonl").open("ab") as file:
        file.write(b'{"id": "half' + b"x" * 10**5)
    with (tmp_path / "out.part/ids.bin").open("ab") as file:
        file.write(b"half")
    (tmp_path / "out.part/images/x.png.7.tmp").write_bytes(b"half")
    built(SourceWalk(stories), tmp_path / "out", "jsonl")
    assert not list(tmp_path.rglob("*.tmp"))
    rows = JsonlSource(str(tmp_path / "out/rows.jsonl"))
    assert (len(rows), rows.broken_count) == (10, 0)


def test_build_does_not_go_on_under_other_settings(stories, tmp_path, form):
    def kill(passed):
        if passed == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(SourceWalk(stories), tmp_path / "out", form, report=kill)
    with pytest.raises(ConfigError, match="was begun with other settings"):
        built(SourceWalk(stories), tmp_path / "out", form, settings={"source": {"path": "y"}})
    (tmp_path / "out.part/unfinished.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged; delete"):
        built(SourceWalk(stories), tmp_path / "out", form)


def test_nothing_is_overwritten(stories, tmp_path, form):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="out exists; builds never overwrite"):
        built(SourceWalk(stories), tmp_path / "out", form)


def test_settings_outside_of_their_range(stories, tmp_path):
    with pytest.raises(ConfigError, match="format='parquet' is none of"):
        built(SourceWalk(stories), tmp_path / "out", "parquet")
    with pytest.raises(ConfigError, match="samples_per_part=0"):
        built(SourceWalk(stories), tmp_path / "out", "jsonl", per_part=0)


def test_broken_rows_are_left_out_and_counted(tmp_path, form):
    rows = [{"id": str(n), "task": "text", "prompt": [{"image": f"{n}.png"}]} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for number in range(6):
        picture(tmp_path / f"{number}.png", number)
    source = JsonlSource(str(tmp_path / "rows.jsonl"))
    (tmp_path / "2.png").unlink()
    counts = built(SourceWalk(source), tmp_path / "out", form)
    assert (counts.passed, counts.written, counts.broken) == (6, 5, 1)
    ids = [sample.id for _, sample in reopened(tmp_path / "out", form).in_order()]
    assert ids == ["0", "1", "3", "4", "5"]


def test_draws_without_end_are_written_once_each(tmp_path, form):
    counts = built(SourceWalk(Endless(), draws=60), tmp_path / "out", form)
    assert (counts.passed, counts.written, counts.repeated) == (60, 10, 50)
    assert len(reopened(tmp_path / "out", form)) == 10


def pair(number):
    drawing = Sample(f"d{number}", Task.TEXT_TO_IMAGE, (Text("draw"),))
    return Pair(drawing, Sample(f"q{number}", Task.UNDERSTANDING, (Text("what?"),)))


def test_pairs_become_two_samples(tmp_path, form):
    assert built(SourceWalk(Endless(pair), count=3), tmp_path / "out", form).written % 2 == 0
    ids = {sample.id[0] for _, sample in reopened(tmp_path / "out", form).in_order()}
    assert ids == {"d", "q"}


def drawn(number):
    if number < 8:
        return story(number)
    return Sample(f"codes {number}", Task.TEXT, (DrawnImage(np.zeros((4, 1), int)),))


def test_samples_that_cannot_be_written_are_listed(tmp_path, form):
    counts = built(SourceWalk(Endless(drawn), draws=60), tmp_path / "out", form)
    assert counts.written == 8 and counts.refused > 0
    lines = (tmp_path / "out/refused.jsonl").read_text().splitlines()
    assert len(lines) == counts.refused
    assert "has codes that a policy drew" in json.loads(lines[0])["reason"]
    assert len(reopened(tmp_path / "out", form)) == 8


def test_nothing_written_leaves_nothing(tmp_path, form):
    with pytest.raises(DataError, match="nothing was written of 5 places"):
        built(SourceWalk(Endless(lambda _: drawn(9)), draws=5), tmp_path / "out", form)
    assert not list(tmp_path.iterdir())
