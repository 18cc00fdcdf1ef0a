"""What an answer about a picture states: objects, their colours and numbers, and relations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unified_rl.rewards.answer_words import COLORS, Token, tokens
from unified_rl.rewards.nouns import Words

Relation = tuple[str | None, str, str | None]
"""Subject, kind, object; None stands for whatever else is in the picture."""


@dataclass(eq=False)
class Mention:
    """One object as an answer speaks of it; colours and numbers in digits that belong to it."""

    name: str
    colors: set[str] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Statement:
    """What an answer states; what it denies is left out.

    Attributes:
        mentions: known objects, in order.
        colors: those that belong to no known object ("it is green").
        numbers: those that belong to no known object, in digits.
        relations: as told, in order.
    """

    mentions: list[Mention] = field(default_factory=list)
    colors: set[str] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)
    relations: list[Relation] = field(default_factory=list)

    def colors_of(self, name: str) -> set[str]:
        """All that are said of objects of one name."""
        return set().union(*(mention.colors for mention in self.mentions if mention.name == name))

    def numbers_of(self, name: str) -> set[str]:
        """All that are said of objects of one name."""
        return set().union(*(mention.numbers for mention in self.mentions if mention.name == name))


def read_answer(
    text: str,
    nouns: Mapping[Words, str],
    colors: frozenset[str] = COLORS,
    orange_is_color: bool = True,
) -> Statement:
    """Reads an answer in one pass; arguments as of `tokens`.

    A colour or number before an object belongs to it ("three red vases"). A colour behind objects
    belongs to the last one, to all of them ("both are red", "the chair and the vase are red"), or
    one to each where there are as many ("the chair and the vase are red and blue"). Of a relation
    the subject is the object named last in its sentence, or the second one behind it where none
    is ("left of the dog is a cat"); of two relations in a row it is the same.
    """
    reader = _Reader(tokens(text, nouns, colors, orange_is_color))
    reader.read()
    return reader.statement


class _Reader:
    """The state of one reading."""

    def __init__(self, said: Sequence[Token]) -> None:
        self.said = said
        self.statement = Statement()
        self.group: list[Mention] = []  # objects that a colour behind them may belong to
        self.closed = False  # the next object begins another group
        self.in_sentence = 0  # objects since the last stop
        self.denied = False  # the next thing stated is not the case
        self.before: list[Token] = []  # colours and numbers that wait for their object
        self.open: tuple[str | None, str, str] | None = None  # subject, kind, which end it awaits
        self.held: str | None = None  # the object of an open relation that waits for its subject
        self.related: tuple[str | None, int] = (None, 0)  # latest subject; objects named then

    def read(self) -> None:
        at = 0
        while at < len(self.said):
            at = self._take(at)
        self._stop()

    def _take(self, at: int) -> int:
        """Reads the token at a place, and gives the place behind what was read."""
        token = self.said[at]
        if token.kind == "object":
            self._object(token.value)
        elif token.kind == "number":
            self.before += [] if self._is_denied() else [token]
        elif token.kind == "color":
            return self._color(at)
        elif token.kind in ("relation", "place"):
            self._relation(token, self.said[at - 1] if at else None)
        elif token.kind == "stop":
            self._stop()
        elif token.kind in ("copula", "pause"):
            self._loosen()
            self.closed |= token.kind == "copula"
            self.denied &= token.kind == "copula"  # "no, it is ..."
        elif token.kind == "negation":
            self.denied = True
        return at + 1

    def _object(self, name: str) -> None:
        before, self.before = self.before, []
        if self._is_denied():
            return
        mention = Mention(
            name,
            {token.value for token in before if token.kind == "color"},
            {token.value for token in before if token.kind == "number"},
        )
        self.statement.mentions.append(mention)
        self.in_sentence += 1
        self.group = [mention] if self.closed else [*self.group, mention]
        self.closed = False
        self._close_relation(name)

    def _close_relation(self, name: str) -> None:
        """Gives an object to the relation that waits for one."""
        if self.open is None:
            return
        subject, kind, awaited = self.open
        if awaited == "both":
            self.held, self.open = name, (None, kind, "subject")
        elif awaited == "subject":
            self._relate(name, kind, self.held)
        else:
            self._relate(subject, kind, name)

    def _relate(self, subject: str | None, kind: str, other: str | None) -> None:
        self.statement.relations.append((subject, kind, other))
        self.related = subject, len(self.statement.mentions)
        self.open = self.held = None

    def _relation(self, token: Token, last: Token | None) -> None:
        self._loosen()
        self._finish_relation()
        if self._is_denied():
            return
        opens_clause = last is None or last.kind in ("pause", "joint", "stop")
        subject = self.group[-1].name if self.group and self.in_sentence else None
        if self.in_sentence and self.related[1] == len(self.statement.mentions):
            subject = self.related[0]  # "the dog is left of the cat and above it"
        self.closed = True
        if token.kind == "place" and subject is not None and not opens_clause:
            self._relate(subject, token.value, None)
        elif token.kind == "place":
            self.open = (None, token.value, "subject")
        elif subject is not None or opens_clause:
            self.open = (subject, token.value, "both" if subject is None else "object")
        else:  # "it is left of the dog"
            self.open = (None, token.value, "object")

    def _finish_relation(self) -> None:
        """A relation that nothing follows is one to whatever else there is."""
        if self.open is not None:
            subject, kind, _ = self.open
            if subject is not None or self.held is not None:
                self._relate(subject, kind, self.held)
        self.open = self.held = None

    def _color(self, at: int) -> int:
        run, end = self._run(at)
        if self._is_denied():
            return end
        if self._leads(end) and not self._tells(at):
            self.before += run
        elif not self.group:
            self.statement.colors |= {token.value for token in run}
        else:
            self._give(run, at)
        return end

    def _run(self, at: int) -> tuple[list[Token], int]:
        """The colours that follow each other, and the place behind them."""
        run, end = [self.said[at]], at + 1
        while True:
            following = end
            while following < len(self.said) and self.said[following].kind in ("joint", "pause"):
                following += 1
            if following == len(self.said) or self.said[following].kind != "color":
                return run, end
            paused = any(token.kind == "pause" for token in self.said[end:following])
            apart = following > end and (paused or self._tells(at)) and self.in_sentence
            if self.said[following].article or (apart and self._leads(following + 1)):
                return run, end  # of "it is blue, red vases ..." the first
            run.append(self.said[following])
            end = following + 1

    def _tells(self, at: int) -> bool:
        """Whether a colour says what the objects before it are."""
        copula = at > 0 and self.said[at - 1].kind == "copula" and not self.said[at].article
        return copula and bool(self.group) and self.in_sentence > 0

    def _leads(self, at: int) -> bool:
        """Whether an object follows at once, or behind adjectives."""
        while at < len(self.said) and self.said[at].kind == "adjective":
            at += 1
        ahead = self.said[at : at + 1]
        return bool(ahead) and ahead[0].kind == "object" and not ahead[0].article

    def _give(self, run: list[Token], at: int) -> None:
        values = [token.value for token in run]
        recent = [token.value for token in self.said[max(0, at - 3) : at]]
        shared = "are" in recent or "both" in recent
        if len(self.group) == len(values) > 1:
            for mention, value in zip(self.group, values, strict=True):
                mention.colors.add(value)
        elif shared and len(values) == 1:
            for mention in self.group:
                mention.colors.add(values[0])
        else:
            self.group[-1].colors |= set(values)
        self.closed = True

    def _is_denied(self) -> bool:
        """Whether what is just stated is denied, which holds for nothing behind it."""
        denied, self.denied = self.denied, False
        return denied

    def _loosen(self) -> None:
        """What waits for an object belongs to none."""
        for token in self.before:
            kept = self.statement.colors if token.kind == "color" else self.statement.numbers
            kept.add(token.value)
        self.before = []

    def _stop(self) -> None:
        self._loosen()
        self._finish_relation()
        self.closed, self.denied, self.in_sentence = True, False, 0
