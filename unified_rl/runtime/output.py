"""Which folder a run writes to."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict


def settle_output(config: DictConfig) -> Path:
    """Sets `paths.output`: what the user says, else the folder that Hydra made for this run."""
    if config.paths.output is None:
        with open_dict(config):
            config.paths.output = HydraConfig.get().runtime.output_dir
    return Path(config.paths.output)
