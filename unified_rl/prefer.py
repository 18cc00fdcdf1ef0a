"""Lets a policy prefer among its own drawings and answers, for stage=pair_dpo to learn from.
python -m unified_rl.prefer model=micro_vila_u count=160
python -m unified_rl.prefer model.checkpoint=FOLDER previous=FOLDER paths.output=FOLDER
A killed run goes on with the same command; `previous` are the preferences of the round before.
"""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError
from unified_rl.runtime.cli import run
from unified_rl.runtime.output import settle_output


def main(config: DictConfig) -> int:
    """Makes preferences and says where they are.

    Args:
        config: composed from `conf/prefer.yaml`.
    """
    output = settle_output(config)
    found = prefer_from(config)
    print(
        f"preferences: {output}, of {found['prompts']} prompts {found['drawing_pairs']} with "
        f"drawings and {found['answer_pairs']} with answers"
    )
    return 0


def prefer_from(config: DictConfig, label: str = "prefer", anew: bool = False) -> dict[str, Any]:
    """Makes the preferences that the configuration names, as far as they are not there.

    Args:
        config: composed from `conf/prefer.yaml`.
        label: what the progress bar says.
        anew: whether preferences in `paths.output` that were made in another way are replaced.

    Returns:
        The folder's summary; see `PreferenceFolder.finish`.

    Raises:
        ConfigError: there are preferences made in another way, or too few prompts.
        DataError: prompts without questions, or nothing that is to be preferred.
    """
    import torch
    from hydra.utils import instantiate

    from unified_rl.data.mixture import MixtureStream
    from unified_rl.data.preferences import PreferenceFolder
    from unified_rl.evaluation.preference_builder import distinct
    from unified_rl.runtime.open_policy import settled_device
    from unified_rl.runtime.progress import counting
    from unified_rl.runtime.quiet import quieten

    quieten()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = settled_device(config.device)
    folder = PreferenceFolder(Path(config.paths.output))
    previous = None if config.previous is None else PreferenceFolder(Path(config.previous))
    if previous is not None and previous.path.resolve() == folder.path.resolve():
        raise ConfigError(f"previous={config.previous} is where the new preferences are written")
    digest = None if previous is None else previous.summary()["digest"]
    builder = instantiate(config.builder, _convert_="all")
    data = instantiate(config.data, _convert_="all")
    samples = distinct(MixtureStream(data.sources, data.ratios, data.seed), config.count)
    folder.begin(_manifest(config, digest), anew)
    torch.manual_seed(config.seed)  # of a model of random weights
    make_policy = instantiate(config.policy, _convert_="all")
    with counting(label) as progress:
        return builder.build(
            lambda: make_policy().eval().to(device), samples, folder, previous, progress
        )


def _manifest(config: DictConfig, previous: str | None) -> dict[str, Any]:
    """All that decides over a prompt's preferences; how many prompts there are does not."""
    from unified_rl.models.checkpoint import weights_hash

    settings = OmegaConf.to_container(config, resolve=True)
    checkpoint = settings["model"].pop("checkpoint")
    return {
        "weights": None if checkpoint is None else weights_hash(Path(checkpoint)),
        "previous": previous,
        **{name: settings[name] for name in ("model", "builder", "data", "seed")},
    }


if __name__ == "__main__":
    sys.exit(run(main, "prefer", __doc__))
