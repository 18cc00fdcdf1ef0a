"""Means with 95% intervals that respect which measurements belong together."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLE_COUNT = 2000
Z = 1.959964
"""Normal quantile of a two-sided 95% interval."""
_BLOCK = 250
"""Resamples drawn at once, which bounds memory."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval.

    Attributes:
        value: the mean.
        low: lower end, at most `value`.
        high: upper end, at least `value`.
        n: measurements behind it.
    """

    value: float
    low: float
    high: float
    n: int

    def scaled(self, factor: float) -> "Estimate":
        """The same estimate in other units; `factor` > 0."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.n)

    def to_json(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)


def estimate(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> Estimate:
    """The mean of values in [0, 1], its interval from 2000 resamples of whole clusters.

    Where no resample differs, as when all values are 0, the interval is Wilson's for as many
    trials as there are clusters (near the rule of three at 0 and 1), so it never has no width.

    Args:
        values: at least one, each in [0, 1].
        clusters: which prompt each value belongs to; None makes every value its own.
        seed: of the resampling.

    Raises:
        ValueError: no values, values out of range, or lengths that differ.
    """
    return macro_estimate({"": (values, clusters)}, seed)


def macro_estimate(
    groups: Mapping[str, tuple[Sequence[float], Sequence[Hashable] | None]],
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
) -> Estimate:
    """The mean of the groups' means, each group resampled by itself; else as `estimate`.

    Args:
        groups: values and clusters of each group.
        seed: of the resampling.
        weights: of each group's mean, at least 0, divided by their sum; None weighs all alike.

    Raises:
        ValueError: no groups, or a group that `estimate` refuses.
    """
    if not groups:
        raise ValueError("an estimate needs at least one group of values")
    rng = np.random.default_rng(seed)
    means, draws, cluster_count, value_count = [], [], 0, 0
    for name, (values, clusters) in groups.items():
        sums, counts = _by_cluster(name, values, clusters)
        means.append(sums.sum() / counts.sum())
        draws.append(_resampled(sums, counts, rng))
        cluster_count += len(sums)
        value_count += len(values)
    shares = None if weights is None else [weights[name] for name in groups]
    value = float(np.average(means, weights=shares))
    spread = np.average(draws, axis=0, weights=shares)
    low, high = np.quantile(spread, (0.025, 0.975)).tolist()
    if high - low < 1e-9:
        low, high = _wilson(value, cluster_count)
    return Estimate(value, min(low, value), max(high, value), value_count)


def _by_cluster(
    name: str, values: Sequence[float], clusters: Sequence[Hashable] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each cluster."""
    array = np.asarray(values, np.float64)
    clusters = range(len(array)) if clusters is None else clusters
    if not len(array) or len(array) != len(clusters):
        raise ValueError(f"{len(array)} values of {name!r} in {len(clusters)} clusters; need >= 1")
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"values of {name!r} leave [0, 1]: {array.min()}..{array.max()}")
    index: dict[Hashable, int] = {}
    members = [index.setdefault(cluster, len(index)) for cluster in clusters]
    return np.bincount(members, array), np.bincount(members).astype(np.float64)


def _resampled(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(RESAMPLE_COUNT,) means of as many clusters drawn with replacement."""
    size = len(sums)
    blocks = []
    for _ in range(RESAMPLE_COUNT // _BLOCK):
        times = rng.multinomial(size, np.full(size, 1 / size), size=_BLOCK)  # (_BLOCK, clusters)
        blocks.append((times @ sums) / (times @ counts))
    return np.concatenate(blocks)


def _wilson(share: float, n: int) -> tuple[float, float]:
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
