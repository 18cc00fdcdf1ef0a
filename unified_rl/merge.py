"""Adds an adapter to the weights that it was trained on and writes an ordinary model's folder."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from unified_rl.runtime.cli import run


def main(config: DictConfig) -> int:
    """Merges `checkpoint` into `output`.

    Args:
        config: composed from `conf/merge.yaml`.
    """
    from hydra.utils import instantiate

    from unified_rl.models.adapter_folder import merged
    from unified_rl.models.checkpoint import require_new, write_folder
    from unified_rl.runtime.quiet import quieten

    quieten()
    adapter, output = Path(config.checkpoint), Path(config.output)
    require_new(output, "output")
    policy = merged(instantiate(config.model, _convert_="all"), str(adapter), config.base)
    write_folder(output, policy.save, {"merged_from": str(adapter.resolve())})
    print(f"checkpoint: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, "merge", __doc__))
