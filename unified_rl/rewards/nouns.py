"""Names of things as people write them: singular or plural, and under their everyday synonyms."""

import functools
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

WORD_LIMIT = 4
"""Words of a name; it bounds the work on each word of a text."""

_IRREGULAR = MappingProxyType(
    {
        "person": ("people", "persons"),
        "man": ("men",),
        "woman": ("women",),
        "child": ("children",),
        "mouse": ("mice", "mouses"),
        "goose": ("geese",),
        "foot": ("feet",),
        "tooth": ("teeth",),
        "knife": ("knives",),
        "leaf": ("leaves",),
        "loaf": ("loaves",),
        "shelf": ("shelves",),
        "scarf": ("scarves", "scarfs"),
    }
)
_SYNONYMS = MappingProxyType(
    {
        "airplane": ("plane", "aeroplane"),
        "bicycle": ("bike",),
        "cell phone": ("phone", "mobile phone", "cellphone", "smartphone"),
        "computer keyboard": ("keyboard",),
        "computer mouse": ("mouse",),
        "couch": ("sofa",),
        "dining table": ("table",),
        "donut": ("doughnut",),
        "hair drier": ("hair dryer", "hairdryer"),
        "motorcycle": ("motorbike",),
        "person": ("man", "woman", "child", "boy", "girl"),
        "potted plant": ("plant",),
        "refrigerator": ("fridge",),
        "sports ball": ("ball",),
        "tv": ("television", "tv set"),
        "tv remote": ("remote", "remote control"),
    }
)

Words = tuple[str, ...]


def nouns(names: Iterable[str]) -> Mapping[Words, str]:
    """The name that each way of writing one of the names stands for, by its words.

    A synonym gives way to a name that is written so: where "mouse" is known, it is no computer's.

    Args:
        names: of `WORD_LIMIT` words at most each; a longer one can never be found.
    """
    own: dict[Words, str] = {}
    also: dict[Words, str] = {}
    for name in names:
        own |= dict.fromkeys(_written(name), name)
        for synonym in _SYNONYMS.get(name, ()):
            also |= dict.fromkeys(_written(synonym), name)
    return {**also, **own}


@functools.lru_cache(maxsize=4096)
def _written(name: str) -> tuple[Words, ...]:
    """A name and its plural or singular; more ways than there are do no harm."""
    *before, last = re.findall(r"[a-z0-9]+", name.lower()) or [""]
    return tuple((*before, form) for form in (last, *_other_number(last)))


def _other_number(word: str) -> tuple[str, ...]:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        # "buses"; and names that are plurals themselves: "skis", "scissors"
        return (f"{word}es", *([word[:-1]] if word.endswith("s") and word[-2:] != "ss" else ()))
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies", f"{word}s"
    if word.endswith("o"):
        return f"{word}s", f"{word}es"
    return (f"{word}s",)
