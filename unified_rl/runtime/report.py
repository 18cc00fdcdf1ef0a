"""One self-contained HTML file that shows what a pipeline did to its policy."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from unified_rl.core.errors import UserError
from unified_rl.runtime.report_figures import Panel, constants, panels
from unified_rl.runtime.report_graph import places
from unified_rl.runtime.report_inputs import Phase, lookup, read_json, read_phase
from unified_rl.runtime.report_phases import phase_contents
from unified_rl.runtime.report_settings import command_of, configurations, stage_settings
from unified_rl.runtime.report_stories import story_contents
from unified_rl.runtime.report_wording import change, duration, spoken_name

_NOT_PHASES = ("scale", "provenance")


def write_report(root: Path) -> Path:
    """Writes `report.html` from what the pipeline left in its folder; it appears whole or not.

    A pipeline that names its own headline scores gets a page of its phases as a tree, any other one
    of the stories that its phases tell one after another.

    Args:
        root: folder of the pipeline, with `summary.json`; everything else may be missing.

    Raises:
        UserError: there is no `summary.json`.
    """
    summary = read_json(root / "summary.json")
    if not summary:
        raise UserError(f"{root / 'summary.json'} is missing; run the pipeline first: make demo")
    template, contents = _page(root, summary)
    page = _environment().get_template(template).render(contents)
    path = root / "report.html"
    beside = root / f".report.html.{os.getpid()}.tmp"
    beside.write_text(page, encoding="utf-8")
    return beside.replace(path)


def _page(root: Path, summary: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The template and what it shows."""
    names = [name for name in summary if name not in _NOT_PHASES]
    pipeline = lookup(summary, "provenance.config.pipeline") or {}
    headline = pipeline.get("headline")
    if not headline:
        phases = [read_phase(root, name, n, summary[name]) for n, name in enumerate(names)]
        return "report.html.j2", _contents(root, summary, phases) | story_contents(phases)
    tree = places(pipeline.get("phases"), names)
    phases = [
        read_phase(root, place.name, n, summary[place.name], headline)
        for n, place in enumerate(tree)
    ]
    contents = _contents(root, summary, phases) | phase_contents(phases, tree, headline)
    return "report_phases.html.j2", contents | {"pipeline": pipeline}


def _contents(root: Path, summary: Mapping[str, Any], phases: Sequence[Phase]) -> dict[str, Any]:
    """What every page shows."""
    provenance = summary.get("provenance", {})
    columns, settings = stage_settings(phases)
    return {
        "phases": phases,
        "scale": summary.get("scale", ""),
        "curves": [(phase, *_panels(phase)) for phase in phases if phase.curves],
        "suite": next((p.evaluation["settings"] for p in phases if "settings" in p.evaluation), {}),
        "setting_columns": columns,
        "stage_settings": settings,
        "provenance": provenance,
        "configs": configurations(provenance, phases),
        "command": command_of(root, provenance),
    }


def _panels(phase: Phase) -> tuple[list[Panel], list[str]]:
    rewards = lookup(phase.result.get("config", {}), "stage.reward.components") or {}
    weights = {name: c["weight"] for name, c in rewards.items() if "weight" in c}
    return panels(phase.curves, weights), constants(phase.curves)


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
