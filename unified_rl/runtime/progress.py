"""Progress bars with an estimate of the time left, quiet where nobody watches."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager

from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from tqdm import tqdm


class _StageBar(TQDMProgressBar):
    def __init__(self, label: str, refresh_rate: int) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._label = label

    def on_train_epoch_start(self, trainer, pl_module) -> None:  # noqa: ANN001 (Lightning's types)
        super().on_train_epoch_start(trainer, pl_module)
        self.train_progress_bar.set_description(self._label)

    def get_metrics(self, trainer, pl_module) -> dict:  # noqa: ANN001 (Lightning's types)
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


def progress_bar(label: str) -> Callback:
    """Lightning's bar; refreshed rarely where the output is a file, so that logs stay short."""
    return _StageBar(label, refresh_rate=1 if sys.stderr.isatty() else 20)


@contextmanager
def counting(label: str, delay_s: float = 0) -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar for loops that report (done, total); none for those that take less than the delay."""
    interval = 0.1 if sys.stderr.isatty() else 10
    with tqdm(desc=label, dynamic_ncols=True, mininterval=interval, delay=delay_s) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update
