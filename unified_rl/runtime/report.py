"""One self-contained HTML file that shows what a pipeline did to its policy."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from unified_rl.core.errors import UserError
from unified_rl.rewards.grammar import is_thought, words_of
from unified_rl.runtime.report_figures import constants, panels, score_chart
from unified_rl.runtime.report_inputs import Phase, read_json, read_phase
from unified_rl.runtime.summary import HEADLINE

STORY_COUNT = 8
"""Stories that the report shows, from the first."""

_NOT_PHASES = ("scale", "provenance")
_STORY_SCORES = (
    "format_validity",
    "text_relevance",
    "visual_correctness",
    "visual_correctness/step_1",
    "visual_correctness/step_2",
    "visual_correctness/step_3",
    "joint_correctness",
    "consistency",
    "coherence",
)
_PRESERVED_SCORES = ("generation_accuracy", "understanding_accuracy")
_MEANINGS = {
    "format_validity": "answers that keep to the grammar (thought, picture)+",
    "text_relevance": "facts of the step that its thought states",
    "visual_correctness": "required pictures that are exactly right",
    "joint_correctness": "answers with everything right: format, number and content of pictures",
    "consistency": "pictures that show exactly what their own thought says",
    "coherence": "how well each picture keeps what the one before shows",
    "generation_accuracy": "single drawings, mean over six categories",
    "understanding_accuracy": "questions on a picture, mean over six categories",
}
_SPELLINGS = {
    "interleavedbench_like": "InterleavedBench-like",
    "mmie_like": "MMIE-like",
    "text_image": "text-image",
}
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


def write_report(root: Path) -> Path:
    """Writes `report.html` from what the pipeline left in its folder; it appears whole or not.

    Args:
        root: folder of the pipeline, with `summary.json`; everything else may be missing.

    Raises:
        UserError: there is no `summary.json`.
    """
    summary = read_json(root / "summary.json")
    if not summary:
        raise UserError(f"{root / 'summary.json'} is missing; run the pipeline first: make demo")
    names = [name for name in summary if name not in _NOT_PHASES]
    phases = [read_phase(root, name, n, summary[name]) for n, name in enumerate(names)]
    page = _environment().get_template("report.html.j2").render(_contents(root, summary, phases))
    path = root / "report.html"
    beside = root / f".report.html.{os.getpid()}.tmp"
    beside.write_text(page, encoding="utf-8")
    return beside.replace(path)


def _contents(root: Path, summary: Mapping[str, Any], phases: Sequence[Phase]) -> dict[str, Any]:
    """What the template shows."""
    settings = next((p.evaluation["settings"] for p in phases if "settings" in p.evaluation), {})
    labels: dict[str, str] = {}
    for phase in phases:
        labels |= phase.evaluation.get("labels", {})
    provenance = summary.get("provenance", {})
    return {
        "phases": phases,
        "scale": summary.get("scale", ""),
        "labels": labels,
        "meanings": _MEANINGS,
        "story_scores": _measured(phases, _STORY_SCORES),
        "preserved_scores": _measured(phases, _PRESERVED_SCORES),
        "categories": {
            parent: _measured(phases, _parts(phases, parent)) for parent in _PRESERVED_SCORES
        },
        "stand_ins": _measured(phases, [*_parts(phases, "interleavedbench_like"), "mmie_like"]),
        "chart": _chart(phases),
        "stories": _stories(phases),
        "gallery_count": max((len(phase.gallery) for phase in phases), default=0),
        "curves": [(phase, *_panels(phase)) for phase in phases if phase.curves],
        "suite": settings,
        "stage_settings": _stage_settings(phases),
        "provenance": provenance,
        "configs": _configs(provenance, phases),
        "command": _command(root, provenance),
    }


def _measured(phases: Sequence[Phase], names: Sequence[str]) -> list[str]:
    return [name for name in names if any(name in phase.scores for phase in phases)]


def _parts(phases: Sequence[Phase], parent: str) -> list[str]:
    """Metrics `parent/...`, in the order in which they were written."""
    found = {name: None for p in phases for name in p.scores if name.startswith(f"{parent}/")}
    return list(found)


def _chart(phases: Sequence[Phase]) -> Markup | None:
    names = _measured(phases, HEADLINE)
    if not names:
        return None
    bars: dict[str, list[tuple[float, float, float] | None]] = {}
    for phase in phases:
        scores = [phase.scores.get(name) for name in names]
        bars[phase.name] = [
            s and (100 * s["value"], 100 * s["low"], 100 * s["high"]) for s in scores
        ]
    return Markup(score_chart([spoken_name(name) for name in names], bars))


def _stories(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """The first prompts, with what each phase answered to them."""
    answers = [{entry["prompt"]: entry for entry in phase.gallery} for phase in phases]
    prompts = next((list(found) for found in answers if found), [])[:STORY_COUNT]
    return [
        {"prompt": prompt, "tellings": [_telling(found.get(prompt)) for found in answers]}
        for prompt in prompts
    ]


def _telling(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An answer, step by step; a step that lacks its thought or picture has None there."""
    if entry is None:
        return None
    thoughts = [text for text in entry["texts"] if text.strip()]
    thoughts = [words_of(text) if is_thought(text) else text for text in thoughts]
    images, correct = entry["images_png"], entry["correct"]
    steps = [
        {
            "thought": thoughts[k] if k < len(thoughts) else None,
            "image": images[k] if k < len(images) else None,
            "correct": correct[k] if k < len(correct) else False,
            "superfluous": k >= len(correct),
        }
        for k in range(max(len(correct), len(images), len(thoughts)))
    ]
    return {"steps": steps, "well_formed": entry["well_formed"]}


def _panels(phase: Phase) -> tuple[list, list[str]]:
    rewards = _lookup(phase.result.get("config", {}), "stage.reward.components") or {}
    weights = {name: c["weight"] for name, c in rewards.items() if "weight" in c}
    return panels(phase.curves, weights), constants(phase.curves)


def _stage_settings(phases: Sequence[Phase]) -> list[tuple[str, list[Any]]]:
    """Rows of the settings table: name and the value in each phase that trained."""
    configs = [phase.result["config"] for phase in phases if "config" in phase.result]
    paths = dict(_STAGE_SETTINGS)
    for config in configs:
        for name in _lookup(config, "stage.reward.components") or {}:
            paths[f"reward weight: {name}"] = f"stage.reward.components.{name}.weight"
    rows = [(label, [_lookup(config, path) for config in configs]) for label, path in paths.items()]
    return [row for row in rows if any(value is not None for value in row[1])]


def _configs(provenance: Mapping[str, Any], phases: Sequence[Phase]) -> Iterator[tuple[str, str]]:
    """Title and YAML of every configuration, without where files lay."""
    sources = [("pipeline", provenance)]
    sources += [(f"{phase.label}: training", phase.result) for phase in phases]
    sources += [
        (f"{phase.label}: evaluation", phase.evaluation.get("provenance", {})) for phase in phases
    ]
    for title, source in sources:
        config = {key: value for key, value in source.get("config", {}).items() if key != "paths"}
        if config:
            yield title, yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _command(root: Path, provenance: Mapping[str, Any]) -> str:
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


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["change"] = change
    environment.filters |= {
        "percent": lambda share: f"{100 * share:.1f}",
        "spoken": spoken_name,
        "leaf": lambda name: spoken_name(name.rpartition("/")[2]),
        "points": lambda points: f"{points:+.1f}".replace("-", "−"),
        "duration": duration,
        "svg": Markup,
    }
    return environment


def change(
    new: Mapping[str, float] | None, old: Mapping[str, float] | None
) -> dict[str, Any] | None:
    """Difference of two scores in points, and whether their intervals lie apart."""
    if new is None or old is None:
        return None
    verdict = "same"
    if new["low"] > old["high"]:
        verdict = "up"
    elif new["high"] < old["low"]:
        verdict = "down"
    relative = new["value"] / old["value"] - 1 if old["value"] > 0 else None
    return {"points": 100 * (new["value"] - old["value"]), "relative": relative, "verdict": verdict}


def spoken_name(metric: str) -> str:
    """A metric for readers: visual_correctness/step_1 is "visual correctness, step 1"."""
    for name, spelling in _SPELLINGS.items():
        metric = metric.replace(name, spelling)
    return metric.replace("/", ", ").replace("_", " ")


def duration(seconds: float) -> str:
    """45 s, 3 min 05 s, 2 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _lookup(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
