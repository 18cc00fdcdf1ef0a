"""Chains stages: each phase starts from the checkpoint of the one before; done ones are skipped."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.cli import run
from unified_rl.runtime.output import settle_output


def main(config: DictConfig) -> int:
    """Runs the phases of a pipeline and prints where its results are.

    Args:
        config: composed from `conf/pipeline.yaml`.
    """
    from unified_rl.runtime.quiet import quieten
    from unified_rl.runtime.summary import write_summary
    from unified_rl.runtime.tables import print_scores

    quieten()
    _require_start(config)
    root = settle_output(config)
    checkpoint = Path(config.start) if config.start else None
    records: dict[str, dict[str, Any]] = {}
    for number, phase in enumerate(config.pipeline.phases, start=1):
        print(f"[{number}/{len(config.pipeline.phases)}] {phase.name}", file=sys.stderr, flush=True)
        records[phase.name] = record = {"checkpoint": checkpoint}
        if phase.get("experiment"):
            started = time.perf_counter()
            checkpoint = _train(config, phase, root / phase.name, checkpoint)
            record |= {"checkpoint": checkpoint, "train_s": time.perf_counter() - started}
        if phase.get("evaluate"):
            record |= _evaluate(config, phase, root / phase.name, checkpoint)
    summary = write_summary(root, records, OmegaConf.to_container(config, resolve=True))
    scored = {name: r["evaluation"] for name, r in records.items() if "evaluation" in r}
    if scored:
        print_scores(scored)
    print(f"summary: {summary}")
    if config.pipeline.publish:
        _publish(config, records)
    if config.pipeline.report:
        from unified_rl.runtime.report import write_report

        print(f"report:  {write_report(root)}")
    return 0


def _require_start(config: DictConfig) -> None:
    """Refuses a model without weights of its own where nothing says what to start from."""
    composed = compose("evaluate", [f"model={config.choose.model}"])
    if not config.start and OmegaConf.is_missing(composed.model, "checkpoint"):
        raise ConfigError(
            f"choose.model={config.choose.model} has no weights of its own; give start=FOLDER, a "
            "checkpoint of it"
        )


def _train(config: DictConfig, phase: DictConfig, folder: Path, checkpoint: Path | None) -> Path:
    from unified_rl.train import train_from

    overrides = [f"experiment={phase.experiment}", *_common(config, folder, checkpoint)]
    overrides.append(f"logger.group={config.pipeline.name}")
    if config.choose.rung:
        overrides.append(f"rung={config.choose.rung}")
    overrides += [*_of_model(config, phase.experiment, [])]
    overrides += [*phase.get("overrides", []), *config.overrides]
    return train_from(compose("train", overrides), label=phase.name)


def _evaluate(
    config: DictConfig, phase: DictConfig, folder: Path, checkpoint: Path | None
) -> dict[str, Any]:
    """Scores and seconds; read back where the same checkpoint was scored the same way before."""
    from unified_rl.evaluate import evaluate_from
    from unified_rl.models.checkpoint import weights_hash
    from unified_rl.runtime.provenance import config_hash

    overrides = [f"suite={_suite(config)}", *_common(config, folder, checkpoint)]
    overrides += config.evaluation_overrides
    composed = compose("evaluate", overrides)
    key = config_hash(OmegaConf.to_container(composed, resolve=True))
    key += weights_hash(Path(composed.model.checkpoint))
    written, stamp = folder / "evaluation.json", folder / "evaluation.key"
    if not (written.is_file() and stamp.is_file() and stamp.read_text().startswith(key)):
        started = time.perf_counter()
        evaluate_from(composed, label=f"{phase.name}: evaluate")
        stamp.write_text(f"{key} {time.perf_counter() - started}")
    seconds = float(stamp.read_text().split()[1])
    return {"evaluation": json.loads(written.read_text()), "evaluate_s": seconds}


def _publish(config: DictConfig, records: dict[str, dict[str, Any]]) -> None:
    """Makes the last phase's checkpoint the asset that `model` loads by default."""
    from unified_rl.runtime.model_card import publish

    last = list(records.values())[-1]
    asset = Path(config.paths.assets) / config.choose.model
    command = f"make {config.pipeline.name} MODEL={config.choose.model}"
    train_s = sum(record.get("train_s", 0.0) for record in records.values())
    publish(last["checkpoint"], asset, command, last["evaluation"], _suite(config), train_s)
    print(f"asset:   {asset}")


def _of_model(config: DictConfig, name: str, otherwise: Any) -> Any:
    """What `for_model` says of this model."""
    return config.for_model.get(config.choose.model, {}).get(name, otherwise)


def _suite(config: DictConfig) -> str:
    return _of_model(config, "suite", config.pipeline.suite)


def _common(config: DictConfig, folder: Path, checkpoint: Path | None) -> list[str]:
    overrides = [f"model={config.choose.model}", f"seed={config.seed}", f"threads={config.threads}"]
    overrides += [f"paths.output='{folder}'", f"paths.assets='{config.paths.assets}'"]
    if checkpoint is not None:
        overrides.append(f"model.checkpoint='{checkpoint}'")
    return overrides


if __name__ == "__main__":
    sys.exit(run(main, "pipeline", __doc__))
