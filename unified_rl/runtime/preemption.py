"""Being asked to stop: a run first finishes its iteration and saves."""

import signal
import sys
import threading
from types import FrameType
from typing import Any

import lightning

_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""128 and the signal's number, as a shell has it."""


class Stopped(SystemExit):
    """The end of a run that was asked to stop; its code is 143 after SIGTERM, 130 after SIGINT."""


class StopRequest(lightning.Callback):
    """Hears SIGTERM and SIGINT (Ctrl-C) while a run trains; whoever saves asks it what to do.

    A second SIGINT ends the run at once. Lightning's own way with SIGTERM would end the run after
    the iteration without saving; this one takes its place.

    Attributes:
        received: the first signal that came; None while none has.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Listens from here on; Lightning gives the signals back when it is done.

        Raises:
            Stopped: SIGTERM came since Lightning listens, before the first iteration.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _CODES:
            signal.signal(number, self._hear)
        if trainer.received_sigterm:
            self.received = signal.SIGTERM
            self.stop("before the first iteration")

    def is_raised(self, trainer: lightning.Trainer) -> bool:
        """Whether any rank was asked to stop; every rank has to ask at the same place."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def stop(self, where: str, saved: bool = True) -> None:
        """Says where the run stopped and how it goes on.

        Args:
            where: in the run.
            saved: whether it can go on from there.

        Raises:
            Stopped: always.
        """
        number = self.received or signal.SIGTERM  # another rank heard it
        way = "goes on from there" if saved else "begins anew, as checkpoint_every=0"
        print(f"stopped by {number.name} {where}; the same command {way}", file=sys.stderr)
        raise Stopped(_CODES[number])

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = signal.Signals(number)
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        print(
            f"\n{self.received.name}: finishing this iteration, then saving{again}",
            file=sys.stderr,
            flush=True,
        )
