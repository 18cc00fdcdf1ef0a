"""Trains one stage: warm-up SFT, unified GRPO, or an image tokenizer."""

import os
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.cli import run
from unified_rl.runtime.output import settle_output


def main(config: DictConfig) -> int:
    """Builds a stage from its configuration and trains it.

    Args:
        config: composed from `conf/train.yaml`.
    """
    if config.get("dry_run"):
        from unified_rl.runtime.dry_run.rehearsal import rehearse

        for line in rehearse(config, train_from):
            print(line)
        return 0
    settle_output(config)
    _require_own_processes(config)
    checkpoint = train_from(config)

    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only(print)(f"checkpoint: {checkpoint}")
    return 0


def _require_own_processes(config: DictConfig) -> None:
    """Refuses a sweep whose jobs would each start the whole sweep again as their second process.

    Raises:
        ConfigError: jobs of several processes, which nothing but Lightning would start.
    """
    own = HydraConfig.get()
    is_swept = own.mode == RunMode.MULTIRUN and "submitit" not in own.launcher["_target_"]
    if is_swept and str(config.trainer.devices) != "1":
        raise ConfigError(
            f"trainer.devices={config.trainer.devices} in a sweep: its jobs cannot start processes "
            "of their own; run them one by one without -m, or let SLURM start them: "
            "hydra/launcher=submitit_slurm"
        )


def train_from(config: DictConfig, label: str | None = None) -> Path:
    """Trains what the configuration says; the folder of the resulting policy."""
    import lightning
    import torch
    from hydra.utils import instantiate

    from unified_rl.runtime.quiet import quieten
    from unified_rl.runtime.training import train

    quieten()
    place = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
    if place is not None and torch.cuda.is_available():
        torch.cuda.set_device(int(place))  # what "cuda" means to a reward's model
    if config.threads:
        torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, verbose=False)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a check, at every allocation
    stage = instantiate(config.stage, _convert_="all")
    return train(
        stage=stage,
        data=instantiate(config.data, _convert_="all"),
        make_trainer=instantiate(
            config.trainer, _partial_=True, _convert_="all", strategy=instantiate(config.strategy)
        ),
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
