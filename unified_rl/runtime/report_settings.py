"""What a reader needs to judge and repeat the phases: settings, configurations, the command."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unified_rl.runtime.report_inputs import Phase, lookup

_STAGE_SETTINGS = {
    "iterations": "iterations",
    "samples or prompts a batch": "data.batch_size",
    "gold stories": "data.sources.stories.gold_limit",
    "learning rate": "stage.optimisation.learning_rate",
    "schedule": "stage.optimisation.schedule",
    "gradient clip": "stage.optimisation.gradient_clip",
    "completions a prompt (G)": "stage.group_size",
    "advantages": "stage.level",
    "advantage scale": "stage.advantage_scale",
    "updates a rollout": "stage.updates_per_rollout",
    "KL weight (beta)": "stage.objective.beta",
    "clip below 1": "stage.objective.clip_low",
    "clip above 1": "stage.objective.clip_high",
    "averaging": "stage.objective.aggregation.normalisation",
    "text temperature": "stage.behaviour.text.temperature",
    "image temperature": "stage.behaviour.image.temperature",
    "guidance scale": "stage.behaviour.guidance_scale",
}


def stage_settings(
    phases: Sequence[Phase],
) -> tuple[list[list[str]], list[tuple[str, list[Any]]]]:
    """The settings table: labels of the phases of each column, and rows of name and values.

    Phases that were trained in the same way share a column.
    """
    trained = [phase for phase in phases if "config" in phase.result]
    paths = dict(_STAGE_SETTINGS)
    for phase in trained:
        for name in lookup(phase.result["config"], "stage.reward.components") or {}:
            paths[f"reward weight: {name}"] = f"stage.reward.components.{name}.weight"
    columns: list[tuple[list[str], list[Any]]] = []
    for phase in trained:
        values = [lookup(phase.result["config"], path) for path in paths.values()]
        same = next((labels for labels, others in columns if others == values), None)
        if same is None:
            columns.append(([phase.label], values))
        else:
            same.append(phase.label)
    rows = [(label, [values[row] for _, values in columns]) for row, label in enumerate(paths)]
    shown = [row for row in rows if any(value is not None for value in row[1])]
    return [labels for labels, _ in columns], shown


def configurations(
    provenance: Mapping[str, Any], phases: Sequence[Phase]
) -> Iterator[tuple[str, str]]:
    """Title and YAML of every configuration, without where files lay."""
    sources = [("pipeline", provenance)]
    sources += [(f"{phase.label}: training", phase.result) for phase in phases]
    sources += [
        (f"{phase.label}: evaluation", phase.evaluation.get("provenance", {})) for phase in phases
    ]
    root = lookup(provenance, "config.paths.output")
    for title, source in sources:
        config = {key: value for key, value in source.get("config", {}).items() if key != "paths"}
        if config:
            text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
            # checkpoints of other phases are named from the pipeline's folder on
            yield title, text.replace(f"{root}/", "") if root else text


def command_of(root: Path, provenance: Mapping[str, Any]) -> str:
    """What to type to get these numbers again: the command line that Hydra wrote down."""
    written = root / ".hydra" / "overrides.yaml"
    overrides = yaml.safe_load(written.read_text()) if written.is_file() else []
    config = provenance.get("config", {})
    name = (config.get("pipeline") or {}).get("name", "demo")
    kept = [text for text in overrides or [] if text.partition("=")[0] != "pipeline"]
    if "seed" in provenance and not any(text.startswith("seed=") for text in kept):
        kept.append(f"seed={provenance['seed']}")
    arguments = shlex.join(kept)
    if name == "demo" and not set(arguments) & set('"$`\\'):
        return f'make demo ARGS="{arguments}"'
    return f"python -m unified_rl.pipeline {shlex.join([f'pipeline={name}'])} {arguments}"
