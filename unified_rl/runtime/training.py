"""Runs one stage to its end, or on from where it was killed."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint

from unified_rl.models.checkpoint import write_folder
from unified_rl.runtime.progress import progress_bar
from unified_rl.runtime.provenance import provenance
from unified_rl.runtime.tracking import SampleTable
from unified_rl.stages.base import Stage


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
) -> Path:
    """Trains a stage and writes its policy as a standard folder.

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

    Returns:
        The checkpoint folder, `output / "checkpoint"`. A run that is complete returns at once; one
        that was killed goes on from its last resumable checkpoint.
    """
    checkpoint, done = output / "checkpoint", output / "result.json"
    card = provenance(config, stage.seed)
    if done.is_file() and json.loads(done.read_text())["config_hash"] == card["config_hash"]:
        return checkpoint
    output.mkdir(parents=True, exist_ok=True)
    resumable = ModelCheckpoint(
        dirpath=output / "resumable",
        filename=f"{card['config_hash']}",
        every_n_train_steps=checkpoint_every,
        save_top_k=1,
        enable_version_counter=False,
    )
    trainer = make_trainer(
        default_root_dir=output,
        callbacks=[resumable, progress_bar(label), SampleTable(sample_every)],
        logger=make_loggers(output, config),
    )
    killed = output / "resumable" / f"{card['config_hash']}.ckpt"
    started = time.perf_counter()
    trainer.fit(stage, data, ckpt_path=str(killed) if killed.is_file() else None)
    card["wall_s"] = round(time.perf_counter() - started, 1)
    card["iterations"] = stage.iteration
    if trainer.is_global_zero:
        write_folder(checkpoint, stage.policy.save, card)
        beside = done.with_suffix(".tmp")
        beside.write_text(json.dumps(card, indent=2) + "\n")
        beside.rename(done)
    return checkpoint
