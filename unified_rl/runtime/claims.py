"""Claims of a paper as comparisons of rows, and whether our seeds bear them out."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

SEEDS_FOR_A_CLAIM = 3
PROMPTS_FOR_A_CLAIM = 500

Pairing = Literal["paired", "independent"]
"""How the error of a difference is taken; see `judge`."""


@dataclass(frozen=True)
class Comparison:
    """One row against another on one score.

    Attributes:
        metric: the score.
        lower: the row to beat.
        higher: the row that is said to beat it, or not to.
        expect: "gain" says that `higher` scores higher, "no_gain" that it does not.
    """

    metric: str
    lower: str
    higher: str
    expect: Literal["gain", "no_gain"]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and the comparisons that must all hold for it.

    Attributes:
        text: the sentence.
        comparisons: one or more.
    """

    text: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Verdict:
    """What our numbers say of a comparison.

    Attributes:
        word: "reproduced", "not reproduced" or "inconclusive".
        reason: the difference with its standard error, or what is lacking.
    """

    word: str
    reason: str


def judge(comparison: Comparison, results: Mapping[str, Any], pairing: Pairing) -> Verdict:
    """Whether a difference of two rows exceeds two standard errors of itself.

    A gain of more than that is a gain, one of less than its negative the opposite, and what lies
    between is inconclusive. A claim of no gain holds unless there is a gain: that the difference
    was too small to be seen, not that it is 0, as its standard error shows.

    "paired": rows of one seed share their start, the order of their data and the prompts they are
    scored on, so what the seed brings cancels in the difference. The mean over the seeds that both
    rows have, and the standard error of that mean from the spread of the differences. The right one
    wherever rows share seeds; of three seeds the spread is known badly, and equal rows pass the two
    errors by chance in 9 of 100 cases (Student's t with 2 degrees of freedom).
    "independent": as if seeds were not shared, from the spread of each row; that ignores what the
    rows have in common, and is mostly the wider one (4 degrees of freedom: 6 of 100). The first
    tables of this repository were judged so.

    Args:
        comparison: what is claimed.
        results: by row; `seeds`, and by metric `mean`, `std`, `values` in the order of the seeds,
            and `n`, the fewest prompts behind one of them.
        pairing: see above.
    """
    rows = [results.get(row) for row in (comparison.lower, comparison.higher)]
    if None in rows:
        return _too_few_seeds()
    low, high = rows
    seeds = sorted(set(low["seeds"]) & set(high["seeds"]))
    counts = [len(low["seeds"]), len(high["seeds"])]
    if (len(seeds) if pairing == "paired" else min(counts)) < SEEDS_FOR_A_CLAIM:
        return _too_few_seeds()
    prompts = min(row[comparison.metric]["n"] for row in rows)
    if prompts < PROMPTS_FOR_A_CLAIM:
        return Verdict("inconclusive", f"n = {prompts}, fewer than {PROMPTS_FOR_A_CLAIM}")
    if pairing == "paired":
        values = [dict(zip(r["seeds"], r[comparison.metric]["values"], strict=True)) for r in rows]
        gains = [values[1][seed] - values[0][seed] for seed in seeds]
        difference = statistics.mean(gains)
        error = statistics.stdev(gains) / len(gains) ** 0.5
    else:
        before, after = (row[comparison.metric] for row in rows)
        difference = after["mean"] - before["mean"]
        error = ((before["std"] ** 2 + after["std"] ** 2) / min(counts)) ** 0.5
    return Verdict(
        _word(difference, error, comparison.expect),
        f"{difference:+.3f}, standard error {error:.3f}",
    )


def sentence(claim: Claim, verdicts: list[Verdict], labels: Mapping[str, str]) -> str:
    """The verdicts on a claim's comparisons as one line; it holds only if all of them do.

    Args:
        claim: what was judged.
        verdicts: one for each of its comparisons.
        labels: of the rows, for readers.
    """
    if len(verdicts) == 1:
        return f"{verdicts[0].word} ({verdicts[0].reason})"
    words = {verdict.word for verdict in verdicts}
    worst_first = ("not reproduced", "inconclusive", "reproduced")
    overall = next(word for word in worst_first if word in words)
    parts = [
        f"{c.metric.replace('_', ' ')}, {labels[c.higher]} against {labels[c.lower]}: "
        f"{verdict.word} ({verdict.reason})"
        for c, verdict in zip(claim.comparisons, verdicts, strict=True)
    ]
    return f"{overall}<br>" + "<br>".join(parts)


def _too_few_seeds() -> Verdict:
    return Verdict("inconclusive", f"fewer than {SEEDS_FOR_A_CLAIM} seeds")


def _word(difference: float, error: float, expect: str) -> str:
    if expect == "no_gain":
        return "not reproduced" if difference > 2 * error else "reproduced"
    if abs(difference) <= 2 * error:
        return "inconclusive"
    return "reproduced" if difference > 0 else "not reproduced"
