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
    """
    from hydra.utils import instantiate

    from unified_rl.runtime.quiet import quieten

    quieten()
    original, output = Path(config.original), Path(config.output)
    if not original.is_dir():
        raise ConfigError(f"original={original} is not a folder; give the authors' checkpoint")
    policy = instantiate(config.policy, _convert_="all")()
    policy.export(original, output)
    print(f"checkpoint: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, "export", __doc__))
