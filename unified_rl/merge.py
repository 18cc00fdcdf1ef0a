"""Adds an adapter to its base, or makes one model of several that were trained from one base.
python -m unified_rl.merge checkpoint=ADAPTER output=FOLDER
python -m unified_rl.merge rule=linear checkpoints='[A,B]' output=FOLDER rule.weights='[3,1]'
python -m unified_rl.merge rule=task_arithmetic checkpoints='[A,B]' base=C output=FOLDER
python -m unified_rl.merge rule=gaussian checkpoints='[A,B]' base=C output=FOLDER rule.spread=2
A and B are whole models of one family that were trained from C; the result is laid out like A.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.cli import run


def main(config: DictConfig) -> int:
    """Merges `checkpoint`, or `checkpoints`, into `output`.

    Args:
        config: composed from `conf/merge.yaml`.

    Raises:
        ConfigError: `checkpoints` is not a list of folders, or the rule does not fit it.
        CheckpointError: a folder cannot be read, does not fit the others, or `output` is taken.
    """
    from unified_rl.models.checkpoint import require_new
    from unified_rl.runtime.quiet import quieten

    quieten()
    output = Path(config.output)
    require_new(output, "output")
    if config.rule is None:
        _merge_adapter(config, output)
    else:
        merge_from(config)
    print(f"checkpoint: {output}")
    return 0


def merge_from(config: DictConfig) -> Path:
    """Merges the models that the configuration names; the folder of the result.

    Where `output` holds the result of the same rule on the same weights, nothing is done; anything
    else there is replaced.

    Raises:
        ConfigError, CheckpointError: as `main` does.
    """
    from hydra.utils import instantiate

    from unified_rl.models.merged_folder import is_merged, merge_folders

    folders = OmegaConf.to_container(config).get("checkpoints")
    if not (isinstance(folders, list) and folders and all(isinstance(f, str) for f in folders)):
        raise ConfigError(f"checkpoints={folders} must list folders: checkpoints='[A,B]'")
    checkpoints = [Path(folder) for folder in folders]
    base = None if config.base is None else Path(config.base)
    settings = OmegaConf.to_container(config.rule, resolve=True)
    del settings["_partial_"]  # how Hydra builds the rule says nothing of it
    output = Path(config.output)
    if not is_merged(output, checkpoints, base, settings):
        rule = instantiate(config.rule, _convert_="all")
        merge_folders(rule, checkpoints, base, output, settings)
    return output


def _merge_adapter(config: DictConfig, output: Path) -> None:
    from hydra.utils import instantiate

    from unified_rl.models.adapter_folder import merged
    from unified_rl.models.checkpoint import write_folder

    adapter = Path(config.checkpoint)
    policy = merged(instantiate(config.model, _convert_="all"), str(adapter), config.base)
    write_folder(output, policy.save, {"merged_from": str(adapter.resolve())})


if __name__ == "__main__":
    sys.exit(run(main, "merge", __doc__))
