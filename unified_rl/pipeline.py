"""Chains stages: phases go on from one another, merge or prefer; done ones are skipped."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from unified_rl.core.durable import write_text
from unified_rl.core.errors import ConfigError
from unified_rl.runtime.cli import choice, run
from unified_rl.runtime.output import settle_output
from unified_rl.runtime.phases import Phase, needed, read_phases
from unified_rl.runtime.planning import Plan, plan, suite_of


def main(config: DictConfig) -> int:
    """Runs the phases of a pipeline and prints where its results are.

    Args:
        config: composed from `conf/pipeline.yaml`.
    """
    from unified_rl.runtime.quiet import quieten
    from unified_rl.runtime.summary import HEADLINE, write_summary
    from unified_rl.runtime.tables import print_scores

    quieten()
    source = f"conf/pipeline/{choice('pipeline')}.yaml"
    phases = _chosen(config, source)
    root = settle_output(config)
    plans = plan(config, phases, root, source)
    records: dict[str, dict[str, Any]] = {}
    for number, planned in enumerate(plans, start=1):
        name = planned.phase.name
        print(f"[{number}/{len(plans)}] {name}", file=sys.stderr, flush=True)
        records[name] = _run(planned)
    headline = config.pipeline.headline or HEADLINE
    summary = write_summary(root, records, OmegaConf.to_container(config, resolve=True), headline)
    scored = {name: r["evaluation"] for name, r in records.items() if "evaluation" in r}
    if scored:
        print_scores(scored, headline)
    print(f"summary: {summary}")
    if config.pipeline.publish:
        _publish(config, records)
    if config.pipeline.report:
        from unified_rl.runtime.report import write_report

        print(f"report:  {write_report(root)}")
    return 0


def _chosen(config: DictConfig, source: str) -> Sequence[Phase]:
    entries = OmegaConf.to_container(config.pipeline.phases, resolve=True)
    only = config.choose.only
    if only is not None:
        only = list(only) if isinstance(only, ListConfig) else [only]
        if config.pipeline.publish:
            raise ConfigError(
                f"choose.only={only} leaves phases out, and {source} publishes what all of them "
                "make; add pipeline.publish=false"
            )
    return needed(read_phases(entries, source), only, source)


def _run(planned: Plan) -> dict[str, Any]:
    """What a phase left: its checkpoint, scores and seconds."""
    record: dict[str, Any] = {"checkpoint": planned.checkpoint}
    if planned.preferring is not None:
        from unified_rl.prefer import prefer_from

        prefer_from(planned.preferring, label=planned.phase.name, anew=True)
    if planned.training is not None:
        from unified_rl.train import train_from

        if planned.pairs is not None:
            from unified_rl.data.preferences import PreferenceFolder

            # so that new preferences in the same folder are trained on anew
            digest = PreferenceFolder(planned.pairs).summary()["digest"]
            planned.training.data.sources.preferences.digest = digest

        started = time.perf_counter()
        train_from(planned.training, label=planned.phase.name)
        record["train_s"] = time.perf_counter() - started
    if planned.merging is not None:
        from unified_rl.merge import merge_from

        # of a training that once had this name; it would speak for the merged weights
        (planned.folder / "result.json").unlink(missing_ok=True)
        merge_from(planned.merging)
    if planned.scoring is not None:
        record |= _evaluate(planned.scoring, planned)
    return record


def _evaluate(scoring: DictConfig, planned: Plan) -> dict[str, Any]:
    """Scores and seconds; read back where the same checkpoint was scored the same way before."""
    from unified_rl.evaluate import evaluate_from
    from unified_rl.models.checkpoint import weights_hash
    from unified_rl.runtime.provenance import config_hash

    key = config_hash(OmegaConf.to_container(scoring, resolve=True))
    key += weights_hash(Path(scoring.model.checkpoint))
    written, stamp = planned.folder / "evaluation.json", planned.folder / "evaluation.key"
    if not (written.is_file() and stamp.is_file() and stamp.read_text().startswith(key)):
        started = time.perf_counter()
        evaluate_from(scoring, label=f"{planned.phase.name}: evaluate")
        write_text(stamp, f"{key} {time.perf_counter() - started}")
    seconds = float(stamp.read_text().split()[1])
    return {"evaluation": json.loads(written.read_text()), "evaluate_s": seconds}


def _publish(config: DictConfig, records: dict[str, dict[str, Any]]) -> None:
    """Makes the last phase's checkpoint the asset that `model` loads by default."""
    from unified_rl.runtime.model_card import publish

    last = list(records.values())[-1]
    asset = Path(config.paths.assets) / config.choose.model
    command = f"make {config.pipeline.name} MODEL={config.choose.model}"
    train_s = sum(record.get("train_s", 0.0) for record in records.values())
    publish(last["checkpoint"], asset, command, last["evaluation"], suite_of(config), train_s)
    print(f"asset:   {asset}")


if __name__ == "__main__":
    sys.exit(run(main, "pipeline", __doc__))
