"""The `conf` folder as Hydra reads it: its groups, their options, composed configs."""

import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.explaining import one_line

VERSION_BASE = "1.3"
LISTED_NAMES = 15
"""How many names an error line lists at most."""


@contextmanager
def open_hydra(conf: Path) -> Iterator[ConfigLoader]:
    """Hydra on a folder of configs, cleared afterwards; its warnings wait for the real run."""
    GlobalHydra.instance().clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with hydra.initialize_config_dir(config_dir=str(conf), version_base=VERSION_BASE):
                yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().clear()


class Groups:
    """The config groups and their options.

    Args:
        loader: Hydra's.
        conf: folder that error lines name.
        config_dir: a further folder from the command line.
    """

    def __init__(self, loader: ConfigLoader, conf: Path, config_dir: str | None = None) -> None:
        self._loader, self._conf_name = loader, conf.name
        self._extra = None if config_dir is None else Path(config_dir)

    def options(self, group: str) -> list[str]:
        """Options of a group, those of its folders as "folder/option"; empty if it is none."""
        found = set(self._loader.get_group_options(group, ObjectType.CONFIG))
        for folder in self._loader.get_group_options(group, ObjectType.GROUP):
            found.update(f"{folder}/{option}" for option in self.options(f"{group}/{folder}"))
        if self._extra is not None:
            root = self._extra / group
            files = root.rglob("*.yaml")
            found.update(file.relative_to(root).with_suffix("").as_posix() for file in files)
        return sorted(found)

    def names(self) -> list[str]:
        """The groups of the conf folder."""
        return [name for name in self._loader.list_groups("") if name != "hydra"]

    def check(self, group: str, option: str) -> None:
        """Raises ConfigError unless the group has the option."""
        options = self.options(group)
        if option in options or option.removesuffix(".yaml") in options or "${" in option:
            return
        # a bare name may be meant for an option within a folder
        leaves = {known.rpartition("/")[2]: known for known in options}
        close = difflib.get_close_matches(option, options, n=1, cutoff=0.5)
        close = close or [leaves[m] for m in difflib.get_close_matches(option, leaves, n=1)]
        hint = f"; did you mean {close[0]!r}?" if close else ""
        known = f"({self._conf_name}/{group}: {listing(options)})"
        raise ConfigError(f"{group}={option} is not an option{hint} {known}")


def listing(names: Sequence[str]) -> str:
    """The first `LISTED_NAMES` names, and how many more there are."""
    more = len(names) - LISTED_NAMES
    return ", ".join(names[:LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")


def compose(config_name: str, overrides: list[str]) -> DictConfig:
    """A config with Hydra's own node; within `open_hydra`.

    Raises:
        ConfigError: Hydra or YAML refuse it; one line of why.
    """
    try:
        return hydra.compose(config_name, overrides, return_hydra_config=True)
    except Exception as error:  # nothing but the user's settings and YAML files is at work here
        line = one_line(error)
        if isinstance(error.__cause__, OmegaConfBaseException):
            line = f"{line}: {one_line(error.__cause__)}"
        if isinstance(error, MissingConfigException):
            line = line.partition(" Config search path:")[0]
        raise ConfigError(line) from error
