"""One setting of a command line against the config that it changes."""

import difflib
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.config_groups import Groups, listing
from unified_rl.runtime.explaining import one_line

TEXT = "text"


def check_setting(setting: Override, cfg: DictConfig, groups: Groups) -> None:
    """Raises ConfigError for a key that does not exist or a value of another kind."""
    key = setting.key_or_group
    present = setting.package is None and _has(cfg, key)
    if setting.is_force_add() or (setting.is_add() and not present):
        return
    if setting.is_add():
        raise ConfigError(f"{key} exists already; leave the + away: {str(setting.input_line)[1:]}")
    if not present:
        raise ConfigError(f"{key} is not a setting; {_suggestion(key, cfg, groups)}")
    if setting.is_delete() or setting.is_hydra_override():
        return  # Hydra's own settings are typed: composing checks them
    old, new = kind(OmegaConf.to_container(cfg), key), setting.value()
    text = isinstance(new, str) and ("${" in new or new == "auto")
    if old is None or new is None or text or old == _kind_of(new):
        return
    if old == TEXT and not isinstance(new, dict | list):
        return  # "auto", "32-true" and the like often stand for a number
    raise ConfigError(
        f"{setting.input_line} gives {_kind_of(new)} where the setting is {old}; "
        f"++{setting.input_line} sets it all the same"
    )


def _has(cfg: DictConfig, key: str) -> bool:
    """Whether a dotted key exists, whatever its value."""
    head, _, last = key.replace("[", ".").replace("]", "").rpartition(".")
    try:
        parent = OmegaConf.select(cfg, head) if head else cfg
        if isinstance(parent, ListConfig):
            return last.isdigit() and int(last) < len(parent)
        return isinstance(parent, DictConfig) and last in parent.keys()  # noqa: SIM118
    except OmegaConfBaseException:
        return True  # behind an interpolation that cannot be resolved yet: composing decides


def _kind_of(value: Any) -> str | None:
    """The kind of a value in words; None where any value fits."""
    if value is None or (isinstance(value, str) and (value == "???" or "${" in value)):
        return None
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, dict):
        return "a group of settings"
    return "a list" if isinstance(value, list) else TEXT


def kind(tree: Any, key: str) -> str | None:
    """The kind of what the config holds at a dotted key; None behind an interpolation."""
    for part in key.replace("[", ".").replace("]", "").split("."):
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return None
    return _kind_of(tree)


def _suggestion(key: str, cfg: DictConfig, groups: Groups) -> str:
    """Names the setting that was probably meant, else what there is at that place."""
    tree = OmegaConf.to_container(cfg)
    if not key.startswith("hydra"):
        tree.pop("hydra", None)
    known = [*paths(tree), *groups.names()]
    above = {path for path in known if key.startswith(f"{path}.")}
    above = {path for path in above if any(name.startswith(f"{path}.") for name in known)}
    leaf = key.rpartition(".")[2]

    def likeness(path: str) -> float:
        ours, theirs = key.split("."), path.split(".")
        while len(ours) > 1 and len(theirs) > 1 and ours[0] == theirs[0]:
            del ours[0], theirs[0]  # what both begin with says nothing about the mistake
        ratio = difflib.SequenceMatcher(None, ".".join(ours), ".".join(theirs)).ratio()
        return ratio + 0.2 * (theirs[-1] == leaf)

    best = max(set(known) - above, key=likeness, default="")
    if likeness(best) >= 0.6 or best.rpartition(".")[2] == leaf:
        return f"did you mean {best!r}?"
    parent = key
    while parent:
        parent = parent.rpartition(".")[0]
        inside = [path for path in known if path.rpartition(".")[0] == parent]
        if inside:
            return f"known: {listing(sorted(set(inside)))}"
    return "the config is empty"


def paths(tree: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a tree of dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        path = f"{prefix}{key}"
        yield path
        if isinstance(value, dict | list):
            yield from paths(value, f"{path}.")


def check_reference(setting: Override, cfg: DictConfig) -> None:
    """Raises ConfigError for an interpolation of something that does not exist."""
    try:
        if "${" in str(setting.input_line):
            OmegaConf.select(cfg, setting.key_or_group)
    except InterpolationKeyError as error:
        raise ConfigError(f"{setting.input_line}: {one_line(error)}") from error
    except OmegaConfBaseException:
        return  # ${hydra:...} and the like have values only while a job runs
