"""What a run keeps of itself, what it warns of, and when it is given up."""

import json
import logging
from collections import namedtuple

import lightning
import pytest
import torch
from safetensors.torch import load_file

from tests.runtime.runs import OPTIMISATION, go, grpo, random_janus, sft
from tests.runtime.test_training import go_and_die, same, weights
from unified_rl.core.errors import ConfigError, TrainingError
from unified_rl.data.microworld import DrawingSource
from unified_rl.runtime import disk_space
from unified_rl.runtime.disk_space import DiskSpace
from unified_rl.runtime.survival import Survival
from unified_rl.stages.image_codec import ImageCodec


class Says(lightning.Callback):
    """Logs a metric of given values in the place of the stage's own."""

    def __init__(self, name, *values):
        self.name, self.values = name, values

    def on_train_batch_start(self, trainer, stage, batch, batch_idx):
        report, value = type(stage).report, self.values[stage.iteration]
        stage.report = lambda metrics: report(stage, {**metrics, self.name: value})


def best(output):
    return json.loads((output / "best" / "provenance.json").read_text())


# -- the best policy -------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "iterations", "mean"), [("max", 4, 5.0), ("min", 2, 1.5)])
def test_the_best_policy_is_kept(tmp_path, mode, iterations, mean):
    # means of two: (1 + 2) / 2, (3 + 7) / 2, (4 + 4) / 2
    says = Says("score", 1.0, 2.0, 3.0, 7.0, 4.0, 4.0)
    go(tmp_path, sft(), says, every=2, survival=Survival(best="score", best_mode=mode))
    found = best(tmp_path)
    assert (found["metric"], found["mean"], found["iterations"]) == ("score", mean, iterations)
    assert not same(load_file(tmp_path / "best" / "model.safetensors"), weights(tmp_path))


def test_the_last_policy_may_be_the_best(tmp_path):
    says = Says("score", 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    go(tmp_path, sft(), says, every=4, survival=Survival(best="score"))
    assert (best(tmp_path)["mean"], best(tmp_path)["iterations"]) == (5.5, 6)
    assert same(load_file(tmp_path / "best" / "model.safetensors"), weights(tmp_path))


def test_a_killed_run_goes_on_comparing(tmp_path):
    # best after 2; the kill comes in iteration 3, and later means are worse
    says = Says("score", 9.0, 9.0, 3.0, 7.0, 4.0, 4.0)
    survival = Survival(best="score")
    with pytest.raises(RuntimeError):
        go(tmp_path, sft(), says, Fall(3), every=2, survival=survival)
    assert go(tmp_path, sft(), says, every=2, survival=survival) == [2, 3, 4, 5]
    assert best(tmp_path)["iterations"] == 2


class Fall(lightning.Callback):
    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, stage, outputs, batch, batch_idx):
        if stage.iteration == self.at:
            raise RuntimeError


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path):
    says = Says("score", *[float("nan")] * 2, *[1.0] * 4)
    go(tmp_path, sft(), says, every=2, survival=Survival(best="score"))
    assert best(tmp_path)["iterations"] == 4


def test_a_metric_that_is_not_logged_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"survival.best=los is not logged; .*'loss'"):
        go(tmp_path, sft(), survival=Survival(best="los"))


def test_half_a_policy_is_never_the_best(tmp_path):
    stage = ImageCodec(random_janus, OPTIMISATION, iterations=2, seed=0)
    sources = {"drawing": DrawingSource("train")}
    with pytest.raises(ConfigError, match="does not go with stage=image_codec"):
        go(tmp_path, stage, sources=sources, survival=Survival(best="loss"))


# -- checkpoints that stay -------------------------------------------------------------------------


def test_checkpoints_of_every_so_many_iterations_stay(tmp_path):
    go(tmp_path, sft(), every=1, survival=Survival(keep_every=2))
    assert [path.parent.name for path in sorted(tmp_path.glob("resumable/*/*/state.ckpt"))] == [
        "000002",
        "000004",
    ]


# -- divergence ------------------------------------------------------------------------------------


def test_a_policy_that_runs_away_is_given_up(tmp_path, caplog):
    says = Says("kl", 0.1, 3.0, 0.1, 3.0, 4.0, 5.0)
    with pytest.raises(
        TrainingError, match="limit=2.0 for 2 iterations in a row, 4 at iteration 4"
    ):
        go(tmp_path, sft(), says, survival=Survival(divergence_limit=2.0, divergence_patience=2))
    assert caplog.text.count("is above survival.divergence_limit=2") == 2  # once a spell


def test_patience_of_none_only_warns(tmp_path, caplog):
    survival = Survival(divergence_limit=2.0, divergence_patience=0)
    go(tmp_path, sft(), Says("kl", *[3.0] * 6), survival=survival)
    assert caplog.text.count("is above") == 1


def test_an_unknown_divergence_is_too_large(tmp_path):
    survival = Survival(divergence_patience=3)
    with pytest.raises(TrainingError, match="3 iterations in a row, nan at iteration 2"):
        go(tmp_path, sft(), Says("kl", *[float("nan")] * 6), survival=survival)


def test_a_killed_run_goes_on_counting(tmp_path):
    says, survival = Says("kl", *[30.0] * 6), Survival(divergence_patience=4)
    with pytest.raises(RuntimeError):
        go(tmp_path, sft(), says, Fall(2), every=1, survival=survival)
    with pytest.raises(TrainingError, match="for 4 iterations in a row, 30 at iteration 3"):
        go(tmp_path, sft(), says, every=1, survival=survival)


def test_another_limit_goes_on_with_the_same_run(tmp_path):
    says = Says("kl", 0.0, 0.0, *[30.0] * 4)
    with pytest.raises(TrainingError):
        go(tmp_path, sft(), says, every=1, survival=Survival(divergence_patience=2))
    assert go(tmp_path, sft(), says, every=1, survival=Survival(divergence_limit=99.0)) == [3, 4, 5]


def test_a_healthy_run_is_left_alone(tmp_path, caplog):
    go(tmp_path, grpo(2), survival=Survival())
    assert "divergence" not in caplog.text


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"keep_every": -1},
        {"best_mode": "most"},
        {"divergence_limit": -1.0},
        {"divergence_limit": float("nan")},
        {"divergence_patience": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=f"survival.{name}="):
        Survival(**settings)


@pytest.mark.parametrize(
    ("settings", "every"), [({"keep_every": 5}, 2), ({"keep_every": 5}, 0), ({"best": "loss"}, 0)]
)
def test_keeping_what_is_never_saved_is_refused(tmp_path, settings, every):
    with pytest.raises(ConfigError, match=f"checkpoint_every={every}"):
        go(tmp_path, sft(), every=every, survival=Survival(**settings))


# -- the disk --------------------------------------------------------------------------------------

Usage = namedtuple("Usage", "free")


def test_a_disk_that_is_nearly_full_is_warned_of_once(tmp_path, monkeypatch, caplog):
    free = iter([20e9, 19e9, 19e9, 30e9, 19e9])
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda folder: Usage(next(free)))
    space = DiskSpace(tmp_path / "not" / "yet" / "there")
    # two checkpoints of 10 GB have to fit
    assert [space.check(10 * 10**9) for _ in range(5)] == [True, False, False, True, False]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "has 19 GB left, and a checkpoint takes 10 GB; free some space" in said[0]


def test_a_run_looks_at_the_disk_before_it_trains(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda folder: Usage(1000))
    stage = sft()
    with caplog.at_level(logging.WARNING):
        go_and_die(tmp_path, stage, at=0)
    trained = sum(p.nbytes for p in stage.policy.parameters() if p.requires_grad)
    frozen = sum(p.nbytes for p in stage.policy.parameters() if not p.requires_grad)
    assert f"a checkpoint takes {(3 * trained + frozen) / 1e9:.3g} GB" in caplog.text


def test_the_estimate_is_near_the_truth(tmp_path):
    stage = sft()
    go_and_die(tmp_path, stage)
    (state,) = tmp_path.glob("resumable/*/*/state.ckpt")
    estimate = sum(p.nbytes * (3 if p.requires_grad else 1) for p in stage.policy.parameters())
    assert estimate == pytest.approx(state.stat().st_size, rel=0.2)
    assert torch.load(state, weights_only=True)["iteration"] == 3
