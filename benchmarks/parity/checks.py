"""One folder of recorded tensors, what we make of each, and whether the two agree."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unified_rl.core.errors import DataError

FAILURES = ("FAIL", "MISSING", "UNKNOWN")


class Golden(NamedTuple):
    """A folder of the golden format.

    Attributes:
        weights: of the published model, under its own names.
        io: what went in and what came out, by name; flags are uint8, 0 or 1.
        config: sizes, ids, settings of the runs, notes.
    """

    weights: dict[str, Tensor]
    io: dict[str, Tensor]
    config: dict[str, Any]


class Check(NamedTuple):
    """What we make of one recorded tensor: |ours - golden| <= absolute + relative * |golden|.

    Attributes:
        ours: None if there is nothing to compute: an input, or documentation.
        absolute: in the tensor's unit.
        relative: as a fraction of the recorded value.
        where: bool, broadcastable to the tensor: the elements that mean anything. None: all.
        note: printed beside the verdict.
    """

    ours: Tensor | None
    absolute: float = 5e-6
    relative: float = 1e-5
    where: Tensor | None = None
    note: str = ""


GIVEN = Check(None, note="input")
REPLAYED = Check(None, note="draws that are replayed")
DOCUMENTED = Check(None, note="documentation only")


def exact(ours: Tensor, where: Tensor | None = None) -> Check:
    """Equal in every element, or in those of `where`."""
    return Check(ours, absolute=0.0, relative=0.0, where=where)


class Line(NamedTuple):
    """The verdict on one tensor.

    Attributes:
        name: of the tensor.
        difference: the largest one; None where nothing was compared.
        check: what it was held against; None for a tensor that the family does not know.
        verdict: "ok", "given" or one of `FAILURES`.
        note: why, where a word is needed.
    """

    name: str
    difference: float | None
    check: Check | None
    verdict: str
    note: str


def read(folder: Path) -> Golden:
    """Reads `weights.safetensors`, `io.safetensors` and `config.json`.

    Raises:
        DataError: a file is missing or unreadable.
    """
    try:
        weights, io = (load_file(folder / f"{name}.safetensors") for name in ("weights", "io"))
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(" ".join(str(error).split()) or type(error).__name__) from error
    if not isinstance(config, dict):
        raise DataError("config.json is not an object")
    return Golden(weights, io, config)


def judge(name: str, check: Check, golden: Golden) -> Line:
    """Compares in float64; what is not a number, or of another shape, never agrees."""
    if name not in golden.io:
        return Line(name, None, check, "MISSING", "not in io.safetensors")
    if check.ours is None:
        return Line(name, None, check, "given", check.note)
    theirs, ours = golden.io[name], check.ours.detach()
    if ours.shape != theirs.shape:
        shapes = f"shape {tuple(ours.shape)}, recorded {tuple(theirs.shape)}"
        return Line(name, None, check, "FAIL", shapes)
    ours, theirs = ours.double(), theirs.double()
    where = torch.ones_like(theirs, dtype=torch.bool) if check.where is None else check.where
    where = where.bool().expand_as(theirs)
    difference = torch.where(ours == theirs, 0.0, (ours - theirs).abs())[where]
    allowed = (check.absolute + check.relative * theirs.abs())[where]
    same = (ours == theirs)[where]  # infinities have no difference
    agrees = bool((same | (difference <= allowed)).all())  # False for a NaN on either side
    largest = float(difference.max()) if difference.numel() else 0.0
    return Line(name, largest, check, "ok" if agrees else "FAIL", check.note)


def judge_all(checks: Iterable[tuple[str, Check]], golden: Golden) -> Iterator[Line]:
    """A line for every check, then one for every recorded tensor that had none.

    Raises:
        RuntimeError: the family checks a name twice.
    """
    seen: set[str] = set()
    why = "nothing here computes it"
    try:
        for name, check in checks:
            if name in seen:
                raise RuntimeError(f"{name} is checked twice")
            seen.add(name)
            yield judge(name, check, golden)
    except KeyError as error:  # an input or a setting; what follows cannot be computed
        missing = str(error.args[0])
        seen.add(missing)
        yield Line(missing, None, None, "MISSING", "neither in io.safetensors nor in config.json")
        why = f"not reached without {missing}"
    for name in sorted(golden.io.keys() - seen):
        yield Line(name, None, None, "UNKNOWN", why)
