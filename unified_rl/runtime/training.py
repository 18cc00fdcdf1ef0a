"""Runs one stage to its end, or on from where it was killed."""

import functools
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning

from unified_rl.core.durable import write_text
from unified_rl.models import adapter_folder
from unified_rl.models.checkpoint import weights_hash, write_folder
from unified_rl.runtime.preemption import StopRequest
from unified_rl.runtime.progress import progress_bar
from unified_rl.runtime.provenance import provenance
from unified_rl.runtime.resuming import Resumable
from unified_rl.runtime.snapshots import Snapshots
from unified_rl.runtime.strategies.preflight import Preflight
from unified_rl.runtime.survival import Survival
from unified_rl.runtime.tracking import SampleTable, carry_over, one_run, run_id
from unified_rl.stages.base import Stage

_SAME_RUN = ("config_hash", "start_weights")
"""What a result has to share with a run to be its result."""


def train(
    stage: Stage,
    data: lightning.LightningDataModule,
    make_trainer: Callable[..., lightning.Trainer],
    output: Path,
    config: Mapping[str, Any],
    make_loggers: Callable[..., list],
    sample_every: int,
    checkpoint_every: int,
    label: str,
    survival: Survival,
) -> Path:
    """Trains a stage and writes its policy as a standard folder, or as an adapter's.

    Args:
        stage: what to train.
        data: what on.
        make_trainer: takes callbacks, loggers and the root folder.
        output: folder of the run.
        config: the composed configuration, for provenance.
        make_loggers: see `tracking.loggers`.
        sample_every: iterations between sample tables; 0 logs none.
        checkpoint_every: iterations between resumable checkpoints.
        label: what the progress bar says.
        survival: which checkpoints are kept, and when training is given up.

    Returns:
        The checkpoint folder, `output / "checkpoint"`. A run that is complete returns at once; one
        that was killed goes on from its last resumable checkpoint. A run of other settings, or
        from other weights, begins anew.
    """
    checkpoint, done = output / "checkpoint", output / "result.json"
    card = provenance(config, stage.seed)
    card["start_weights"] = _start_weights(config)
    name = "-".join(card[key] for key in _SAME_RUN if card[key])
    snapshots = Snapshots(output / "resumable" / name, survival.keep_every)
    if checkpoint.is_dir() and _is_result_of(card, done):
        snapshots.clear()  # where the kill came between the result and this
        return checkpoint
    output.mkdir(parents=True, exist_ok=True)
    survival.require(checkpoint_every)
    stop = StopRequest()
    resumable = Resumable(snapshots, checkpoint_every, stop)
    iteration = snapshots.last_whole()
    known = {"run_id": run_id(snapshots.folder / "run_id")} if checkpoint_every else {}
    loggers = make_loggers(output, config, **known)

    def write_policy(folder: Path, card: Mapping[str, Any]) -> None:
        with stage.plain_weights():
            if trainer.is_global_zero:
                write_folder(folder, functools.partial(adapter_folder.save, stage.policy), card)

    def keep_best(found: Mapping[str, Any]) -> None:
        write_policy(output / "best", {**card, **found})

    trainer = make_trainer(
        default_root_dir=output,
        callbacks=[
            stop,
            *survival.watchers(checkpoint_every, keep_best),
            resumable,
            Preflight(),
            progress_bar(label),
            SampleTable(sample_every),
        ],
        logger=loggers,
    )
    with one_run(), _without_false_alarms():
        if trainer.is_global_zero:
            carry_over(loggers, iteration or 0)
        saved = None if iteration is None else str(snapshots.state(iteration))
        trainer.fit(stage, data, ckpt_path=saved, weights_only=True)
    card["wall_s"] = round(resumable.wall_s, 1)
    card["iterations"] = stage.iteration
    write_policy(checkpoint, card)
    if trainer.is_global_zero:
        write_text(done, json.dumps(card, indent=2) + "\n")
        snapshots.clear()
    if stop.received is not None:
        stop.stop("after the last iteration")
    return checkpoint


def _start_weights(config: Mapping[str, Any]) -> str | None:
    """Hash of the weights that the policy starts from; None for random ones."""
    start = config.get("model", {}).get("checkpoint")
    return weights_hash(Path(start)) if start else None


def _is_result_of(card: Mapping[str, Any], path: Path) -> bool:
    if not path.is_file():
        return False
    result = json.loads(path.read_text())
    return all(result.get(key) == card[key] for key in _SAME_RUN)


@contextmanager
def _without_false_alarms() -> Iterator[None]:
    """Without Lightning's warnings of what is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # its data is
        warnings.filterwarnings("ignore", message=".*in eval mode.*")  # frozen codecs
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # a killed run's
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
        yield
