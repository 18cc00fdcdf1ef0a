"""How deep JSON may be nested: deeper values cannot be shown or written without an error."""

from typing import Any

NESTING = 64
"""Lists and objects in one another."""


def nested_too_deep(value: Any) -> bool:
    """Whether more than `NESTING` lists and objects stand in one another; takes no recursion."""
    level = [value]
    for _ in range(NESTING + 1):
        nested = [each for each in level if isinstance(each, list | dict)]
        if not nested:
            return False
        level = [
            child
            for each in nested
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return True
