"""Canonical keys: the same string for the same request, however it is worded.

Case, articles, plurals, openers, the order of two things and the direction in which a relation is
told make no difference: "A picture of two sheeps" is "a photo of two sheep", and "a dog left of a
cat" is "a cat right of a dog".
"""

import re
from collections.abc import Sequence

from unified_rl.prompting.phrases import Request
from unified_rl.prompting.world import NUMBERS, World

MOST_CHARACTERS = 400
"""A longer prompt is none that a builder writes."""
_FILLERS = frozenset(
    (
        *("a", "an", "the", "of", "and", "to", "on", "in", "there", "is", "are"),
        *("photo", "photograph", "picture", "image", "drawing", "painting", "showing"),
    )
)

Mention = tuple[int, str | None, str]
"""Count, colour and name of a thing."""


class KeyReader:
    """Keys of requests and of texts about one world.

    Args:
        world: whose things, colours and relations are known; all other words are not, fillers
            such as "picture" aside.
    """

    def __init__(self, world: World) -> None:
        self._inverse = {second: first for first, second in world.relations}
        self._colors = frozenset(world.colors)
        relations = [relation for pair in world.relations for relation in pair]
        self._relations = {tuple(relation.split()): relation for relation in relations}
        self._names: dict[tuple[str, ...], str] = {}
        for thing in world.things:
            # GenEval puts an s behind any name: "two sheeps", "four knifes".
            for form in (thing.name + "es", thing.name + "s", thing.plural, thing.name):
                self._names[tuple(form.split())] = thing.name
        units = [form for t in world.things if t.unit for form in (t.unit, f"{t.unit}s")]
        openers = [word for opener in world.openers for word in opener.split()]
        self._fillers = _FILLERS.union(units, openers)
        self._longest_name = max(map(len, self._names))
        self._longest_relation = max(map(len, self._relations))

    def of_request(self, request: Request) -> str:
        """The key of what a prompt asks for."""
        colors = request.colors or (None,) * len(request.things)
        pairs = zip(request.things, colors, strict=True)
        mentions = [(request.count, color, thing.name) for thing, color in pairs]
        return self._key(mentions, request.relation)

    def of_text(self, text: str) -> str | None:
        """The key of a prompt in free words; None if it says anything that no request can.

        A prompt with an unknown word, with more than two things, or with a number, colour or
        relation that belongs to nothing is such a one.
        """
        if len(text) > MOST_CHARACTERS:
            return None
        words = re.findall(r"[a-z0-9]+", text.casefold())
        mentions: list[Mention] = []
        count: int | None = None
        color = relation = None
        at = 0
        while at < len(words):
            word, name = words[at], self._name_at(words, at)
            # "an orange umbrella": a colour stands before a name, the fruit does not.
            is_color = word in self._colors and color is None
            if is_color and (name is None or self._name_at(words, at + 1) is not None):
                color, at = word, at + 1
            elif name is not None:
                mentions.append((1 if count is None else count, color, name[0]))
                count, color, at = None, None, at + name[1]
            elif (spoken := self._relation_at(words, at)) is not None:
                if relation is not None or len(mentions) != 1:
                    return None
                relation, at = spoken[0], at + spoken[1]
            elif (number := _number(word)) is not None and count is None:
                count, at = number, at + 1
            elif word in self._fillers:
                at += 1
            else:
                return None
        if count is not None or color is not None or not 1 <= len(mentions) <= 2:
            return None
        return None if relation and len(mentions) == 1 else self._key(mentions, relation)

    def _key(self, mentions: Sequence[Mention], relation: str | None) -> str:
        things = [f"{count} {color or '-'} {name}" for count, color, name in mentions]
        if relation is None:
            return " + ".join(sorted(things))
        if relation in self._inverse:
            relation, things = self._inverse[relation], things[::-1]
        return f"{things[0]} {relation} {things[1]}"

    def _name_at(self, words: list[str], at: int) -> tuple[str, int] | None:
        """The thing named there and the number of words that name it, the longest name first."""
        for length in range(self._longest_name, 0, -1):
            name = self._names.get(tuple(words[at : at + length]))
            if name is not None:
                return name, min(length, len(words) - at)
        return None

    def _relation_at(self, words: list[str], at: int) -> tuple[str, int] | None:
        for length in range(self._longest_relation, 0, -1):
            relation = self._relations.get(tuple(words[at : at + length]))
            if relation is not None:
                return relation, min(length, len(words) - at)
        return None


def _number(word: str) -> int | None:
    if word in NUMBERS:
        return NUMBERS.index(word)
    return int(word) if word.isdecimal() and len(word) <= 2 else None
