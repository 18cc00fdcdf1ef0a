"""Evaluates one checkpoint on held-out prompts and writes its scores with their provenance."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from unified_rl.runtime.cli import run
from unified_rl.runtime.output import settle_output

if TYPE_CHECKING:
    from unified_rl.evaluation.record import Evaluation


def main(config: DictConfig) -> int:
    """Evaluates `model.checkpoint` and prints its scores.

    Args:
        config: composed from `conf/evaluate.yaml`.
    """
    from unified_rl.runtime.evaluation_page import write_page
    from unified_rl.runtime.tables import print_scores

    output = settle_output(config)
    evaluation = evaluate_from(config)
    page = write_page(evaluation, output, f"unified-rl: {evaluation.suite}")
    if evaluation.metrics:
        print_scores({"checkpoint": evaluation.to_json()})
    for name, label in evaluation.labels.items():
        print(f"{name}: {label}")
    print(f"written to {output}/evaluation.json" + (f", shown in {page}" if page else ""))
    return 0


def evaluate_from(config: DictConfig, label: str = "evaluate") -> "Evaluation":
    """Runs the suite that the configuration names and writes what it found.

    Args:
        config: composed from `conf/evaluate.yaml`.
        label: what the progress bar says.
    """
    import torch
    from hydra.utils import instantiate

    from unified_rl.runtime.open_policy import settled_device
    from unified_rl.runtime.progress import counting
    from unified_rl.runtime.provenance import provenance
    from unified_rl.runtime.quiet import quieten

    quieten()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = settled_device(config.device)
    policy = instantiate(config.policy, _convert_="all")().eval().to(device)
    suite = instantiate(config.suite, _convert_="all")
    with counting(label) as progress:
        evaluation = suite.run(policy, progress=progress)
    settings = OmegaConf.to_container(config, resolve=True)
    evaluation.write(Path(config.paths.output), provenance(settings, config.seed))
    return evaluation


if __name__ == "__main__":
    sys.exit(run(main, "evaluate", __doc__))
