"""Asked to stop, a run saves first; the same command goes on from there."""

import os
import signal

import lightning
import pytest

from tests.runtime.runs import ITERATIONS, go, sft
from tests.runtime.test_training import rows, same, weights
from unified_rl.runtime.preemption import Stopped


class Signals(lightning.Callback):
    """Sends signals to this process at the start of an iteration (from 0)."""

    def __init__(self, at, *numbers):
        self.at, self.numbers = at, numbers

    def on_train_batch_start(self, trainer, stage, batch, batch_idx):
        if stage.iteration == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)


def stopped(output, at, *numbers, **settings):
    """The code of a run that is sent signals."""
    with pytest.raises(Stopped) as caught:
        go(output, sft(), Signals(at, *numbers), **settings)
    return caught.value.code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_asked_to_stop_saves_first(tmp_path, capfd, number, code):
    go(tmp_path / "whole", sft())
    output = tmp_path / "stopped"
    assert stopped(output, 3, number) == code  # its own checkpoint is that of iteration 3
    said = capfd.readouterr().err
    assert f"{number.name}: finishing this iteration, then saving" in said
    assert (
        f"stopped by {number.name} after 4 of {ITERATIONS} iterations; the same command goes on "
        "from there" in said
    )
    assert go(output, sft()) == [4, 5]
    assert same(weights(tmp_path / "whole"), weights(output))
    assert [float(row["iteration"]) for row in rows(output)] == [0, 1, 2, 3, 4, 5]


def test_signals_are_given_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    stopped(tmp_path, 1, signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_in_the_last_iteration_the_run_is_finished_first(tmp_path, capfd):
    assert stopped(tmp_path, ITERATIONS - 1, signal.SIGTERM) == 143
    assert "stopped by SIGTERM after the last iteration" in capfd.readouterr().err
    assert (tmp_path / "result.json").is_file()
    assert go(tmp_path, sft()) == []


def test_without_checkpoints_nothing_is_promised(tmp_path, capfd):
    assert stopped(tmp_path, 2, signal.SIGTERM, every=0) == 143
    assert "the same command begins anew, as checkpoint_every=0" in capfd.readouterr().err
    assert go(tmp_path, sft(), every=0) == [0, 1, 2, 3, 4, 5]


def test_a_second_interrupt_ends_at_once(tmp_path):
    with pytest.raises(SystemExit) as caught:  # so Lightning ends an interrupted run
        go(tmp_path, sft(), Signals(4, signal.SIGINT, signal.SIGINT))
    assert isinstance(caught.value.__context__, KeyboardInterrupt)
    assert go(tmp_path, sft()) == [3, 4, 5]


def test_a_second_sigterm_changes_nothing(tmp_path):
    assert stopped(tmp_path, 3, signal.SIGTERM, signal.SIGTERM) == 143
    assert go(tmp_path, sft()) == [4, 5]


def test_sigterm_before_the_first_iteration_stops_there(tmp_path, capfd, monkeypatch):
    listen = lightning.pytorch.trainer.connectors.signal_connector._SignalConnector
    register = listen.register_signal_handlers

    def register_and_hear(connector):
        register(connector)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(listen, "register_signal_handlers", register_and_hear)
    with pytest.raises(Stopped) as caught:
        go(tmp_path, sft())
    assert caught.value.code == 143
    assert "stopped by SIGTERM before the first iteration" in capfd.readouterr().err
