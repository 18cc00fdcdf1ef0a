"""The six kinds of prompts, by our names and by GenEval's tags."""

from types import MappingProxyType

from unified_rl.core.errors import ConfigError, nearest

GENEVAL_TAGS = MappingProxyType(
    {
        "single": "single_object",
        "two": "two_object",
        "counting": "counting",
        "colors": "colors",
        "position": "position",
        "attribution": "color_attr",
    }
)
"""GenEval's tag of each category."""
CATEGORIES = tuple(GENEVAL_TAGS)


def category_named(name: str) -> str:
    """The category of a name or of GenEval's tag.

    Raises:
        ConfigError: there is none; it names the nearest.
    """
    for category, tag in GENEVAL_TAGS.items():
        if name in (category, tag):
            return category
    known = {*GENEVAL_TAGS, *GENEVAL_TAGS.values()}
    raise ConfigError(f"category {name!r} does not exist; {nearest(name, known)}")
