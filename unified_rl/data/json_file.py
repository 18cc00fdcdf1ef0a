"""A JSON file that holds a whole data set."""

import json
from pathlib import Path
from typing import Any

from unified_rl.core.errors import DataError

JSON_BYTES = 2 * 2**30
"""A larger file is refused unopened; JSON takes several times its size in memory."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Bytes that are not UTF-8 become half surrogates, which spoil the text that they stand in and no
    other one: `cells.text_of` refuses it.

    Raises:
        DataError: a file that is too large, truncated or not JSON.
    """
    try:
        size = path.stat().st_size
        if size > JSON_BYTES:
            raise DataError(f"{path} has {size} bytes, over {JSON_BYTES}; split it")
        return json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"{path} is not JSON: {str(error)[:200]}") from error
