"""Where a run's numbers and pictures go: CSV always, W&B offline unless asked otherwise."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning
import wandb
from lightning.pytorch.loggers import Logger, WandbLogger

from unified_rl.core.durable import write_text
from unified_rl.core.sample import Text
from unified_rl.core.trajectory import Rollout
from unified_rl.runtime.metrics_file import MetricsFile


def loggers(
    output: Path,
    config: Mapping[str, Any],
    mode: Literal["offline", "online", "disabled"],
    project: str,
    group: str | None = None,
    name: str | None = None,
    run_id: str | None = None,
) -> list[Logger]:
    """The loggers of a run.

    Args:
        output: folder of the run.
        config: the composed configuration.
        mode: of W&B; "disabled" leaves it out.
        project: in W&B.
        group: in W&B; runs of one pipeline or sweep share it.
        name: of the run in W&B; None takes the last two parts of `output`.
        run_id: of the run in W&B, which a killed run keeps; None takes a new one.
    """
    found: list[Logger] = [MetricsFile(output / "metrics" / "metrics.csv")]
    if mode != "disabled":
        found.append(
            WandbLogger(
                name=name or "/".join(output.parts[-2:]),
                project=project,
                group=group,
                save_dir=output,
                offline=mode == "offline",
                id=run_id,
                resume="allow" if run_id and mode == "online" else None,
                config=dict(config),
                settings=wandb.Settings(silent=True, console="off"),
            )
        )
    return found


def carry_over(loggers: Iterable[Logger], iteration: int) -> None:
    """Keeps the rows of a killed run that came before `iteration`, where it goes on."""
    for logger in loggers:
        if isinstance(logger, MetricsFile):
            logger.keep(iteration)


def run_id(path: Path) -> str:
    """The tracker's name for a run: that in the file, or a new one, which is written there."""
    known = path.read_text().strip() if path.is_file() else ""
    if not known:
        known = secrets.token_hex(6)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, known)
    return known


@contextmanager
def one_run() -> Iterator[None]:
    """Ends the W&B run with the block; else the next stage of this process would log into it."""
    try:
        yield
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


class SampleTable(lightning.Callback):
    """Logs completions of the latest rollout, with images and rewards, as a W&B table.

    Args:
        every: iterations between tables; 0 logs none.
        count: completions a table shows.
    """

    def __init__(self, every: int, count: int = 8) -> None:
        self.every, self.count = every, count

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Logs where there is something to see."""
        latest = getattr(pl_module, "latest", None)
        if not self.every or latest is None or batch_idx % self.every:
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                rollout, scores = latest
                names = list(scores.components)
                outcomes = [scores.outcome, *(scores.components[name].outcome for name in names)]
                rows = [
                    [rollout.samples[i].prompt_text, *_pictured(rollout, i)]
                    + [float(outcome[i]) for outcome in outcomes]
                    for i in range(min(self.count, len(rollout.samples)))
                ]
                table = wandb.Table(["prompt", "text", "images", "reward", *names], rows)
                histograms = {
                    f"rewards/{name}": wandb.Histogram(scores.components[name].outcome.tolist())
                    for name in names
                }
                logger.experiment.log({"samples": table, **histograms})


def _pictured(rollout: Rollout, row: int) -> tuple[str, list[wandb.Image]]:
    segments = rollout.completions[row].segments
    texts = [s.text if isinstance(s, Text) else "[image]" for s in segments]
    images = [wandb.Image(s.pixels) for s in segments if not isinstance(s, Text)]
    return " ".join(texts), images
