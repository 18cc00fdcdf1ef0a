"""Values inside of a row, named by a path of fields."""

import json
from collections.abc import Mapping
from typing import Any

from unified_rl.core.errors import nearest
from unified_rl.data.quarantine import BrokenRowError


def field_of(row: Mapping[str, Any], path: str) -> Any:
    """What stands at "column.field.field" of a row; a text on the way is read as JSON.

    Raises:
        BrokenRowError: there is no such field; names those that there are.
    """
    value: Any = row
    for depth, name in enumerate(path.split(".")):
        if depth and isinstance(value, str | bytes):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise BrokenRowError(f"{path!r} is not in JSON: {str(error)[:200]}") from error
        if not isinstance(value, Mapping) or name not in value:
            known = nearest(name, value) if isinstance(value, Mapping) else "its parent has none"
            raise BrokenRowError(f"has no {path!r}; {known[:300]}")
        value = value[name]
    return value
