"""One step of any experiment on the CPU, with small stand-ins for all that has to be downloaded."""

import csv
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf, open_dict

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.dry_run.change import Changes, lines
from unified_rl.runtime.dry_run.endpoint import scoring_endpoint
from unified_rl.runtime.dry_run.judges import replace_judges
from unified_rl.runtime.dry_run.models import replace_model
from unified_rl.runtime.dry_run.rows import replace_data

_SHOWN = ("loss", "gradient_norm", "reward", "kl", "replay_error")
"""Metrics of the step that are told, where it has them."""


@dataclass(frozen=True)
class Rehearsal:
    """How small the step is.

    Attributes:
        model: name of the published model, as in `conf/model`; its sizes are what is sized.
        batch_size: most prompts of the step.
        max_text_tokens: most tokens of an answer.
        image_step_count: most steps in which a mask-predicting family draws.
    """

    model: str
    batch_size: int = 2
    max_text_tokens: int = 8
    image_step_count: int = 3

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_text_tokens", "image_step_count"):
            if getattr(self, name) < 1:
                raise ConfigError(f"dry_run.{name}={getattr(self, name)} must be at least 1")


def rehearse(config: DictConfig, train: Callable[[DictConfig], Path]) -> Iterator[str]:
    """Composed already, an experiment is sized and one step of it is trained.

    What has no small stand-in is built as the experiment says. Nothing is kept.

    Args:
        config: of an experiment with `+debug=dry`; changed.
        train: trains what a configuration says.

    Yields:
        Lines for people: the sizes, what stands in for what, and what the step gave.

    Raises:
        ConfigError: something is to be downloaded of which nothing small is known.
    """
    from hydra.utils import instantiate

    from unified_rl.runtime.dry_run import sizing
    from unified_rl.runtime.quiet import quieten

    quieten()
    settings: Rehearsal = instantiate(config.dry_run)
    changes = Changes(config)
    with tempfile.TemporaryDirectory(prefix="dry_run_") as name, scoring_endpoint() as endpoint:
        folder = Path(name)
        specimen = replace_model(changes, folder)
        replace_judges(changes, folder, endpoint)
        replace_data(changes, folder, specimen)
        yield from sizing.lines(config, settings.model)
        _shrink(changes, settings, folder)
        yield "in the step below:"
        yield from lines(changes.made, folder)
        started = time.perf_counter()
        for source in instantiate(config.data, _convert_="all").sources.values():
            source.draw(np.random.default_rng(config.seed))  # a batch this small leaves some out
        checkpoint = train(config)
        figures = _last_row(checkpoint.parent / "metrics" / "metrics.csv")
        told = [f"{key} {float(figures[key]):.3g}" for key in _SHOWN if figures.get(key)]
        seconds = time.perf_counter() - started
        yield f"one step in {seconds:.1f} s: {', '.join(told)}"


def _shrink(changes: Changes, settings: Rehearsal, folder: Path) -> None:
    """One small step of one process on the CPU."""
    config = changes.config
    changes.set("iterations", 1)
    changes.set("data.batch_size", min(config.data.batch_size, settings.batch_size))
    limits = {
        "max_text_tokens": settings.max_text_tokens,
        "image_step_count": settings.image_step_count,
        "replayed_step_count": settings.image_step_count,
        "frozen_step_count": settings.image_step_count,
    }
    for name, limit in limits.items():
        if config.behaviour.get(name, 0) > limit:
            changes.set(f"behaviour.{name}", limit)
    changes.set("model.dtype", "float32")
    if config.adapter.kind == "qlora":
        changes.set("adapter.kind", "lora", "lora, as 4 bit need a GPU")
    changes.set("trainer.accelerator", "cpu")
    changes.set("trainer.devices", 1)
    for name in ("num_nodes", "precision"):
        if name in config.trainer:
            changes.set(f"trainer.{name}", {"num_nodes": 1, "precision": "32-true"}[name])
    target = "unified_rl.runtime.strategies.replicated.single"
    if config.strategy["_target_"] != target:
        changes.swap("strategy", {"_target_": target, "devices": 1}, "single")
    changes.set("logger.mode", "disabled")
    with open_dict(config):
        config.sample_every = config.checkpoint_every = 0
        config.survival.best = None
        config.paths.output = str(folder / "run")
        del config.dry_run  # which is no part of a run
    OmegaConf.resolve(config)


def _last_row(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))[-1]
