"""What a benchmark's results say of how they were measured, and whether they may be compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from unified_rl.core.errors import ConfigError

PICTURES_ONLY = "pictures only: nothing is set that judges them"


def comparability(differences: Sequence[str]) -> str:
    """A label for a benchmark's headline number.

    Args:
        differences: from the published protocol, each a clause.
    """
    if not differences:
        return "by the published protocol"
    return f"not comparable with published numbers: {'; '.join(differences)}"


def check_limit(prompt_limit: int | None) -> None:
    """Raises ConfigError for a number of first prompts that leaves none."""
    if prompt_limit is not None and prompt_limit < 1:
        raise ConfigError(f"prompt_limit={prompt_limit} must be at least 1, or null for all")


def counts(name: str, count: int, published: int) -> list[str]:
    """A difference where another number of things is used than is published.

    Args:
        name: of the things, in the plural.
        count: ours.
        published: theirs.
    """
    return [] if count == published else [f"{count} {name}, published {published}"]


def model_name(described: Mapping[str, Any]) -> str:
    """The model of a judge, answerer or detector, as far as it describes itself."""
    known = (described.get(key) for key in ("model", "checkpoint", "name", "judge"))
    return str(next((value for value in known if value), "an unnamed model"))
