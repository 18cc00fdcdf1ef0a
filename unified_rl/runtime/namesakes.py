"""Options of one group that are chosen together and would become one."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError


def require_no_namesakes(cfg: DictConfig, folders: Sequence[Path]) -> None:
    """Refuses options of a group whose files have the same name at their top.

    Hydra would merge them into one, mostly the last, without a word.

    Args:
        cfg: composed, with Hydra's own node.
        folders: where configs are searched.

    Raises:
        ConfigError: names the two options and their name.
    """
    for group, chosen in cfg.hydra.runtime.choices.items():
        if not OmegaConf.is_list(chosen) and not isinstance(chosen, list):
            continue
        owners: dict[str, str] = {}
        for option in dict.fromkeys(chosen):
            for name in _names(f"{group}/{str(option).removesuffix('.yaml')}.yaml", folders):
                if name in owners:
                    raise ConfigError(
                        f"{group}={owners[name]} and {group}={option} are both called {name!r}, "
                        "so that one would hide the other; choose one of them, or write one out "
                        f'under another name: "+{group}.NAME={{_target_: ..., ...}}"'
                    )
                owners[name] = option


def _names(file: str, folders: Sequence[Path]) -> list[str]:
    """What is at the top of a config."""
    path = next((folder / file for folder in folders if (folder / file).is_file()), None)
    found = OmegaConf.load(path) if path else None
    return [str(name) for name in found if name != "defaults"] if found else []
