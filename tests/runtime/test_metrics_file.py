"""Metrics as CSV: each iteration once, whatever kills the run."""

import csv
import resource

import pytest

from tests.killing import survivors
from unified_rl.core.errors import StorageError
from unified_rl.runtime.metrics_file import MetricsFile


def log(path, start, stop, **more):
    file = MetricsFile(path)
    file.keep(start)
    for iteration in range(start, stop):
        file.log_metrics({"iteration": float(iteration), "loss": 0.5, **more}, step=iteration)
    return file


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def iterations(path):
    return [float(row["iteration"]) for row in rows(path)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics" / "metrics.csv"


def test_a_row_is_on_disk_at_once(path):
    log(path, 0, 1)
    assert path.read_text() == "iteration,loss,step\n0.0,0.5,0\n"


def test_an_earlier_run_is_replaced(path):
    log(path, 0, 5)
    MetricsFile(path).log_metrics({"iteration": 0.0})
    assert path.read_text() == "iteration\n0.0\n"


def test_nothing_is_kept_of_a_run_that_begins_anew(path):
    log(path, 0, 5)
    MetricsFile(path).keep(0)
    assert not path.exists()


def test_a_new_column_keeps_the_rows_before(path):
    file = log(path, 0, 2)
    file.log_metrics({"iteration": 2.0, "kl": 7.0}, step=2)
    assert [row["kl"] for row in rows(path)] == ["", "", "7.0"]
    assert [row["loss"] for row in rows(path)] == ["0.5", "0.5", ""]


def test_a_resumed_run_has_each_iteration_once(path):
    log(path, 0, 5)
    log(path, 3, 7)
    assert iterations(path) == [0, 1, 2, 3, 4, 5, 6]


def test_a_resumed_file_is_that_of_a_whole_run(path, tmp_path):
    whole = tmp_path / "whole.csv"
    log(whole, 0, 7)
    log(path, 0, 5)
    log(path, 3, 7)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("cut", ["1", "12.0,0.", "12.0,0.5,1"])
def test_a_row_that_a_kill_cut_off_is_none(path, cut):
    log(path, 0, 12)
    with path.open("a") as file:
        file.write(cut)  # "1" would be iteration 1 once more
    MetricsFile(path).keep(12)
    assert iterations(path) == list(range(12))


def test_rows_of_another_making_are_dropped(path):
    path.parent.mkdir()
    path.write_bytes(b"iteration,loss\n0.0,1.0\nnan,2.0\n\xff,3.0\n,4.0\n1.0,5.0,6.0,7.0\n")
    MetricsFile(path).keep(9)
    assert [(row["iteration"], row["loss"]) for row in rows(path)] == [
        ("0.0", "1.0"),
        ("1.0", "5.0"),
    ]


def test_no_kill_loses_a_row_that_a_checkpoint_counts_on(tmp_path):
    def go_on(folder):
        log(folder / "metrics.csv", 3, 5, kl=1.0)  # a new column, so the file is rewritten

    def found(folder):
        log(folder / "metrics.csv", 3, 5, kl=1.0)
        return (folder / "metrics.csv").read_bytes()

    after = survivors(tmp_path, lambda folder: log(folder / "metrics.csv", 0, 5), go_on, found)
    assert len(after) > 5
    assert len(set(after)) == 1
    assert after[0].count(b"\n") == 6  # header and 0 to 4


def test_a_full_disk_is_named(path):
    file = log(path, 0, 100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 3, before[1]))
    try:
        with pytest.raises(StorageError, match=rf"writing {path} failed \(File too large\); free"):
            file.log_metrics({"iteration": 100.0, "loss": 0.5}, step=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    MetricsFile(path).keep(100)
    assert iterations(path) == list(range(100))
