r"""Writes the samples of any data source in our own schema: JSONL with images, or tar shards.
python -m unified_rl.data.build data=coco_captions output=FOLDER \
  data.sources.coco_captions.path=FILE
python -m unified_rl.data.build data=jsonl output=FOLDER format=webdataset \
  data.sources.jsonl.path=FILE
What is built is read with data=jsonl (path: FOLDER/rows.jsonl) or data=webdataset (path: FOLDER).
A build that was killed goes on under the same command.
"""

import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.runtime.cli import run


def main(config: DictConfig) -> int:
    """Builds `output` from a source.

    Args:
        config: composed from `conf/build_data.yaml`.

    Raises:
        ConfigError: no such source, or `output` is taken.
        DataError: the source cannot be read, or nothing of it written.
    """
    from hydra.utils import instantiate

    from unified_rl.data.building import build
    from unified_rl.data.source_walk import SourceWalk
    from unified_rl.runtime.progress import counting

    names = [name for name in config.data.sources if config.source in (None, name)]
    if not names:
        raise ConfigError(f"source={config.source}: {nearest(config.source, config.data.sources)}")
    if len(names) > 1:
        raise ConfigError(f"data has the sources {', '.join(names)}; choose one with source=")
    settings = config.data.sources[names[0]]
    if config.original_sizes and "image_size" in settings:
        settings.image_size = None
    walk = SourceWalk(
        instantiate(settings, _convert_="all"), config.count, config.draws, config.seed
    )
    output = Path(config.output)
    described = {
        "source": OmegaConf.to_container(settings, resolve=True),
        **{name: config[name] for name in ("format", "count", "draws", "seed", "samples_per_part")},
    }
    with counting(names[0], delay_s=10) as report:
        counts = build(
            walk,
            output,
            config.format,
            config.samples_per_part,
            described,
            lambda passed: report(passed, len(walk)),
        )
    print(
        f"{output}: {counts.written} samples; {counts.broken} broken rows, {counts.repeated} with "
        f"an id that was taken and {counts.refused} that cannot be written are left out"
    )
    return 0


if __name__ == "__main__":
    sys.exit(run(main, "build_data", __doc__))
