"""What a prompt asks for, put into words."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from unified_rl.prompting.world import NUMBERS, Thing, World


class Request(NamedTuple):
    """What a prompt asks for, before it has words.

    Attributes:
        category: of the six.
        opener: of the prompt.
        things: one or two, in the order in which the prompt names them.
        count: of the one thing; 1 except in counting.
        colors: one for each of the things, or empty.
        relation: of the first thing to the second, in positions.
    """

    category: str
    opener: str
    things: tuple[Thing, ...]
    count: int = 1
    colors: tuple[str, ...] = ()
    relation: str | None = None


@dataclass(frozen=True)
class PromptItem:
    """A prompt to draw, with a question about the drawing.

    Attributes:
        category: of the six.
        prompt: to draw.
        question: about the drawing.
        answer: gold, to the question.
        include: what must be seen, in the form of GenEval's metadata; of a position the second
            entry has the relation to the first.
    """

    category: str
    prompt: str
    question: str
    answer: str
    include: list[dict[str, Any]]


def one(thing: Thing, color: str | None = None) -> str:
    """A single one with its article: "a bench", "an orange umbrella", "a pair of red scissors"."""
    noun = f"{color} {thing.name}" if color else thing.name
    if thing.unit:
        noun = f"{thing.unit} of {noun}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def many(thing: Thing, count: int) -> str:
    """Several: "three vases", "two pairs of scissors"."""
    unit = f"{thing.unit}s of " if thing.unit else ""
    return f"{NUMBERS[count]} {unit}{thing.plural}"


def prompt_text(request: Request) -> str:
    """The prompt of a request."""
    things = request.things
    if request.count > 1:
        return f"{request.opener} {many(things[0], request.count)}"
    colors = request.colors or (None,) * len(things)
    nouns = [one(thing, color) for thing, color in zip(things, colors, strict=True)]
    return f"{request.opener} " + f" {request.relation or 'and'} ".join(nouns)


def put_into_words(request: Request, world: World) -> PromptItem:
    """A request with its prompt, question and gold answer."""
    wording, category = world.wording, request.category
    first, last = request.things[0], request.things[-1]
    answer = wording.answers[category].format(
        name=first.name,
        one=one(first),
        verb=first.verb,
        color=request.colors[0] if request.colors else "",
        other=last.name,
        other_one=one(last),
        other_verb=last.verb,
        other_color=request.colors[-1] if request.colors else "",
        many=many(first, request.count),
        relation=request.relation,
    )
    if wording.capitalised:
        answer = answer[0].upper() + answer[1:]
    return PromptItem(
        category, prompt_text(request), wording.questions[category], answer, _include(request)
    )


def _include(request: Request) -> list[dict[str, Any]]:
    if request.relation:
        subject, other = (thing.name for thing in request.things)
        return [
            {"class": other, "count": 1},
            {"class": subject, "count": 1, "position": [request.relation, 0]},
        ]
    include = [{"class": thing.name, "count": request.count} for thing in request.things]
    for entry, color in zip(include, request.colors, strict=False):
        entry["color"] = color
    return include
