"""Trains one stage: warm-up SFT, unified GRPO, or an image tokenizer."""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unified_rl.runtime.cli import run
from unified_rl.runtime.output import settle_output


def main(config: DictConfig) -> int:
    """Builds a stage from its configuration and trains it.

    Args:
        config: composed from `conf/train.yaml`.
    """
    settle_output(config)
    print(f"checkpoint: {train_from(config)}")
    return 0


def train_from(config: DictConfig, label: str | None = None) -> Path:
    """Trains what the configuration says; the folder of the resulting policy."""
    import lightning
    import torch
    from hydra.utils import instantiate

    from unified_rl.runtime.quiet import quieten
    from unified_rl.runtime.training import train

    quieten()
    if config.threads:
        torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, verbose=False)
    stage = instantiate(config.stage, _convert_="all")
    return train(
        stage=stage,
        data=instantiate(config.data, _convert_="all"),
        make_trainer=instantiate(config.trainer, _partial_=True, _convert_="all"),
        output=Path(config.paths.output),
        config=OmegaConf.to_container(config, resolve=True),
        make_loggers=instantiate(config.logger, _convert_="all"),
        sample_every=config.sample_every,
        checkpoint_every=config.checkpoint_every,
        label=label or type(stage).__name__,
        survival=instantiate(config.survival),
    )


if __name__ == "__main__":
    sys.exit(run(main, "train", __doc__))
