"""Options of one group that are chosen together and would become one."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.default_element import ResultDefault
from omegaconf import OmegaConf

from unified_rl.core.errors import ConfigError


def require_no_namesakes(
    chosen: Iterable[ResultDefault], config_name: str, folders: Sequence[Path]
) -> None:
    """Refuses options of a group whose files have the same name at their top.

    Hydra would merge them into one, mostly the last, without a word. Options that an option takes
    along to change them are left to it.

    Args:
        chosen: what a config is composed of.
        config_name: of the primary config.
        folders: where configs are searched.

    Raises:
        ConfigError: names the two options and their name.
    """
    owners: dict[tuple[str, str], str] = {}
    for one in chosen:
        group, _, option = str(one.config_path).partition("/")
        # of a list of options none can be overridden by itself
        if (
            one.parent != config_name.removesuffix(".yaml")
            or one.override_key is not None
            or not option
        ):
            continue
        for name in _names(f"{group}/{option}.yaml", folders):
            other = owners.setdefault((group, name), option)
            if other != option:
                raise ConfigError(
                    f"{group}={other} and {group}={option} are both called {name!r}, so that one "
                    "would hide the other; choose one of them, or write one out under another "
                    f'name: "+{group}.NAME={{_target_: ..., ...}}"'
                )


def _names(file: str, folders: Sequence[Path]) -> list[str]:
    """What is at the top of a config."""
    path = next((folder / file for folder in folders if (folder / file).is_file()), None)
    found = OmegaConf.load(path) if path else None
    return [str(name) for name in found if name != "defaults"] if found else []
