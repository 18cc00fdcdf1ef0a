"""Writes a trained model in its authors' own layout, for their inference code."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.cli import run


def main(config: DictConfig) -> int:
    """Writes `checkpoint` into `output` the way `original` is laid out.

    Args:
        config: composed from `conf/export.yaml`.

    Raises:
        ConfigError: a folder is not given, `original` is none of the authors', or `output` is
            taken.
        CheckpointError: the checkpoint cannot be read, or does not fit the original.
    """
    from hydra.utils import instantiate

    from unified_rl.runtime.quiet import quieten

    quieten()
    for name in ("checkpoint", "original", "output"):
        if not config[name]:
            raise ConfigError(f"{name}={config[name]} is empty; give a folder")
    original, output = Path(config.original), Path(config.output)
    _check_original(original)
    _check_output(output, original)
    policy = instantiate(config.policy, _convert_="all")()
    left_out = policy.export(original, output)
    print(f"checkpoint: {output}")
    if left_out:
        names = " and ".join(left_out)
        print(f"not written: {names}; if they were trained too, export with original= their folder")
    return 0


def _check_original(original: Path) -> None:
    from unified_rl.models.template import FILE

    if not original.is_dir():
        raise ConfigError(
            f"original={original} is not a folder; give the authors' checkpoint that training "
            "started from"
        )
    if (original / FILE).is_file():
        raise ConfigError(
            f"original={original} was saved here, not by the authors ({FILE} is in it); give the "
            "authors' checkpoint that training started from; a model that was trained from random "
            "weights has none"
        )


def _check_output(output: Path, original: Path) -> None:
    """Nothing is replaced: what stands there may be the very checkpoint that is exported."""
    from unified_rl.models.checkpoint import require_new

    if output.resolve().is_relative_to(original.resolve()):
        raise ConfigError(
            f"output={output} is original={original} or lies in it, which is read only; give a "
            "folder elsewhere"
        )
    require_new(output, "output")


if __name__ == "__main__":
    sys.exit(run(main, "export", __doc__))
