"""Asks a policy: prompt="..." draws, image=FILE beside it asks, task=story tells a story.
python -m unified_rl.generate prompt="draw a red circle" count=4
python -m unified_rl.generate prompt="what is the color of the object" image=picture.png
python -m unified_rl.generate checkpoint=FOLDER task=story prompts=prompts.txt
Written are PNG files, one line of JSON an answer, and a page.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.runtime.cli import INTERRUPTED, run, shorten

if TYPE_CHECKING:
    from unified_rl.core.behaviour import Behaviour
    from unified_rl.data.requests import BrokenRow, Request
    from unified_rl.models.base import UnifiedPolicy
    from unified_rl.runtime.gallery import Answer, Gallery

LITERAL = ("prompt", "image")
"""Settings whose values are texts: a comma in them is a comma, not a sweep."""
IN_QUOTES = re.compile(r"""(['"])(\\.|(?!\1)[^\\])*\1""", re.DOTALL)
"""A value that is quoted as a whole, not one that begins with a quotation."""
SHOWN = 12
"""Answers that the terminal shows."""


def main(config: DictConfig) -> int:
    """Answers the prompts and says where the answers are.

    Args:
        config: composed from `conf/generate.yaml`.
    """
    from hydra.utils import instantiate

    from unified_rl.runtime.asking import ask, askable, unknown_count
    from unified_rl.runtime.gallery import check_free
    from unified_rl.runtime.quiet import quieten

    quieten()
    _check_numbers(config)
    if config.checkpoint is not None:
        config.model.checkpoint = config.checkpoint
    if config.paths.output:  # before the weights are read
        check_free(Path(config.paths.output))
    requests, skipped = _requests(config)
    behaviour = instantiate(config.behaviour, _convert_="all")
    policy = _policy(config)
    requests = askable(policy, requests, behaviour, skipped.append)
    if not requests:
        line, _, reason = skipped[-1]
        raise DataError(f"{config.prompts}: no prompt can be asked; line {line}: {reason}")
    strange = [request.id for request in requests if unknown_count(policy, request)]
    if strange:
        of = f"{len(strange)} of {len(requests)} prompts ({strange[0]!r} for one)"
        print(f"warning: {of} hold words that this model does not know", file=sys.stderr)
    total = config.count * len(requests)
    with _gallery(config, behaviour, skipped) as gallery:
        batches = ask(
            policy,
            requests,
            behaviour,
            count=config.count,
            batch_size=config.batch_size,
            seed=config.seed,
            set_aside=gallery.skip,
        )
        shown, complete = _collect(batches, gallery, total)
    _print(gallery, shown)
    if not complete:
        print(f"interrupted: {gallery.count} of {total} answers are there", file=sys.stderr)
    return 0 if complete else INTERRUPTED


def _check_numbers(config: DictConfig) -> None:
    for name, least in (("count", 1), ("batch_size", 1), ("seed", 0), ("threads", 0)):
        if not isinstance(config[name], int) or config[name] < least:
            raise ConfigError(f"{name}={config[name]} must be a whole number from {least} on")


def _requests(config: DictConfig) -> tuple[list["Request"], list["BrokenRow"]]:
    from unified_rl.data.requests import read_requests, request_of

    images = _paths(config.image)
    if (config.prompt is None) == (config.prompts is None):
        given = "neither" if config.prompt is None else "both"
        raise ConfigError(f'{given} given: ask with prompt="..." or with prompts=FILE')
    if config.prompt is not None:
        return [request_of(str(config.prompt), config.task, images)], []
    root = config.image_root and Path(config.image_root)
    return read_requests(Path(config.prompts), config.task, images, root)


def _paths(image: str | ListConfig | None) -> list[str]:
    """The setting `image`: none, a path, a list, or paths with commas between."""
    if image is None:
        return []
    if isinstance(image, ListConfig):
        return [str(path) for path in image]
    return [image] if Path(image).exists() else image.split(",")


def _policy(config: DictConfig) -> "UnifiedPolicy":
    import torch
    from hydra.utils import instantiate

    from unified_rl.runtime.open_policy import settled_device

    if config.threads:
        torch.set_num_threads(config.threads)
    device = settled_device(config.device)
    return instantiate(config.policy, _convert_="all")().eval().to(device)


def _gallery(
    config: DictConfig, behaviour: "Behaviour", skipped: Sequence["BrokenRow"]
) -> "Gallery":
    from unified_rl.runtime.gallery import Gallery, next_free
    from unified_rl.runtime.provenance import provenance

    if config.paths.output:
        folder = Path(config.paths.output)
    else:
        name = shorten(config.prompt or Path(config.prompts).stem).strip("._-") or "prompt"
        folder = next_free(Path(config.paths.outputs) / "generate" / name)
    model, checkpoint = HydraConfig.get().runtime.choices.model, config.model.checkpoint
    weights = "/".join(Path(checkpoint).parts[-2:]) if checkpoint else "random weights"
    settings = {"model": model, "checkpoint": checkpoint}
    settings |= {name: config[name] for name in ("count", "batch_size")}
    settings["behaviour"] = asdict(behaviour)
    card = provenance(OmegaConf.to_container(config, resolve=True), config.seed)
    return Gallery(folder, f"{model}, {weights}", config.seed, settings, card, skipped)


def _collect(
    batches: Iterable[list["Answer"]], gallery: "Gallery", total: int
) -> tuple[list["Answer"], bool]:
    """Puts the answers into the gallery; the first of them, and False after an interrupt."""
    from unified_rl.runtime.progress import counting

    shown: list[Answer] = []
    try:
        with counting("generate") as progress:
            progress(0, total)
            for answers in batches:
                gallery.add(answers)
                shown += answers[: SHOWN - len(shown)]
                progress(gallery.count, total)
    except KeyboardInterrupt:
        return shown, False
    return shown, True


def _print(gallery: "Gallery", shown: Sequence["Answer"]) -> None:
    """Shows the first answers and says where all of them are."""
    from rich.console import Console
    from rich.text import Text

    from unified_rl.core.printable import printable
    from unified_rl.core.sample import Text as Words
    from unified_rl.runtime.gallery import IMAGES, PAGE, RESULTS, SKIPPED

    console = Console(soft_wrap=True)
    for place, answer in enumerate(shown):
        if not place or shown[place - 1].number != answer.number:
            console.print(Text(printable(answer.sample.prompt_text), style="bold"))
        for part, name in answer.parts():
            said = part.text if isinstance(part, Words) else str(gallery.folder / IMAGES / name)
            if said.strip():
                console.print(Text(f"  {answer.turn}  {printable(said)}"))
    if gallery.count > len(shown):
        console.print(Text(f"... and {gallery.count - len(shown)} more answers"))
    if gallery.skipped:
        line, _, reason = gallery.skipped[0]
        console.print(
            Text(
                f"{len(gallery.skipped)} rows were not asked, listed in "
                f"{gallery.folder / SKIPPED}; line {line}: {printable(reason)}"
            )
        )
    console.print(Text(f"results: {gallery.folder / RESULTS}\npage:    {gallery.folder / PAGE}"))


def literal(arguments: Sequence[str]) -> list[str]:
    """A command line whose `LITERAL` settings are quoted, so that a prompt may hold anything.

    Lists, values in quotes and null stay as they are, and so does everything in a sweep.
    """
    if {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    quoted = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        listed = name == "image" and value.startswith("[")
        as_is = value == "null" or listed or IN_QUOTES.fullmatch(value)
        if name in LITERAL and value and not as_is:
            text = value.replace("${", r"\${")  # no interpolation either
            argument = f"{name}={QuotedString(text, Quote.single).with_quotes()}"
        quoted.append(argument)
    return quoted


if __name__ == "__main__":
    sys.argv[1:] = literal(sys.argv[1:])
    sys.exit(run(main, "generate", __doc__))
