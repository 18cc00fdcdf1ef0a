"""What a dry run changes in a configuration."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict


class Change(NamedTuple):
    """One setting that stands for another.

    Attributes:
        key: dotted.
        was: what the experiment says.
        now: what is taken in its place.
        told: what `now` is, for people.
    """

    key: str
    was: Any
    now: Any
    told: str


class Changes:
    """Sets settings and keeps a list of what they were.

    Args:
        config: changed in place.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.made: list[Change] = []

    def set(self, key: str, now: Any, told: str = "") -> None:
        """Sets one setting; one that has the value already is left alone.

        Args:
            key: dotted.
            now: a plain value.
            told: what it is, for people; "" where the value says it.
        """
        was = _plain(OmegaConf.select(self.config, key))
        if was == now and not OmegaConf.is_missing(*_parent(self.config, key)):
            return
        with open_dict(self.config):
            OmegaConf.update(self.config, key, now, merge=False, force_add=True)
        self.made.append(Change(key, was, now, told or str(now)))

    def swap(self, key: str, now: Mapping[str, Any], told: str) -> None:
        """Puts another node in the place of a whole one, `_target_` and all."""
        was = OmegaConf.select(self.config, f"{key}._target_")
        with open_dict(self.config):
            OmegaConf.update(self.config, key, dict(now), merge=False, force_add=True)
        self.made.append(Change(key, was.rpartition(".")[2], dict(now), told))

    def nodes(self, root: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Dotted key and settings of everything below `root` that names its class, outer first."""
        tree = OmegaConf.select(self.config, root)
        if tree is not None:
            yield from _nodes(root, OmegaConf.to_container(tree, resolve=False))


def lines(made: list[Change], folder: Path) -> Iterator[str]:
    """A table of what was changed, without the name of the temporary folder."""
    width = max((len(change.key) for change in made), default=0)
    for change in made:
        was = "not given" if change.was in (None, "???") else str(change.was)
        told = change.told.replace(f"{folder}/", "")
        yield f"  {change.key:{width}}  {was} -> {told}"


def _nodes(place: str, tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield place, tree
        for name, value in tree.items():
            yield from _nodes(f"{place}.{name}", value)


def _parent(config: DictConfig, key: str) -> tuple[DictConfig, str]:
    above, _, last = key.rpartition(".")
    found = OmegaConf.select(config, above) if above else config
    return (found, last) if isinstance(found, DictConfig) else (OmegaConf.create(), last)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
