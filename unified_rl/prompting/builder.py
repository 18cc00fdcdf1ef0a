"""Writes prompts with questions and answers: item i of a seed is the same wherever it is made."""

import hashlib
import math
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence

from unified_rl.core.errors import ConfigError, nearest
from unified_rl.prompting.categories import CATEGORIES, category_named
from unified_rl.prompting.phrases import PromptItem, Request, put_into_words
from unified_rl.prompting.world import World

ATTEMPTS = 64
"""Redraws before what remains of a category is listed and drawn from."""


class PromptBuilder:
    """Prompts of six categories over a world, each with a question and its gold answer.

    An item depends on (world, seed, category, index) alone, through a hash that is the same on
    every machine and in every version of a library; no item needs an earlier one. What is excluded
    is drawn anew. A prompt may come again: a category has as many as `count` says.

    Two things of a prompt differ, and so do two colours.

    Source: UniRL (arXiv 2505.23380) 3.2 and Table 1, which follow GenEval's procedure.

    Args:
        world: what prompts speak of.
        seed: of the stream.
        held_out: names of things that never appear.
        excludes: tells what must not become a prompt; None excludes nothing.

    Raises:
        ConfigError: a held-out thing that the world does not have.
    """

    def __init__(
        self,
        world: World,
        seed: int = 0,
        held_out: Collection[str] = (),
        excludes: Callable[[Request], bool] | None = None,
    ) -> None:
        names = [thing.name for thing in world.things]
        for name in held_out:
            if name not in names:
                raise ConfigError(f"held_out={name!r} is no object; {nearest(name, names)}")
        self._world, self._seed, self._excludes = world, seed, excludes
        things = tuple(thing for thing in world.things if thing.name not in held_out)
        self._things, self._colorable = things, tuple(t for t in things if t.takes_color)
        self._relations = tuple(relation for pair in world.relations for relation in pair)
        thing_count, colorable_count = len(things), len(self._colorable)
        color_count = len(world.colors)
        # How many ways there are to choose each part of a request, the last part fastest.
        self._radices = {
            "single": (thing_count,),
            "two": (thing_count, thing_count - 1),
            "counting": (thing_count, len(world.counts)),
            "colors": (colorable_count, color_count),
            "position": (thing_count, thing_count - 1, len(self._relations)),
            "attribution": (colorable_count, colorable_count - 1, color_count, color_count - 1),
        }
        self._sizes = {
            category: max(0, len(world.openers) * math.prod(radices))
            for category, radices in self._radices.items()
        }
        self._remaining: dict[str, array] = {}

    def item(self, category: str, index: int) -> PromptItem:
        """Item `index` (0 or more) of the category's stream.

        Raises:
            ConfigError: nothing remains of the category, or there is no such category.
        """
        category = category_named(category)
        if index < 0:
            raise ValueError(f"index={index} must be at least 0")
        for attempt in range(ATTEMPTS if self._sizes[category] else 0):
            rank = self._hash(category, index, attempt) % self._sizes[category]
            request = self._request(category, rank)
            if not self._excluded(request):
                return put_into_words(request, self._world)
        remaining = self._listed(category)
        rank = remaining[self._hash(category, index, ATTEMPTS) % len(remaining)]
        return put_into_words(self._request(category, rank), self._world)

    def mixed_item(self, index: int, categories: Sequence[str] = CATEGORIES) -> PromptItem:
        """Item `index` of the stream that draws one of the categories, all alike, at each item."""
        return self.item(categories[self._hash("category", index, 0) % len(categories)], index)

    def check(self, category: str) -> None:
        """Makes sure that something remains of a category.

        Raises:
            ConfigError: nothing does.
        """
        category = category_named(category)
        if not any(True for _ in self._ranks(category)):
            what = f"its {self._sizes[category]} prompts are all excluded"
            if not self._sizes[category]:
                what = "too few objects are left"
            raise ConfigError(
                f"nothing remains of category {category!r}: {what}; hold out or exclude less, or "
                "leave the category out"
            )

    def count(self, category: str) -> int:
        """How many different prompts the category has; looks at each of them."""
        return sum(1 for _ in self._ranks(category_named(category)))

    def all_items(self, category: str) -> Iterator[PromptItem]:
        """Every prompt of the category once, in a fixed order."""
        category = category_named(category)
        for rank in self._ranks(category):
            yield put_into_words(self._request(category, rank), self._world)

    def _listed(self, category: str) -> array:
        """Ranks of what remains of a category, at least one; listed once."""
        if category not in self._remaining:
            self.check(category)
            self._remaining[category] = array("Q", self._ranks(category))
        return self._remaining[category]

    def _ranks(self, category: str) -> Iterator[int]:
        """Ranks of the requests that are not excluded."""
        for rank in range(self._sizes[category]):
            if not self._excluded(self._request(category, rank)):
                yield rank

    def _excluded(self, request: Request) -> bool:
        return self._excludes is not None and self._excludes(request)

    def _hash(self, category: str, index: int, attempt: int) -> int:
        text = f"{self._seed}/{category}/{index}/{attempt}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")

    def _request(self, category: str, rank: int) -> Request:
        """The request of a rank in 0..size: ranks count through all choices."""
        digits = []
        for radix in reversed(self._radices[category]):
            rank, digit = divmod(rank, radix)
            digits.append(digit)
        digits.reverse()
        opener, world = self._world.openers[rank], self._world
        if category == "single":
            return Request(category, opener, (self._things[digits[0]],))
        if category == "counting":
            count = world.counts[digits[1]]
            return Request(category, opener, (self._things[digits[0]],), count)
        if category == "colors":
            colors = (world.colors[digits[1]],)
            return Request(category, opener, (self._colorable[digits[0]],), colors=colors)
        pool = self._colorable if category == "attribution" else self._things
        things = _two_of(pool, digits[0], digits[1])
        if category == "two":
            return Request(category, opener, things)
        if category == "position":
            return Request(category, opener, things, relation=self._relations[digits[2]])
        return Request(category, opener, things, colors=_two_of(world.colors, digits[2], digits[3]))


def _two_of(pool: Sequence, first: int, second: int) -> tuple:
    """Two different members: `second` counts through those that are not the first."""
    return pool[first], pool[second + (second >= first)]
