"""Whether a picture shows what GenEval asks for, given the objects found in it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from unified_rl.core.errors import ConfigError
from unified_rl.evaluation.geneval.detections import Detections, Found
from unified_rl.evaluation.geneval.geometry import DEAD_ZONE, overlap, relations
from unified_rl.evaluation.geneval.metadata import Clause, Request

ColoursOf = Callable[[Sequence[Found], str], Sequence[str | None]]
"""The colour of each object of a class, None where none can be told."""


@dataclass(frozen=True)
class Thresholds:
    """Which objects count.

    Attributes:
        score: an object must be surer than this.
        counting_score: the same for the task "counting".
        most_objects: of a class, the surest.
        max_overlap: of two objects of a class that overlap by this or more, the surer one stays;
            1 keeps both, which is GenEval's default.
        dead_zone: see `geometry.relations`.

    Raises:
        ConfigError: a share outside of [0, 1], or fewer than one object.
    """

    score: float = 0.3
    counting_score: float = 0.9
    most_objects: int = 16
    max_overlap: float = 1.0
    dead_zone: float = DEAD_ZONE

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "most_objects" and not 0 <= value <= 1:
                raise ConfigError(f"thresholds.{name}={value} must be from 0 to 1")
        if self.most_objects < 1:
            raise ConfigError(f"thresholds.most_objects={self.most_objects} must be at least 1")

    @property
    def official(self) -> bool:
        """Whether these are GenEval's own."""
        return self == Thresholds()


class Verdict(NamedTuple):
    """What a scorer says of a picture.

    Attributes:
        correct: whether it shows what was asked for.
        reason: why not, a line for each clause; "" if it is correct.
    """

    correct: bool
    reason: str


def kept(detections: Detections, counting: bool, thresholds: Thresholds) -> dict[str, list[Found]]:
    """The objects that count, of each class the surest first; classes without any are left out.

    Source: GenEval, evaluate_images.py, `evaluate_image`.
    Departs: GenEval reverses an unstable sort, so that the order of equal scores depends on the
    machine; here the later object goes first, as a stable sort reversed has it.
    """
    least = thresholds.counting_score if counting else thresholds.score
    result: dict[str, list[Found]] = {}
    for name, objects in detections.items():
        scores = np.array([found.score for found in objects], np.float32)  # as detectors give them
        order = np.argsort(scores, kind="stable")[::-1]
        sure = [objects[i] for i in order if scores[i] > least][: thresholds.most_objects]
        chosen = _apart(sure, thresholds.max_overlap)
        if chosen:
            result[name] = chosen
    return result


def verdict(
    request: Request,
    objects: Mapping[str, Sequence[Found]],
    colours_of: ColoursOf,
    dead_zone: float = DEAD_ZONE,
) -> Verdict:
    """Whether every included clause holds and no excluded one.

    Only the surest `count` objects of a clause are looked at for its colour and position. A clause
    that relates to one that did not hold does not hold either; else each of its objects must stand
    so to each object of the other.

    Source: GenEval, evaluate_images.py, `evaluate`.

    Args:
        request: what was asked for.
        objects: from `kept`.
        colours_of: asked only for clauses with a colour.
        dead_zone: see `geometry.relations`.
    """
    reasons: list[str] = []
    matched: list[Sequence[Found] | None] = []
    for clause in request.include:
        found = objects.get(clause.name, ())[: clause.count]
        problem = _missing(clause, found, colours_of)
        if problem is None and clause.target is not None:
            problem = _misplaced(clause, found, matched[clause.target], dead_zone)
        matched.append(None if problem else found)
        reasons += [problem] if problem else []
    for clause in request.exclude:
        count = len(objects.get(clause.name, ()))
        if count >= clause.count:
            reasons.append(f"expected {clause.name}<{clause.count}, found {count}")
    return Verdict(not reasons, "\n".join(reasons))


def _apart(objects: list[Found], max_overlap: float) -> list[Found]:
    """Without those that overlap a surer one."""
    if max_overlap == 1:
        return objects
    chosen: list[Found] = []
    for found in objects:
        if all(overlap(surer.box, found.box) < max_overlap for surer in chosen):
            chosen.append(found)
    return chosen


def _missing(clause: Clause, found: Sequence[Found], colours_of: ColoursOf) -> str | None:
    """What lacks of a clause's number and colours; None if nothing."""
    if len(found) < clause.count:
        return f"expected {clause.name}>={clause.count}, found {len(found)}"
    if clause.color is None:
        return None
    seen = Counter(colours_of(found, clause.name))
    if seen[clause.color] >= clause.count:
        return None
    listed = ", ".join(f"{count} {colour or 'unclear'}" for colour, count in seen.items())
    return f"expected {clause.color} {clause.name}>={clause.count}, found {listed}"


def _misplaced(
    clause: Clause, found: Sequence[Found], targets: Sequence[Found] | None, dead_zone: float
) -> str | None:
    """What is wrong with where a clause's objects stand; None if nothing."""
    if targets is None:
        return f"no target for {clause.name} to be {clause.relation}"
    for one in found:
        for target in targets:
            holding = relations(one.box, target.box, dead_zone)
            if clause.relation not in holding:
                where = " and ".join(sorted(holding)) or "nowhere to"
                return f"expected {clause.name} {clause.relation} target, found {where} target"
    return None
