"""Settings that stand as `???` in a config: whoever runs it has to give them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError

MISSING = "???"


def require_values(cfg: DictConfig, config_name: str, folders: Sequence[Path]) -> None:
    """Refuses a config in which values are missing.

    In a dry run small stand-ins take the place of what is missing. Else a setting of the entry
    point itself stands in for one of the same name further down, as
    `checkpoint` does for `model.checkpoint`.

    Args:
        cfg: composed, with Hydra's own node.
        config_name: of the primary config.
        folders: where configs are searched, for what their comments say of the settings.

    Raises:
        ConfigError: names every setting that has no value, its file and that file's comment.
    """
    if cfg.get("dry_run"):
        return
    tree = OmegaConf.to_container(cfg)
    choices = tree.pop("hydra")["runtime"]["choices"]
    own = {name for name, value in tree.items() if value not in (None, MISSING)}
    missing = [key for key in _open(tree) if key.rpartition(".")[2] not in own]
    if not missing:
        return
    files = [config_name, *_chosen(choices)]
    asked = [f"{key}=...{_origin(key, files, folders)}" for key in missing]
    verb = "has" if len(missing) == 1 else "have"
    raise ConfigError(f"{_series(missing)} {verb} no value; give {_series(asked)}")


def _open(tree: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all values that are missing in a tree of dicts and lists."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _open(value, f"{prefix}.{key}" if prefix else str(key))
    elif tree == MISSING:
        yield prefix


def _chosen(choices: dict[str, str | list[str] | None]) -> Iterator[str]:
    """The options in use, as "group/option"."""
    for group, chosen in choices.items():
        for option in chosen if isinstance(chosen, list) else [chosen]:
            if option is not None and not group.startswith("hydra/"):
                yield f"{group.partition('@')[0]}/{option}"


def _origin(key: str, files: Sequence[str], folders: Sequence[Path]) -> str:
    """The file that leaves a setting open, and its comment; its own group's file goes first."""
    line = re.compile(rf"^\s*{re.escape(key.rpartition('.')[2])}: *\?\?\? *(?:# *(.*))?$", re.M)
    group = key.partition(".")[0]
    for name in sorted(files, key=lambda name: not name.startswith(f"{group}/")):
        for folder in folders:
            path = folder / f"{name.removesuffix('.yaml')}.yaml"
            found = line.search(path.read_text(encoding="utf-8")) if path.is_file() else None
            if found is not None:
                comment = f": {found[1].strip()}" if found[1] else ""
                return f" ({folder.name}/{path.relative_to(folder)}{comment})"
    return ""


def _series(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
