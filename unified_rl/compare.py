"""Prints files of results side by side, and beside the numbers that papers print.

    python -m unified_rl.compare outputs/evaluate/A outputs/evaluate/B/evaluation.json
    python -m unified_rl.compare base=FOLDER trained=FOLDER --markdown

Every row of ours is marked with what it was measured by and how that differs from the published
protocol.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from unified_rl.core.errors import UserError
from unified_rl.runtime.comparison import Table, markdown, read_result, tables

_WIDE = 240


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; `arguments` are those of the process where None.

    Returns:
        The exit code: 0 done, 2 something that the user can mend.
    """
    parser = argparse.ArgumentParser(prog="python -m unified_rl.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="+", metavar="[NAME=]FILE", help="evaluation.json files")
    parser.add_argument("--markdown", action="store_true", help="for a page")
    options = parser.parse_args(arguments)
    try:
        made = tables([read_result(file) for file in options.files])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    try:
        for table in made:
            if options.markdown:
                print(markdown(table) + "\n")
            else:
                show(table)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail again when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def show(table: Table) -> None:
    """Prints a table in the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE)
    for index, name in enumerate(table.header):
        grid.add_column(Text(name), justify="right" if index else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*map(Text, row))
    console = Console()
    if not console.is_terminal:  # a file or a pipe is as wide as it needs to be
        console = Console(width=_WIDE)
    console.print(Text(table.title))
    console.print(grid)
    for mark, note in table.notes:
        console.print(Text(f"  ({mark}) {note}" if mark else f"  {note}"))


if __name__ == "__main__":
    sys.exit(main())
