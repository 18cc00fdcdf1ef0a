"""Renders the runs of an ablation as a table beside the paper's, with a verdict on each claim."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from unified_rl.runtime.cli import run


def main(config: DictConfig) -> int:
    """Writes `experiments/<table>/README.md` and `results.json`.

    Args:
        config: composed from `conf/reproduce.yaml`.
    """
    from unified_rl.runtime.ablation import render

    page = render(Path("experiments") / config.table, config.runs and Path(config.runs))
    print(page.read_text())
    print(f"written to {page}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, "reproduce", __doc__))
