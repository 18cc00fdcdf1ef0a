"""Rollouts and their scores as bytes, between a trainer and a reward server.

A message is a safetensors file: pictures, codes and scores as tensors, and all the rest as JSON in
a tensor of bytes named "json". Nothing of it can be executed, unpacks to more than it is, or is
rounded: scores arrive to the last bit.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.sample import Completion, DrawnImage, Image, Sample, Segment, Task, Text
from unified_rl.core.trajectory import RewardScores, Rollout, Trajectory

VERSION = 1
MOST_ROWS = 1 << 16
"""Completions in one message."""
MOST_COUNTS = 100
_SCORES = {"outcome": (1, np.float32), "steps": (2, np.float32), "judged": (1, np.bool_)}


class Scored(NamedTuple):
    """What a reward says of a rollout.

    Attributes:
        scores: of its completions.
        counts: what the reward counts itself, such as `JudgedReward.counts`; finite.
    """

    scores: RewardScores
    counts: Mapping[str, float]


class WireError(ValueError):
    """Bytes that are no such message, or a rollout that cannot be one; a clause that says why."""


def pack_rollout(rollout: Rollout) -> bytes:
    """Samples, completions and group size; the tokens stay where they are.

    Raises:
        WireError: facts of a sample that are not JSON.
    """
    packer = _Packer()
    distinct = {id(sample): sample for sample in rollout.samples}
    places = {key: place for place, key in enumerate(distinct)}
    content = {
        "version": VERSION,
        "group_size": rollout.group_size,
        "samples": [packer.sample(sample) for sample in distinct.values()],
        "rows": [places[id(sample)] for sample in rollout.samples],
        "completions": [
            {"segments": packer.segments(one.segments), "finished": one.finished}
            for one in rollout.completions
        ],
    }
    return packer.packed(content)


def unpack_rollout(message: bytes) -> Rollout:
    """The rollout of a message, with an empty trajectory.

    Raises:
        WireError: the bytes are none.
    """
    content, tensors = _opened(message)
    try:
        if content["version"] != VERSION:
            raise WireError(f"of version {content['version']!r:.20}, not {VERSION}")
        if len(content["rows"]) > MOST_ROWS or len(content["samples"]) > MOST_ROWS:
            raise WireError(f"of more than {MOST_ROWS} rows")
        samples = [_sample(one, tensors) for one in content["samples"]]
        completions = tuple(
            Completion(_segments(one["segments"], tensors), _checked(one["finished"], bool))
            for one in content["completions"]
        )
        rows = tuple(samples[_place(row)] for row in content["rows"])
        if not rows:
            raise WireError("of no completions")
        group_size = _checked(content["group_size"], int)
        return Rollout(rows, completions, empty_trajectory(len(completions)), group_size)
    except WireError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"not of the form of a rollout ({type(error).__name__})") from error


def pack_scored(scored: Scored) -> bytes:
    """Scores as they are, without those that are None, and counts."""
    tensors = {
        name: np.ascontiguousarray(part.cpu().numpy().astype(_SCORES[name][1], copy=False))
        for name, part in scored.scores._asdict().items()
        if part is not None
    }
    return _Packer(tensors).packed({"version": VERSION, "counts": dict(scored.counts)})


def unpack_scored(message: bytes, row_count: int) -> Scored:
    """The scores of so many completions, and counts.

    Raises:
        WireError: the bytes are none.
    """
    content, tensors = _opened(message)
    parts: dict[str, torch.Tensor | None] = dict.fromkeys(_SCORES)
    for name, (dimensions, dtype) in _SCORES.items():
        if name not in tensors:
            continue
        found = tensors[name]
        if found.dtype != dtype or found.ndim != dimensions or len(found) != row_count:
            raise WireError(f"of {name} {found.dtype} {found.shape} for {row_count} completions")
        parts[name] = torch.from_numpy(found.copy())
    if parts["outcome"] is None:
        raise WireError("without outcomes")
    scores = RewardScores(parts["outcome"], parts["steps"], parts["judged"])
    return Scored(scores, _counts(content.get("counts")))


def empty_trajectory(row_count: int) -> Trajectory:
    """Rows of a single position that nobody chose, for rewards that look at no token."""
    return Trajectory(
        Behaviour(),
        torch.zeros(row_count, 1, 1),
        torch.zeros(row_count, 1, 1, dtype=torch.bool),
        torch.zeros(row_count, 1, dtype=torch.long),
        torch.zeros(row_count, 1, dtype=torch.long),
        {},
    )


class _Packer:
    """Gathers the tensors of a message; an array that is shown twice is sent once."""

    def __init__(self, tensors: Mapping[str, np.ndarray] | None = None) -> None:
        self._tensors = dict(tensors or {})
        self._names: dict[int, str] = {}

    def sample(self, sample: Sample) -> dict[str, Any]:
        return {
            "id": sample.id,
            "task": sample.task.value,
            "prompt": self.segments(sample.prompt),
            "target": self.segments(sample.target),
            "facts": dict(sample.facts),
        }

    def segments(self, segments: Sequence[Segment]) -> list[dict[str, str]]:
        return [self._segment(segment) for segment in segments]

    def _segment(self, segment: Segment) -> dict[str, str]:
        if isinstance(segment, Text):
            return {"text": segment.text}
        kind = "pixels" if isinstance(segment, Image) else "codes"
        array = getattr(segment, kind)
        name = self._names.setdefault(id(array), f"{kind}.{len(self._names)}")
        self._tensors[name] = np.ascontiguousarray(array)
        return {kind: name}

    def packed(self, content: Mapping[str, Any]) -> bytes:
        try:
            said = json.dumps(content, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise WireError(f"facts that are not JSON ({error})") from error
        return save(self._tensors | {"json": np.frombuffer(said, np.uint8)})


def _opened(message: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        tensors = load(message)
        content = json.loads(tensors.pop("json").tobytes())
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise WireError(f"no safetensors with JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise WireError("without a JSON object")
    return content, tensors


def _sample(content: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Sample:
    return Sample(
        _checked(content["id"], str),
        Task(content["task"]),
        _segments(content["prompt"], tensors),
        _segments(content["target"], tensors),
        _checked(content["facts"], dict),
    )


def _segments(content: Sequence[Any], tensors: Mapping[str, np.ndarray]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for one in content:
        ((kind, value),) = one.items()
        if kind == "text":
            segments.append(Text(_checked(value, str)))
        elif kind == "pixels":
            segments.append(Image(tensors[value].copy()))  # what is loaded is read-only
        elif kind == "codes":
            segments.append(DrawnImage(tensors[value].copy()))
        else:
            raise WireError("with a segment that is neither text, pixels nor codes")
    return tuple(segments)


def _place(row: Any) -> int:
    if _checked(row, int) < 0:
        raise WireError("with a row before the first sample")
    return row


def _counts(content: Any) -> dict[str, float]:
    counts = _checked(content, dict)
    if len(counts) > MOST_COUNTS or not all(name.isidentifier() for name in counts):
        raise WireError(f"with counts that are not at most {MOST_COUNTS} names")
    if not all(math.isfinite(_checked(value, float)) for value in counts.values()):
        raise WireError("with counts that are not finite")
    return counts


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:  # True is no int
        raise WireError(f"with a {type(value).__name__} where a {kind.__name__} belongs")
    return value
