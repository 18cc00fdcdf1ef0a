"""What `--help` shows."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import OmegaConf

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.config_groups import Groups, compose, open_hydra
from unified_rl.runtime.setting_check import kind, paths

_TELLING = ("experiment", "pipeline", "model")
"""Groups that an example is best made with."""


def help_text(conf: Path, config_name: str, description: str, overrides: list[str]) -> str:
    """What the entry point does, the options of each group, examples, where outputs go."""
    if not conf.is_absolute():
        raise ConfigError(f"--help needs an absolute folder, not --config-path {conf}")
    with open_hydra(conf) as loader:
        groups, cfg = Groups(loader, conf), compose(config_name, overrides)
        defaults = loader.compute_defaults_list(config_name, overrides, RunMode.RUN).defaults
        chosen = {str(default.config_path) for default in defaults}
        choices = cfg.hydra.runtime.choices
        own = {*choices, *(path.rpartition("/")[0] for path in chosen)}  # lists are no choices
        options = {name: groups.options(name) for name in groups.names() if name in own}
    places = OmegaConf.to_container(cfg.hydra)
    lines = [inspect.cleandoc(description).partition("\n\n")[0], ""]
    lines += [f"Config groups in {conf} (group=option; * is chosen unless you say otherwise):"]
    for group, names in options.items():
        marked = [f"{name}*" if f"{group}/{name}" in chosen else name for name in names]
        lines.append(f"  {group}: {', '.join(marked)}")
    del cfg.hydra
    if _command() not in description:  # which else brings its own
        taken = {name: choices.get(name) or names[0] for name, names in options.items() if names}
        lines += ["", "Examples:", *_examples(_command(), taken, OmegaConf.to_container(cfg))]
    lines += [
        "",
        "Outputs (${...} is filled in when a run starts):",
        f"  of a run in {places['run']['dir']}",
        f"  of a sweep in {places['sweep']['dir']}/{places['sweep']['subdir']}",
        "",
        "Every setting: --cfg job    Where they come from: --info    Hydra's flags: --hydra-help",
    ]
    return "\n".join(lines)


def _examples(command: str, options: dict[str, str], tree: dict[str, Any]) -> Iterator[str]:
    """Four command lines made from what the config offers; `options` has one for each group."""
    group = next((name for name in (*_TELLING, *options) if name in options), "")
    choice = f" {group}={options[group]}" if group else ""
    number = next(
        (path for path in sorted(paths(tree), key=len) if kind(tree, path) == "a number"), "seed"
    )
    number = "seed" if "seed" in tree else number
    examples = {
        f"{command}{choice}": "run it",
        f"{command}{choice} {number}=1": "with another value of one setting",
        f"{command} -m{choice} {number}=1,2,3": "a sweep: one job for each value",
        f"{command} --cfg job{choice}": "show the settings, run nothing",
    }
    width = max(map(len, examples))
    yield from (f"  {line:<{width}}  # {what}" for line, what in examples.items())


def _command() -> str:
    """How this program was called."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python {sys.argv[0]}" if spec is None else f"python -m {spec.name}"
