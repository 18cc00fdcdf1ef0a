"""Whole runs through Lightning: what they write, and that a kill changes nothing.

Real stages over a random Janus of two layers; a run is 6 iterations, saved every 3.
"""

import contextlib
import csv
import json
import resource
import shutil

import lightning
import pytest
import torch
from safetensors.torch import load_file

from tests.runtime.runs import ITERATIONS, OPTIMISATION, STAGES, go, grpo, random_janus, sft
from unified_rl import stages
from unified_rl.core.errors import StorageError, TrainingError
from unified_rl.runtime.snapshots import STATE, Snapshots
from unified_rl.stages.base import Stage
from unified_rl.stages.warmup_sft import WarmupSFT


class Dropped(torch.nn.Module):
    """Noise from torch's global generator, as dropout draws it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, hidden):
        return torch.nn.functional.dropout(self.inner(hidden), 0.1, self.training)


def noisy_janus():
    policy = random_janus()
    policy.janus.lm_head = Dropped(policy.janus.lm_head)
    return policy


class Killed(RuntimeError):
    """What ends a run too early."""


class Killer(lightning.Callback):
    """Ends a run at the start of an iteration (from 0)."""

    def __init__(self, at, error=Killed):
        self.at, self.error = at, error

    def on_train_batch_start(self, trainer, stage, batch, batch_idx):
        if stage.iteration == self.at:
            raise self.error


def go_and_die(output, stage, at=5, **settings):
    with pytest.raises(Killed):
        go(output, stage, Killer(at), **settings)


def weights(output):
    return load_file(output / "checkpoint" / "model.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one | other)


def rows(output):
    with (output / "metrics" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def resumables(output):
    """The checkpoints of a run, by iteration."""
    return sorted((output / "resumable").glob("*/" + "[0-9]" * 6))


@pytest.fixture(scope="module", params=STAGES)
def whole(request, tmp_path_factory):
    """A run that nothing interrupts: name of its stage, folder."""
    output = tmp_path_factory.mktemp(request.param)
    go(output, STAGES[request.param]())
    return request.param, output


@pytest.fixture(scope="module")
def resumed(whole, tmp_path_factory):
    """The same run, killed in its last iteration and started again; folder, iterations taken."""
    output = tmp_path_factory.mktemp(f"{whole[0]}_resumed")
    go_and_die(output, STAGES[whole[0]]())
    return output, go(output, STAGES[whole[0]]())


# -- what a run writes -----------------------------------------------------------------------------


def test_a_run_writes_its_checkpoint(whole):
    names = {path.name for path in (whole[1] / "checkpoint").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "provenance.json"} <= names


def test_a_run_writes_its_result(whole):
    result = json.loads((whole[1] / "result.json").read_text())
    assert result["iterations"] == ITERATIONS and result["wall_s"] > 0
    assert {"commit", "seed", "config", "config_hash", "hardware", "versions"} <= set(result)


def test_a_run_writes_a_row_an_iteration(whole):
    assert [float(row["iteration"]) for row in rows(whole[1])] == [0, 1, 2, 3, 4, 5]


def test_a_finished_run_needs_no_resumable_checkpoint(whole):
    assert not list((whole[1] / "resumable").iterdir())


def test_training_moves_the_weights(whole):
    start = random_janus().janus.state_dict()
    after = weights(whole[1])
    assert not torch.equal(start["lm_head.weight"], after["lm_head.weight"])


# -- once is enough --------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    """A run of one iteration."""
    go(tmp_path, sft(1))
    return tmp_path


def test_a_finished_run_is_not_repeated(finished):
    assert go(finished, sft(1)) == []


def test_another_configuration_is_trained(finished):
    assert go(finished, sft(1), iterations=1) == [0]


def test_a_lost_checkpoint_is_made_again(finished):
    shutil.rmtree(finished / "checkpoint")
    assert go(finished, sft(1)) == [0]


def test_other_weights_to_start_from_are_trained(tmp_path):
    start = tmp_path / "start"
    start.mkdir()
    (start / "model.safetensors").write_bytes(b"one")
    model = {"checkpoint": str(start)}
    assert go(tmp_path, sft(1), model=model) == [0]
    assert go(tmp_path, sft(1), model=model) == []
    (start / "model.safetensors").write_bytes(b"two")
    assert go(tmp_path, sft(1), model=model) == [0]


# -- killed and started again ----------------------------------------------------------------------


def test_a_killed_run_goes_on_from_its_checkpoint(resumed):
    assert resumed[1] == [3, 4, 5]


def test_a_killed_run_ends_with_the_very_same_weights(whole, resumed):
    assert same(weights(whole[1]), weights(resumed[0]))


def test_a_killed_run_tells_all_its_iterations(resumed):
    assert json.loads((resumed[0] / "result.json").read_text())["iterations"] == ITERATIONS


def test_metrics_of_a_killed_run_are_those_of_a_whole_one(whole, resumed):
    one, other = (
        [{k: v for k, v in row.items() if not k.endswith("_s")} for row in rows(output)]
        for output in (whole[1], resumed[0])
    )
    assert one == other


def test_seconds_before_the_kill_count(tmp_path, monkeypatch):
    go_and_die(tmp_path, sft())
    (place,) = resumables(tmp_path)
    state = torch.load(place / STATE, weights_only=True)
    state["callbacks"]["Resumable"]["wall_s"] = 1000.0
    snapshots = Snapshots(place.parent)
    snapshots.begin(3)
    torch.save(state, snapshots.beside(3))
    snapshots.seal(3)
    snapshots.publish(3)
    go(tmp_path, sft())
    assert json.loads((tmp_path / "result.json").read_text())["wall_s"] > 1000


def test_dropout_goes_on_as_well(tmp_path):
    folders = tmp_path / "whole", tmp_path / "killed"
    stages = [sft(policy=noisy_janus) for _ in range(3)]
    go(folders[0], stages[0])
    go_and_die(folders[1], stages[1])
    torch.rand(7)
    go(folders[1], stages[2])
    assert same(stages[0].policy.state_dict(), stages[2].policy.state_dict())


def test_checkpoints_count_iterations_not_steps(tmp_path):
    go_and_die(tmp_path, grpo(updates=2), at=4)  # 2 optimiser steps an iteration
    assert go(tmp_path, grpo(updates=2)) == [3, 4, 5]


def test_a_checkpoint_never_runs_ahead_of_the_metrics(tmp_path, monkeypatch):
    ahead, count = [], Stage.on_train_batch_end

    def look(stage, *arguments):  # Lightning calls this one behind all callbacks
        if found := resumables(tmp_path):
            saved = torch.load(found[-1] / STATE, weights_only=True)["iteration"]
            ahead.append(saved - len(rows(tmp_path)))
        count(stage, *arguments)

    monkeypatch.setattr(Stage, "on_train_batch_end", look)
    go(tmp_path, sft(), every=1)
    assert ahead == [0, 0, 0, 0, 0, -1]  # the last iteration needs no checkpoint


def test_no_checkpoints_are_made_where_none_are_wanted(tmp_path):
    go_and_die(tmp_path, sft(), every=0)
    assert not (tmp_path / "resumable").exists()


def test_an_interrupt_is_a_kill_like_others(tmp_path):
    with pytest.raises(SystemExit):  # so Lightning ends an interrupted run
        go(tmp_path, sft(), Killer(4, KeyboardInterrupt))
    assert go(tmp_path, sft()) == [3, 4, 5]


def test_another_configuration_does_not_go_on(tmp_path):
    go_and_die(tmp_path, sft())
    assert go(tmp_path, sft(), seed=1) == [0, 1, 2, 3, 4, 5]


def test_another_configuration_keeps_no_rows(tmp_path):
    go_and_die(tmp_path, sft())
    go(tmp_path, sft(1), seed=1)
    assert len(rows(tmp_path)) == 1


def damage(place):
    """One bit of a weight flips, which torch would load."""
    content = bytearray((place / STATE).read_bytes())
    content[len(content) // 2] ^= 1
    (place / STATE).write_bytes(content)


def test_a_broken_checkpoint_means_a_new_start(tmp_path, caplog):
    go_and_die(tmp_path, sft())
    (place,) = resumables(tmp_path)
    damage(place)
    assert go(tmp_path, sft()) == [0, 1, 2, 3, 4, 5]
    assert f"{place} is broken" in caplog.text


def test_a_broken_last_checkpoint_falls_back_to_the_one_before(whole, tmp_path, caplog):
    stage = STAGES[whole[0]]
    go_and_die(tmp_path, stage(), every=2)
    assert [place.name for place in resumables(tmp_path)] == ["000002", "000004"]
    damage(resumables(tmp_path)[-1])
    assert go(tmp_path, stage(), every=2) == [2, 3, 4, 5]
    assert "another checksum); trying iteration 2" in caplog.text
    assert same(weights(whole[1]), weights(tmp_path))
    assert [float(row["iteration"]) for row in rows(tmp_path)] == [0, 1, 2, 3, 4, 5]


def test_the_last_two_checkpoints_are_kept(tmp_path):
    go_and_die(tmp_path, sft(), every=1)
    assert [place.name for place in resumables(tmp_path)] == ["000004", "000005"]


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    go_and_die(tmp_path, sft())
    half = resumables(tmp_path)[0].parent / "000005.tmp"
    half.mkdir()
    go_and_die(tmp_path, sft(), at=4)
    assert not half.exists()


def test_skipped_steps_go_on_being_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.base, "SKIP_LIMIT", 4)
    broken = [sft(policy=lambda: hopeless(random_janus())) for _ in range(2)]
    go_and_die(tmp_path, broken[0], at=3, every=1)  # goes on from 2, with 2 skipped
    with pytest.raises(TrainingError, match="of 4 in a row was finite.* at iteration 3"):
        go(tmp_path, broken[1], every=1)


class Infinite(WarmupSFT):
    """A loss that is infinite, with a gradient that is not."""

    def _losses(self, gold, totals):
        for loss in super()._losses(gold, totals):
            yield loss + float("inf")


def test_an_infinite_loss_moves_nothing(tmp_path):
    stage = Infinite(random_janus, OPTIMISATION, ITERATIONS, seed=0)
    before = random_janus().state_dict()
    with pytest.raises(TrainingError, match=r"a loss of inf and a gradient of \d"):
        go(tmp_path, stage)
    assert same(before, stage.policy.state_dict())
    assert [row["skipped_steps"] for row in rows(tmp_path)] == ["1.0", "2.0", "3.0", "4.0"]


def hopeless(policy):
    """A policy whose losses are NaN."""
    with torch.no_grad():
        policy.janus.model.language_model.norm.weight.fill_(float("nan"))
    return policy


def test_a_full_disk_leaves_the_previous_resumable_checkpoint(tmp_path):
    go_and_die(tmp_path, sft())
    (place,) = resumables(tmp_path)
    size = (place / STATE).stat().st_size
    with files_of_at_most(size // 2), pytest.raises(StorageError) as caught:
        go(tmp_path, sft(), every=1)
    said = str(caught.value)
    assert f"{place.parent} failed (File too large); that of iteration 3 is intact" in said
    assert [path.name for path in place.parent.iterdir() if path.is_dir()] == ["000003"]
    assert go(tmp_path, sft()) == [3, 4, 5]


@contextlib.contextmanager
def files_of_at_most(size):
    """The kernel refuses to let a file grow beyond, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
