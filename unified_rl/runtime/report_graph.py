"""From which phase each phase of a pipeline goes on, for readers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unified_rl.runtime.phases import Phase, read_phases


@dataclass(frozen=True)
class Place:
    """Where a phase stands among the others.

    Attributes:
        name: of the phase.
        depth: how many phases lie between it and what the pipeline starts from.
        start: the phase whose weights it goes on from, and with which its scores are compared; of
            a merge its base, or else the first that it merges. None where there is no such phase.
        deed: what it does, in words.
        overrides: settings that it changes.
    """

    name: str
    depth: int
    start: str | None
    deed: str
    overrides: tuple[str, ...]


def places(entries: Sequence[Mapping[str, Any]] | None, names: Sequence[str]) -> list[Place]:
    """The phases as a tree, each followed by those that go on from it.

    Args:
        entries: phases as the pipeline's file lists them; None where they are not known.
        names: of the phases to place; a start that is not among them counts as none.

    Raises:
        ConfigError: entries that no pipeline would run.
    """
    planned = {p.name: p for p in read_phases(entries, "the summary's pipeline")} if entries else {}
    following: dict[str | None, list[str]] = defaultdict(list)
    for name in names:
        following[_start(planned.get(name), names)].append(name)
    found: list[Place] = []
    waiting: list[tuple[str | None, str, int]] = [(None, n, 0) for n in reversed(following[None])]
    while waiting:
        start, name, depth = waiting.pop()
        phase = planned.get(name)
        overrides = phase.overrides if phase else ()
        found.append(Place(name, depth, start, _deed(phase), overrides))
        waiting += [(name, other, depth + 1) for other in reversed(following[name])]
    return found


def _start(phase: Phase | None, names: Sequence[str]) -> str | None:
    if phase is None:
        return None
    start = (phase.merge.base or phase.merge.of[0]) if phase.merge else phase.start
    return start if start in names else None


def _deed(phase: Phase | None) -> str:
    if phase is None:
        return ""
    if phase.merge:
        return f"{phase.merge.rule} merge of {' and '.join(phase.merge.of)}"
    if phase.prefer:
        return "prefers among its own drawings and answers"
    return f"trains {phase.experiment}" if phase.experiment else "only scored"
