"""Resumable checkpoints: the last whole one is found, whatever happened to the others."""

import json

import pytest

from tests.killing import survivors
from unified_rl.runtime.snapshots import MANIFEST, STATE, Snapshots


def keep(folder, *iterations, every=0):
    """Saves states that name their iteration."""
    snapshots = Snapshots(folder, every)
    for iteration in iterations:
        snapshots.begin(iteration)
        snapshots.beside(iteration).write_text(f"state of {iteration}")
        snapshots.seal(iteration)
        snapshots.publish(iteration)
    return snapshots


def test_nothing_is_found_where_nothing_was_saved(tmp_path):
    snapshots = Snapshots(tmp_path / "none")
    assert snapshots.last_whole() is None
    assert snapshots.size() is None
    snapshots.tidy()
    snapshots.clear()


def test_the_last_two_are_kept(tmp_path):
    snapshots = keep(tmp_path, 2, 4, 6)
    assert snapshots.iterations() == [4, 6]
    assert snapshots.state(snapshots.last_whole()).read_text() == "state of 6"


def test_those_that_are_wanted_are_kept_for_good(tmp_path):
    snapshots = keep(tmp_path, *range(2, 14, 2), every=4)
    assert snapshots.iterations() == [4, 8, 10, 12]
    snapshots.clear()
    assert snapshots.iterations() == [4, 8, 12]


def test_a_finished_run_leaves_no_folder(tmp_path):
    snapshots = keep(tmp_path / "run", 2, 4)
    snapshots.clear()
    assert not (tmp_path / "run").exists()


def test_a_folder_of_files_is_a_state_too(tmp_path):
    snapshots = Snapshots(tmp_path)
    snapshots.begin(3)
    for rank in range(2):
        part = snapshots.beside(3) / "checkpoint" / f"rank_{rank}.pt"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("part")
    snapshots.seal(3)
    snapshots.publish(3)
    assert snapshots.last_whole() == 3
    (snapshots.state(3) / "checkpoint" / "rank_1.pt").unlink()
    assert snapshots.fault(3) == "state.ckpt/checkpoint/rank_1.pt is missing"


def flip(place):
    content = bytearray((place / STATE).read_bytes())
    content[3] ^= 1
    (place / STATE).write_bytes(content)


DAMAGES = {
    "another checksum": flip,
    "has 0 bytes, not 10": lambda place: (place / STATE).write_bytes(b""),
    "state.ckpt is missing": lambda place: (place / STATE).unlink(),
    "manifest.json: FileNotFoundError": lambda place: (place / MANIFEST).unlink(),
    "manifest.json: JSONDecodeError": lambda place: (place / MANIFEST).write_text('{"files"'),
    "manifest.json: UnicodeDecodeError": lambda place: (place / MANIFEST).write_bytes(b"\xff"),
    "manifest.json: TypeError": lambda place: (place / MANIFEST).write_text("[]"),
    "speaks of iteration 5": lambda place: (place / MANIFEST).write_text(
        (place / MANIFEST).read_text().replace('"iteration": 4', '"iteration": 5')
    ),
    "state.ckpt is missing ": lambda place: (place / MANIFEST).write_text(
        json.dumps({"iteration": 4, "files": {}})
    ),
}


@pytest.mark.parametrize("fault", DAMAGES)
def test_a_broken_one_falls_back_to_the_one_before(tmp_path, caplog, fault):
    snapshots = keep(tmp_path, 2, 4)
    DAMAGES[fault](tmp_path / "000004")
    assert snapshots.last_whole() == 2
    assert f"{tmp_path}/000004 is broken" in caplog.text
    assert f"{fault.strip()}); trying iteration 2" in caplog.text


def test_only_broken_ones_mean_the_beginning(tmp_path, caplog):
    snapshots = keep(tmp_path, 2, 4)
    for name in ("000002", "000004"):
        flip(tmp_path / name)
    assert snapshots.last_whole() is None
    assert "000002 is broken (state.ckpt has another checksum); starting from" in caplog.text


def test_a_broken_one_goes_when_the_run_has_gone_on(tmp_path):
    snapshots = keep(tmp_path, 2, 4)
    flip(tmp_path / "000004")
    keep(tmp_path, 3)
    assert snapshots.iterations() == [2, 3]
    keep(tmp_path, 4)
    assert snapshots.iterations() == [3, 4]
    assert snapshots.last_whole() == 4


def test_a_broken_one_is_replaced_by_its_like(tmp_path):
    keep(tmp_path, 2, 4)
    flip(tmp_path / "000004")
    snapshots = keep(tmp_path, 4)
    assert snapshots.fault(4) is None
    assert snapshots.iterations() == [2, 4]


def test_what_is_being_written_is_nobodys(tmp_path):
    snapshots = keep(tmp_path, 2)
    snapshots.begin(4)
    snapshots.beside(4).write_text("half")
    assert snapshots.last_whole() == 2
    snapshots.abandon(4)
    assert [path.name for path in tmp_path.iterdir()] == ["000002"]


def test_no_kill_loses_a_checkpoint(tmp_path, caplog):
    def found(folder):
        snapshots = Snapshots(folder)
        last = snapshots.last_whole()
        return last, snapshots.state(last).read_text()

    after = survivors(
        tmp_path, lambda folder: keep(folder, 2, 4), lambda folder: keep(folder, 6), found
    )
    # begin, state, manifest, flushes, rename: 4 is the last; then 6 is, and 2 is removed
    assert set(after) == {(4, "state of 4"), (6, "state of 6")}
    assert after == sorted(after) and after[-1][0] == 6
    assert len(after) > 10
    assert not caplog.text  # no half of a checkpoint ever stood under its name


def test_no_kill_loses_the_end_of_a_run(tmp_path):
    survivors(
        tmp_path,
        lambda folder: keep(folder / "run", 2, 4),
        lambda folder: Snapshots(folder / "run").clear(),
        lambda folder: Snapshots(folder / "run").clear(),
    )
    assert not list(tmp_path.glob("*/run"))
