"""Shows what is in data: counts, lengths, broken rows, duplicates, and a page of pictures.
python -m unified_rl.data.inspect data=coco_captions data.sources.coco_captions.path=FILE
python -m unified_rl.data.inspect data=warmup draws=200
python -m unified_rl.data.inspect data=jsonl data.sources.jsonl.path=FILE tokenizer=FOLDER
It writes index.html, inspection.json and lists of broken rows into paths.output.
"""

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from unified_rl.core.durable import write_text
from unified_rl.core.errors import ConfigError
from unified_rl.runtime.cli import run
from unified_rl.runtime.output import settle_output

if TYPE_CHECKING:
    from unified_rl.data.inspection import Inspection


def main(config: DictConfig) -> int:
    """Looks at all sources of a data config.

    Args:
        config: composed from `conf/inspect_data.yaml`.

    Raises:
        ConfigError: no such tokenizer, or a setting outside of its range.
        DataError: a source cannot be read.
    """
    from unified_rl.data.contact_sheet import contact_sheet

    for name, least in (("count", 1), ("draws", 1), ("shown", 0)):
        if config[name] is not None and config[name] < least:
            raise ConfigError(f"{name}={config[name]} must be at least {least}")
    output = settle_output(config)
    output.mkdir(parents=True, exist_ok=True)
    token_count = _token_count(config.tokenizer)
    found = [_inspected(name, config, output, token_count) for name in config.data.sources]
    report = {each.name: each.as_json() for each in found}
    title = f"Data: {', '.join(report)}"
    settings = OmegaConf.to_yaml(config.data, resolve=True)
    write_text(output / "inspection.json", json.dumps(report, indent=2) + "\n")
    write_text(output / "index.html", contact_sheet(title, found, settings))
    for each in found:
        print(_lines(each))
    print(f"page: {output / 'index.html'}")
    return 0


def _inspected(
    name: str, config: DictConfig, output: Path, token_count: Callable[[str], int] | None
) -> "Inspection":
    from hydra.utils import get_object, instantiate

    from unified_rl.data.inspection import inspect_source
    from unified_rl.data.source_walk import SourceWalk
    from unified_rl.runtime.progress import counting

    settings = config.data.sources[name]
    takes = inspect.signature(get_object(settings["_target_"])).parameters
    changes: dict[str, Any] = {"max_broken": 1.0}  # broken rows are what is looked for
    if settings.get("quarantine") is None:
        changes["quarantine"] = str(output / f"{name}.broken.jsonl")
    if config.original_sizes:
        changes["image_size"] = None
    changes = {key: value for key, value in changes.items() if key in takes}
    source = instantiate(settings, _convert_="all", **changes)
    walk = SourceWalk(source, None, config.draws, config.seed)
    with counting(name, delay_s=10) as report:
        return inspect_source(name, source, walk, config.count, config.shown, token_count, report)


def _token_count(folder: str | None) -> Callable[[str], int] | None:
    """How many tokens a text has, by the tokenizer in a folder; no code of it is run."""
    if folder is None:
        return None
    from transformers import AutoTokenizer

    if not Path(folder).is_dir():
        raise ConfigError(f"tokenizer={folder} is not a folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library raises whatever its parts do
        reason = str(error).strip().partition("\n")[0][:200]
        raise ConfigError(f"tokenizer={folder} cannot be read: {reason}") from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _lines(found: "Inspection") -> str:
    """What the terminal says of a source."""
    figures = found.as_json()
    rows = "draws" if found.rows is None else f"of {found.rows} rows"
    lines = [f"{found.name}: {found.samples} samples, {found.looked_at} {rows} looked at"]
    lines.append(f"  tasks: {', '.join(f'{task} {count}' for task, count in found.tasks.items())}")
    for what, summary in figures["lengths"].items():
        values = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in summary.items())
        lines.append(f"  {what}: {values}")
    counts = figures["images_a_sample"].items()
    lines.append(f"  pictures a sample: {', '.join(f'{n} in {count}' for n, count in counts)}")
    sizes = list(figures["image_sizes"].items())
    if sizes:
        shown = ", ".join(f"{size} ({count})" for size, count in sizes[:5])
        more = f" and {len(sizes) - 5} more sizes" if len(sizes) > 5 else ""
        lines.append(f"  sizes: {shown}{more}")
    lines.append(f"  duplicates: {found.duplicates}, ids given twice: {found.repeated_ids}")
    lines.append(f"  broken: {found.broken}")
    lines += [f"    {count} x {reason}" for reason, count in found.reasons[:20]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run(main, "inspect_data", __doc__))
