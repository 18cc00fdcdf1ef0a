"""Writes prompts, questions and answers about everyday objects as JSON lines, as GenEval has them.

    python -m unified_rl.data.unirl_prompts --count 100 --seed 1 --category counting

None of GenEval's 553 prompts is written, in whatever words. Under the same options line i is always
the same.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence

from unified_rl.core.errors import ConfigError, UserError
from unified_rl.data.self_questions import everyday_builder
from unified_rl.prompting.builder import PromptBuilder
from unified_rl.prompting.categories import CATEGORIES, GENEVAL_TAGS, category_named
from unified_rl.prompting.everyday import everyday_world
from unified_rl.prompting.exclusion import benchmark_digests
from unified_rl.prompting.phrases import PromptItem

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; `arguments` are those of the process where None.

    Returns:
        The exit code: 0 done, also when the reader of a pipe has had enough; 2 something that the
        user can mend; 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        for line in _lines(options):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # What is still buffered would fail again when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def metadata(item: PromptItem) -> dict[str, object]:
    """A line of GenEval's metadata, with the question and the answer."""
    row: dict[str, object] = {"tag": GENEVAL_TAGS[item.category], "include": item.include}
    if item.category == "counting":
        row["exclude"] = [{**entry, "count": entry["count"] + 1} for entry in item.include]
    return {**row, "prompt": item.prompt, "question": item.question, "answer": item.answer}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m unified_rl.data.unirl_prompts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--count", type=int, default=10, metavar="N", help="lines to write; default 10")
    add("--seed", type=int, default=0, metavar="S", help="of the stream; default 0")
    add("--start", type=int, default=0, metavar="I", help="first line of the stream; default 0")
    names = ", ".join(name for pair in GENEVAL_TAGS.items() for name in dict.fromkeys(pair))
    add("--category", metavar="C", help=f"one of {names}; default: one of six at random a line")
    wordings = "of questions and answers: table (default, as in the paper) or released"
    add("--wording", default="table", metavar="W", help=wordings)
    add("--held-out", default="", metavar="A,B", help="objects that never appear, by name")
    files = "more prompts that are never written: one a line, or JSON lines with a 'prompt'"
    add("--exclude", metavar="FILE", help=files)
    counts = "write how many different prompts a category has instead; 20 seconds for all six"
    add("--distinct", action="store_true", help=counts)
    digests = "write the digests of a file's prompts instead; GenEval's give geneval_digests.txt"
    add("--digests", metavar="FILE", help=digests)
    return parser


def _lines(options: argparse.Namespace) -> Iterator[str]:
    if options.digests is not None:
        yield from _digest_lines(options.digests)
        return
    for name in ("count", "start"):
        if getattr(options, name) < 0:
            raise ConfigError(f"--{name} {getattr(options, name)} must be 0 or more")
    categories = CATEGORIES if options.category is None else (category_named(options.category),)
    held_out = [name.strip() for name in options.held_out.split(",") if name.strip()]
    builder = everyday_builder(options.wording, held_out, options.exclude, options.seed)
    for category in categories:
        builder.check(category)
    if options.distinct:
        for category in categories:
            yield json.dumps({"tag": GENEVAL_TAGS[category], "count": builder.count(category)})
        return
    for item in _items(builder, categories, range(options.start, options.start + options.count)):
        yield json.dumps(metadata(item))


def _items(
    builder: PromptBuilder, categories: Sequence[str], indices: range
) -> Iterator[PromptItem]:
    for index in indices:
        yield builder.mixed_item(index, categories)


def _digest_lines(path: str) -> Iterator[str]:
    digests, count = benchmark_digests(path, everyday_world())
    yield f"# Digests of the {len(digests)} different keys of {count} prompts; see exclusion.py."
    yield from sorted(digests)


if __name__ == "__main__":
    sys.exit(main())
