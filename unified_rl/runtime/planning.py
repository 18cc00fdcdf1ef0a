"""Everything that a pipeline will run, composed before any of it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.explaining import one_line
from unified_rl.runtime.phases import Phase


@dataclass(frozen=True)
class Plan:
    """What is to be done for one phase.

    Attributes:
        phase: which.
        folder: its own.
        checkpoint: the weights that it makes, or that it scores.
        training: configuration of `train`, None where it does not train.
        merging: configuration of `merge`, None where it does not merge.
        preferring: configuration of `prefer`, None where it makes no preferences.
        pairs: folder of the preferences that it trains on, None where it trains on other data.
        scoring: configuration of `evaluate`, None where it is not scored.
    """

    phase: Phase
    folder: Path
    checkpoint: Path
    training: DictConfig | None
    merging: DictConfig | None
    preferring: DictConfig | None
    pairs: Path | None
    scoring: DictConfig | None


def plan(config: DictConfig, phases: Sequence[Phase], root: Path, source: str) -> list[Plan]:
    """Composes what each phase runs, so that mistakes in the last show before the first is run.

    Args:
        config: composed from `conf/pipeline.yaml`.
        phases: to be run, each after those that it needs.
        root: folder of the pipeline; each phase has a folder of its name in it.
        source: the pipeline's file, for messages.

    Raises:
        ConfigError: Hydra refuses a setting, or there is no checkpoint to start from.
    """
    own, given = _own_checkpoint(config, source), Path(config.start) if config.start else None
    checkpoints: dict[str, Path] = {}
    plans = []
    for phase in phases:
        folder, where = root / phase.name, f"{source}, phase {phase.name!r}"
        # what a first training phase starts from is for its experiment to say
        start = checkpoints[phase.start] if phase.start else given
        checkpoint = folder / "checkpoint" if phase.makes_weights else start or own
        if checkpoint is None:
            raise ConfigError(
                f"{where} has no checkpoint: choose.model={config.choose.model} starts from random "
                "weights; give start=FOLDER"
            )
        checkpoints[phase.name] = checkpoint
        training = merging = preferring = scoring = None
        pairs = preferences_of(root, phase.pairs) if phase.pairs else None
        if phase.experiment:
            training = _composed("train", _training(config, phase, folder, start, pairs), where)
            if str(training.trainer.devices) != "1":
                raise ConfigError(
                    f"{where}: trainer.devices={training.trainer.devices}, but a pipeline trains "
                    "in one process; run its phases by python -m unified_rl.train"
                )
        if phase.merge:
            merging = _composed("merge", _merging(config, phase, checkpoint, checkpoints), where)
            if "base" in OmegaConf.missing_keys(merging):
                raise ConfigError(f"{where}: merge.rule={phase.merge.rule} needs merge.base")
        if phase.prefer:
            preferring = _composed("prefer", _preferring(config, phase, root, start), where)
        if phase.evaluate:
            scoring = _composed("evaluate", _scoring(config, phase, folder, checkpoint), where)
        plans.append(Plan(phase, folder, checkpoint, training, merging, preferring, pairs, scoring))
    return plans


def preferences_of(root: Path, name: str) -> Path:
    """Where the phase of that name leaves its preferences."""
    return root / name / "preferences"


def suite_of(config: DictConfig) -> str:
    """The option of `conf/suite` that scores this pipeline's model."""
    suite = config.pipeline.suite
    return _for_model(config).get("suites", {}).get(suite, suite)


def _own_checkpoint(config: DictConfig, source: str) -> Path | None:
    """The weights that come with the model; None where it starts from random ones."""
    asked = [f"model={config.choose.model}", f"paths.assets='{config.paths.assets}'"]
    model = _composed("evaluate", asked, source).model
    if config.start:
        return None
    if OmegaConf.is_missing(model, "checkpoint"):
        raise ConfigError(
            f"choose.model={config.choose.model} has no weights of its own; give start=FOLDER, a "
            "checkpoint of it"
        )
    return Path(model.checkpoint) if model.checkpoint else None


def _training(
    config: DictConfig, phase: Phase, folder: Path, start: Path | None, pairs: Path | None
) -> list[str]:
    rung = config.choose.rung
    name = "-".join(part for part in (phase.name, rung, f"seed{config.seed}") if part)
    return [
        f"experiment={phase.experiment}",
        *_common(config, folder, start),
        f"logger.group={config.pipeline.name}-{config.choose.model}",
        f"logger.name={name}",
        *([f"rung={rung}"] if rung else []),
        *([f"data.sources.preferences.path='{pairs}'"] if pairs else []),
        *_for_model(config).get(phase.experiment, []),
        *phase.overrides,
        *config.overrides,
    ]


def _merging(
    config: DictConfig, phase: Phase, output: Path, checkpoints: Mapping[str, Path]
) -> list[str]:
    listed = ",".join(f"'{checkpoints[name]}'" for name in phase.merge.of)
    overrides = [f"rule={phase.merge.rule}", f"checkpoints=[{listed}]", f"output='{output}'"]
    if phase.merge.base is not None:
        overrides.append(f"base='{checkpoints[phase.merge.base]}'")
    return [*overrides, f"paths.assets='{config.paths.assets}'", *phase.overrides]


def _preferring(config: DictConfig, phase: Phase, root: Path, start: Path | None) -> list[str]:
    previous = phase.prefer.previous
    return [
        *_common(config, preferences_of(root, phase.name), start),
        f"count={phase.prefer.count}",
        *([f"previous='{preferences_of(root, previous)}'"] if previous else []),
        *_for_model(config).get("prefer", []),
        *phase.overrides,
    ]


def _scoring(config: DictConfig, phase: Phase, folder: Path, checkpoint: Path) -> list[str]:
    return [
        f"suite={suite_of(config)}",
        *_common(config, folder, checkpoint),
        *(phase.overrides if phase.only_scores else ()),
        *config.evaluation_overrides,
    ]


def _common(config: DictConfig, folder: Path, checkpoint: Path | None) -> list[str]:
    overrides = [f"model={config.choose.model}", f"seed={config.seed}", f"threads={config.threads}"]
    overrides += [f"paths.output='{folder}'", f"paths.assets='{config.paths.assets}'"]
    if checkpoint is not None:
        overrides.append(f"model.checkpoint='{checkpoint}'")
    return overrides


def _for_model(config: DictConfig) -> Mapping[str, Any]:
    return config.for_model.get(config.choose.model, {})


def _composed(name: str, overrides: list[str], where: str) -> DictConfig:
    try:
        return compose(name, overrides)
    except Exception as error:  # nothing but settings and YAML files is at work here
        line = one_line(error).partition(" Config search path:")[0]
        raise ConfigError(f"{where}: {line}") from error
