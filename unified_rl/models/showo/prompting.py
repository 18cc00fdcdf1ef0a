"""The authors' rule for texts longer than the room that they give them."""

from unified_rl.decoding.tape import Columns, Kind


def cut(columns: Columns, most: int, closing: int = 1) -> Columns:
    """Drops what stands too much, from the end but for the last `closing` columns; in place.

    Source: training/prompting_utils.py of the official code, which keeps the end-of-text token of
        prompts and captions, and drops that of mere text.

    Args:
        columns: a prompt without its twin, or a prompt with its answer.
        most: columns that stay.
        closing: 1 keeps the last column, 0 does not.
    """
    end = len(columns) - closing
    start = min(end, most - closing)
    for field in vars(columns).values():
        if isinstance(field, list):
            del field[start:end]
    return columns


def behind_images(columns: Columns) -> int:
    """How many columns stand up to the end token of the last image shown; 0 without images."""
    shown = [place for place, kind in enumerate(columns.kind) if kind == Kind.PIXEL]
    return shown[-1] + 2 if shown else 0
