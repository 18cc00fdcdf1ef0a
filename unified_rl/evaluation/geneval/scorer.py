"""Who says whether a picture shows what GenEval asks for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unified_rl.core.errors import DataError
from unified_rl.data.jsonl import BrokenRowError, existing_file, numbered_lines, parse_row
from unified_rl.evaluation.geneval.colours import Colours
from unified_rl.evaluation.geneval.detections import Detector, Found
from unified_rl.evaluation.geneval.metadata import Request
from unified_rl.evaluation.geneval.scoring import Thresholds, Verdict, kept, verdict

_REASON = 2000


class Scorer(Protocol):
    """Judges pictures one by one."""

    def __call__(self, name: str, pixels: np.ndarray, request: Request) -> Verdict:
        """Whether a picture shows what was asked for.

        Args:
            name: of its file within the folder, "00000/samples/00000.png".
            pixels: uint8 (height, width, 3).
            request: what was asked for.
        """
        ...

    def describe(self) -> Mapping[str, Any]:
        """What judges and how, JSON-able; "differences" lists what is not GenEval's own."""
        ...


class DetectionScorer:
    """GenEval's rules over a detector.

    Args:
        detector: finds the objects.
        colours: tells their colours; needed for the tasks "colors" and "color_attr".
        thresholds: GenEval's own by default.
    """

    def __init__(
        self,
        detector: Detector,
        colours: Colours | None = None,
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
    ) -> None:
        self._detector, self._colours, self._thresholds = detector, colours, thresholds

    def __call__(self, name: str, pixels: np.ndarray, request: Request) -> Verdict:
        """Whether the detected objects are those that were asked for.

        Raises:
            DataError: a colour is asked for and there are no `colours`.
        """

        def colours_of(objects: Sequence[Found], kind: str) -> Sequence[str | None]:
            if self._colours is None:
                raise DataError(
                    f"{request.prompt!r} asks for a colour; set scorer.colours to a classifier"
                )
            return self._colours(pixels, objects, kind)

        found = self._detector.detect(name, pixels)
        objects = kept(found, request.tag == "counting", self._thresholds)
        return verdict(request, objects, colours_of, self._thresholds.dead_zone)

    def describe(self) -> dict[str, Any]:
        """Detector, colours, thresholds, and how they differ from GenEval's."""
        detector = dict(self._detector.describe())
        differences = []
        if not detector.get("official"):
            differences.append(
                f"the detector is {detector.get('detector')} ({detector.get('model')}), not "
                "GenEval's mmdet mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco"
            )
        if not self._thresholds.official:
            differences.append("thresholds are not GenEval's")
        return {
            "scorer": "detections",
            "detector": detector,
            "colours": None if self._colours is None else dict(self._colours.describe()),
            "thresholds": {name: getattr(self._thresholds, name) for name in _names()},
            "differences": differences,
        }


class OfficialResults:
    """Verdicts that GenEval's own tool wrote: its results.jsonl.

    A picture is found by the end of its file name, "<folder>/samples/<number>.png", and must have
    been asked for with the same prompt.

    Args:
        results: path of that file.

    Raises:
        DataError: no such file, a broken row, or two verdicts on one picture.
    """

    def __init__(self, results: str) -> None:
        self._path = Path(results)
        self._verdicts: dict[tuple[int, int], tuple[str, Verdict]] = {}
        with existing_file(self._path).open("rb") as file:
            for number, _, line in numbered_lines(file):
                try:
                    self._add(parse_row(line))
                except BrokenRowError as error:
                    raise DataError(f"{self._path} line {number} {error}") from error

    def __call__(self, name: str, pixels: np.ndarray, request: Request) -> Verdict:
        """The tool's verdict.

        Raises:
            DataError: it has none on this picture, or one for another prompt.
        """
        prompt, judged = self._verdicts.get(place_of(name) or (-1, -1), ("", None))
        if judged is None:
            raise DataError(f"{self._path} has no verdict on {name}; run GenEval's tool again")
        if prompt != request.prompt:
            raise DataError(
                f"{self._path} judges {name} for {prompt[:80]!r}, but it was drawn for "
                f"{request.prompt[:80]!r}; the file is of another folder"
            )
        return judged

    def describe(self) -> dict[str, Any]:
        """The file."""
        return {"scorer": "GenEval's results.jsonl", "file": str(self._path), "differences": []}

    def _add(self, row: Mapping[str, Any]) -> None:
        name, correct, prompt = row.get("filename"), row.get("correct"), row.get("prompt")
        place = place_of(name) if isinstance(name, str) else None
        if place is None:
            raise BrokenRowError("has no 'filename' that ends in <folder>/samples/<number>.png")
        if not isinstance(correct, bool) or not isinstance(prompt, str):
            raise BrokenRowError("lacks 'correct', true or false, or the text 'prompt'")
        if place in self._verdicts:
            raise BrokenRowError(f"judges {name[-60:]!r} a second time")
        reason = "" if correct else str(row.get("reason", ""))[:_REASON]
        self._verdicts[place] = (prompt, Verdict(correct, reason))


def place_of(name: str) -> tuple[int, int] | None:
    """Number of the prompt and of its picture; None for what is no path of GenEval's layout."""
    parts = name.replace("\\", "/").split("/")[-3:]
    if len(parts) != 3 or parts[1] != "samples" or not parts[2].endswith(".png"):
        return None
    folder, number = parts[0], parts[2].removesuffix(".png")
    if not all(p.isascii() and p.isdigit() and len(p) < 10 for p in (folder, number)):
        return None
    return int(folder), int(number)


def row_of(name: str, request: Request, judged: Verdict) -> str:
    """A line of results as GenEval's summary_scores.py reads it."""
    return json.dumps(
        {
            "filename": name,
            "tag": request.tag,
            "prompt": request.prompt,
            "correct": judged.correct,
            "reason": judged.reason,
            "metadata": json.dumps(request.row),
        }
    )


def _names() -> tuple[str, ...]:
    return tuple(Thresholds.__dataclass_fields__)
