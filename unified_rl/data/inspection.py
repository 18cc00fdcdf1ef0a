"""What is in a source, counted: tasks, lengths, pictures, broken rows and duplicates."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unified_rl.core.sample import Image, Sample, Segment, Text
from unified_rl.data.source_walk import SourceWalk

SIZES = 1000
"""Different sizes of pictures that are told apart; further ones count as one."""
FURTHER = "(further sizes)"
_DIGEST = 12


class Lengths:
    """Lengths of many texts; four bytes each."""

    def __init__(self) -> None:
        self._values = array("L")

    def put(self, value: int) -> None:
        """Notes one."""
        self._values.append(value)

    def summary(self) -> dict[str, float] | None:
        """Least, mean, median, 95 of 100 and most; None of nothing."""
        if not self._values:
            return None
        values = np.frombuffer(self._values, dtype=f"u{self._values.itemsize}")
        median, high = np.quantile(values, (0.5, 0.95), method="inverted_cdf")
        return {
            "least": int(values.min()),
            "mean": round(float(values.mean()), 1),
            "median": int(median),
            "most_of_95%": int(high),
            "most": int(values.max()),
        }


@dataclass
class Inspection:
    """What was found in a source.

    Attributes:
        name: of the source.
        rows: it has; None where it is without an end.
        looked_at: places that were read.
        samples: found there.
        tasks: samples of each.
        lengths: of texts by what they are: "prompt characters" and so on.
        images_a_sample: samples by their number of pictures.
        image_sizes: pictures by their size, "640 x 480".
        repeated_ids: samples whose id another one had before.
        duplicates: samples that show and ask the same as one before.
        broken: rows, with what was lost before it became one.
        reasons: kinds of reasons why rows are broken, with counts.
        picked: places and samples to be shown.
    """

    name: str
    rows: int | None
    looked_at: int = 0
    samples: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Lengths] = field(default_factory=dict)
    images_a_sample: Counter[int] = field(default_factory=Counter)
    image_sizes: Counter[str] = field(default_factory=Counter)
    repeated_ids: int = 0
    duplicates: int = 0
    broken: int = 0
    reasons: list[tuple[str, int]] = field(default_factory=list)
    picked: list[tuple[int, Sample]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All of it but the samples."""
        return {
            "rows": self.rows,
            "looked_at": self.looked_at,
            "samples": self.samples,
            "tasks": dict(self.tasks),
            "lengths": {what: lengths.summary() for what, lengths in self.lengths.items()},
            "images_a_sample": dict(sorted(self.images_a_sample.items())),
            "image_sizes": dict(self.image_sizes.most_common()),
            "repeated_ids": self.repeated_ids,
            "duplicates": self.duplicates,
            "broken": self.broken,
            "reasons": [{"reason": reason, "rows": count} for reason, count in self.reasons],
        }


def inspect_source(
    name: str,
    source: Any,
    walk: SourceWalk,
    count: int | None = None,
    shown: int = 48,
    token_count: Callable[[str], int] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Looks at a source.

    Args:
        name: of the source.
        source: of samples or pairs.
        walk: of the source.
        count: places to look at, evenly spread; None looks at all.
        shown: samples to pick, evenly spread too.
        token_count: of a text, where a tokenizer is given.
        report: called with the number of places that are done, and of all.

    Raises:
        DataError: too many rows have turned out broken.
    """
    found = Inspection(name, len(walk) if walk.has_rows else None)
    places = _spread(len(walk), len(walk) if count is None else count)
    picks = set(_spread(len(places), shown))
    seen_ids: set[bytes] = set()
    seen: set[bytes] = set()
    for number, place in enumerate(places):
        samples = walk.samples_at(place)
        found.looked_at += 1
        for sample in samples:
            _count(found, sample, token_count)
            found.repeated_ids += _known(seen_ids, sample.id.encode("utf-8", "replace"))
            found.duplicates += _known(seen, _content(sample))
            if number in picks:
                found.picked.append((place, sample))
        report(number + 1, len(places))
    found.broken = getattr(source, "broken_count", 0)
    found.reasons = list(getattr(source, "broken_reasons", []))
    return found


def _count(found: Inspection, sample: Sample, token_count: Callable[[str], int] | None) -> None:
    found.samples += 1
    found.tasks[sample.task.value] += 1
    for side, segments in (("prompt", sample.prompt), ("target", sample.target)):
        texts = [segment.text for segment in segments if isinstance(segment, Text)]
        if texts:
            text = " ".join(texts)
            found.lengths.setdefault(f"{side} characters", Lengths()).put(len(text))
            if token_count is not None:
                found.lengths.setdefault(f"{side} tokens", Lengths()).put(token_count(text))
    images = [segment for segment in _segments(sample) if isinstance(segment, Image)]
    found.images_a_sample[len(images)] += 1
    for image in images:
        height, width = image.pixels.shape[:2]
        size = f"{width} x {height}"
        full = len(found.image_sizes) >= SIZES and size not in found.image_sizes
        found.image_sizes[FURTHER if full else size] += 1


def _content(sample: Sample) -> bytes:
    """What two samples have in common that show and ask the same."""
    digest = hashlib.blake2b(sample.task.encode(), digest_size=_DIGEST)
    for segment in _segments(sample):
        if isinstance(segment, Text):
            part = b"text" + segment.text.encode("utf-8", "replace")
        elif isinstance(segment, Image):
            part = repr(segment.pixels.shape).encode() + segment.pixels.tobytes()
        else:
            part = b"codes" + segment.codes.tobytes()
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _segments(sample: Sample) -> Iterator[Segment]:
    yield from sample.prompt
    yield from sample.target


def _known(seen: set[bytes], content: bytes) -> bool:
    digest = hashlib.blake2b(content, digest_size=_DIGEST).digest()
    known = digest in seen
    seen.add(digest)
    return known


def _spread(length: int, count: int) -> list[int] | range:
    """As many places as asked for of a length, evenly spread, each once."""
    if count >= length:
        return range(length)
    return [place * length // count for place in range(count)]
