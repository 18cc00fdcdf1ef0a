"""The phases of a pipeline as a graph: what each does, and from which one it goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from unified_rl.core.errors import ConfigError, nearest

_DEEDS = ("experiment", "merge", "prefer")
_KEYS = ("name", *_DEEDS, "from", "pairs", "evaluate", "overrides")
_MERGE_KEYS = ("rule", "of", "base")
_PREFER_KEYS = ("count", "previous")
_TAKEN = ("scale", "provenance")
"""Names that mean something else in `summary.json`."""


@dataclass(frozen=True)
class Merge:
    """Makes one model of the checkpoints of several phases.

    Attributes:
        rule: an option of `conf/rule`.
        of: the phases, two or more.
        base: the phase that all of them started from; None where the rule needs none.
    """

    rule: str
    of: tuple[str, ...]
    base: str | None


@dataclass(frozen=True)
class Prefer:
    """Makes preferences with the policy that the phase goes on from.

    Attributes:
        count: prompts.
        previous: the phase that made those of the round before; None in the first round.
    """

    count: int
    previous: str | None


@dataclass(frozen=True)
class Phase:
    """One node of the graph: it trains, or merges, or makes preferences, or only evaluates.

    Attributes:
        name: of the phase, and of its folder.
        experiment: an option of `conf/experiment`, which trains; None does not train.
        merge: what it merges; None does not merge.
        prefer: which preferences it makes; None makes none.
        start: the phase from whose checkpoint it goes on; None is what the pipeline starts from.
        pairs: the phase whose preferences it trains on; None where it trains on other data.
        evaluate: whether its checkpoint is scored.
        overrides: of what it does, such as "iterations=100" or "rule.spread=3"; of its scoring
            where it does nothing else, such as "suite.behaviour_image.guidance_scale=5".
    """

    name: str
    experiment: str | None
    merge: Merge | None
    prefer: Prefer | None
    start: str | None
    pairs: str | None
    evaluate: bool
    overrides: tuple[str, ...]

    @property
    def makes_weights(self) -> bool:
        """Whether it leaves a checkpoint of its own."""
        return self.experiment is not None or self.merge is not None

    @property
    def only_scores(self) -> bool:
        """Whether it takes scores and does nothing else."""
        return self.experiment is None and self.merge is None and self.prefer is None

    @property
    def needs(self) -> tuple[str, ...]:
        """The phases that have to be done before."""
        if self.merge is not None:
            return (*self.merge.of, *([] if self.merge.base is None else [self.merge.base]))
        previous = None if self.prefer is None else self.prefer.previous
        return tuple(name for name in (self.start, self.pairs, previous) if name is not None)


def read_phases(entries: Sequence[Mapping[str, Any]], source: str) -> tuple[Phase, ...]:
    """The phases that a pipeline lists; without `from`, one goes on from the one before it.

    Args:
        entries: as they stand in the file.
        source: the file, for messages.

    Raises:
        ConfigError: an entry that cannot be meant so, a name that is unknown or given twice, or
            phases that wait for each other.
    """
    if not entries:
        raise ConfigError(f"{source} has no phases; list one under phases")
    phases: list[Phase] = []
    for number, entry in enumerate(entries, start=1):
        before = phases[-1].name if phases else None
        phases.append(_phase(entry, before, f"{source}, phase {number}", source))
    names = [phase.name for phase in phases]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{source} has two phases of the name {name!r}; rename one")
    preferring = [phase.name for phase in phases if phase.prefer is not None]
    for phase in phases:
        for other in phase.needs:
            if other not in names:
                hint = nearest(other, names)
                raise ConfigError(f"{source}, phase {phase.name!r} needs {other!r}; {hint}")
        for other in (phase.pairs, phase.prefer and phase.prefer.previous):
            if other is not None and other not in preferring:
                raise ConfigError(
                    f"{source}, phase {phase.name!r} needs preferences of {other!r}, which makes "
                    "none; name a phase with prefer"
                )
    _require_order(phases, source)
    return tuple(phases)


def needed(phases: Sequence[Phase], only: Sequence[str] | None, source: str) -> tuple[Phase, ...]:
    """The phases that are chosen, and those whose weights they need; only the former are scored.

    Args:
        phases: of the pipeline, in its order.
        only: names of the chosen ones; None chooses all.
        source: the file, for messages.

    Raises:
        ConfigError: a name that is unknown, or none at all.
    """
    if only is None:
        return tuple(phases)
    known = {phase.name: phase for phase in phases}
    if not only:
        raise ConfigError(f"choose.only=[] leaves nothing to do; {source} has {', '.join(known)}")
    for name in only:
        if name not in known:
            hint = nearest(str(name), known)
            raise ConfigError(f"choose.only: {source} has no phase {name!r}; {hint}")
    wanted: set[str] = set()
    waiting = list(only)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting.extend(known[name].needs)
    return tuple(
        phase if phase.name in only else replace(phase, evaluate=False)
        for phase in phases
        if phase.name in wanted
    )


def _phase(entry: Any, before: str | None, where: str, source: str) -> Phase:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    if not _is_name(name):
        raise ConfigError(f"{where} has the name {name!r}; give one that can be a folder's")
    where = f"{source}, phase {name!r}"
    _require_known(entry, _KEYS, where)
    experiment, merge = entry.get("experiment"), entry.get("merge")
    evaluate, overrides = entry.get("evaluate", False), entry.get("overrides", [])
    if experiment is not None and not isinstance(experiment, str):
        raise ConfigError(f"{where}: experiment={experiment} must be an option of conf/experiment")
    if not isinstance(evaluate, bool):
        raise ConfigError(f"{where}: evaluate={evaluate} must be true or false")
    if not _is_list_of_texts(overrides):
        raise ConfigError(f"{where}: overrides={overrides} must be a list such as [iterations=100]")
    deeds = [deed for deed in _DEEDS if entry.get(deed) is not None]
    if len(deeds) > 1:
        raise ConfigError(f"{where} has {' and '.join(deeds)}; make two phases of it")
    if not deeds and not evaluate:
        raise ConfigError(f"{where} does nothing; give experiment, merge, prefer or evaluate: true")
    if entry.get("prefer") is not None and evaluate:
        raise ConfigError(f"{where}: prefer makes no weights to score; leave evaluate out")
    pairs = entry.get("pairs")
    if not isinstance(pairs, str | None):
        raise ConfigError(f"{where}: pairs={pairs} must name one phase")
    if pairs is not None and experiment is None:
        raise ConfigError(
            f"{where}: pairs={pairs} is what an experiment trains on; give experiment"
        )
    start = entry.get("from")
    if not isinstance(start, str | None):
        raise ConfigError(f"{where}: from={start} must name one phase")
    if merge is not None and start is not None:
        raise ConfigError(f"{where}: a merge has no from; its base is merge.base")
    if merge is None and start is None:
        start = before
    merged = None if merge is None else _merge(merge, where)
    preferred = None if entry.get("prefer") is None else _prefer(entry["prefer"], where)
    return Phase(name, experiment, merged, preferred, start, pairs, evaluate, tuple(overrides))


def _merge(entry: Any, where: str) -> Merge:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: merge={entry} must say rule, of and base")
    _require_known(entry, _MERGE_KEYS, f"{where}, merge")
    rule, of, base = (entry.get(key) for key in _MERGE_KEYS)
    if not isinstance(rule, str):
        raise ConfigError(f"{where}: merge.rule={rule} must be an option of conf/rule")
    if not _is_list_of_texts(of) or len(set(of)) < 2 or len(set(of)) < len(of):
        raise ConfigError(f"{where}: merge.of={of} must list two phases or more, each once")
    if not isinstance(base, str | None):
        raise ConfigError(f"{where}: merge.base={base} must name one phase")
    return Merge(rule, tuple(of), base)


def _prefer(entry: Any, where: str) -> Prefer:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: prefer={entry} must say count and, in later rounds, previous")
    _require_known(entry, _PREFER_KEYS, f"{where}, prefer")
    count, previous = (entry.get(key) for key in _PREFER_KEYS)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"{where}: prefer.count={count} must be a number of prompts")
    if not isinstance(previous, str | None):
        raise ConfigError(f"{where}: prefer.previous={previous} must name one phase")
    return Prefer(count, previous)


def _require_order(phases: Sequence[Phase], source: str) -> None:
    try:
        TopologicalSorter({phase.name: phase.needs for phase in phases}).prepare()
    except CycleError as error:
        around = " -> ".join(reversed(error.args[1]))
        raise ConfigError(
            f"{source}, phase {error.args[1][0]!r} needs itself: {around}; change one of their from"
        ) from error
    done: set[str] = set()
    for phase in phases:
        for other in phase.needs:
            if other not in done:
                raise ConfigError(
                    f"{source}, phase {phase.name!r} needs {other!r}, which comes after it; put "
                    "that first"
                )
        done.add(phase.name)


def _require_known(entry: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in entry:
        if key not in keys:
            raise ConfigError(f"{where} has no setting {key!r}; {nearest(str(key), keys)}")


def _is_name(name: Any) -> bool:
    """Whether it can be a folder's and stand in a Hydra override."""
    return (
        isinstance(name, str)
        and name.replace("_", "").replace("-", "").isalnum()
        and name.isascii()
        and name not in _TAKEN
    )


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
