"""How far a model draws and understands the same things: accuracy of one task given the other."""

from collections.abc import Sequence

from unified_rl.core.sample import Sample
from unified_rl.evaluation.estimates import Estimate, estimate


def conditional_accuracies(
    name: str, samples: Sequence[Sample], given: Sequence[bool], both: Sequence[bool]
) -> dict[str, Estimate]:
    """N(both right) / N(first right), over all samples and for each category.

    The first task is drawing for T2I->MMU and answering for MMU->T2I. The overall value is the
    share of all counted samples, so that categories count by how often their first task is right;
    where it never is there is no value. Samples of one id are resampled together.

    Source: UniRL 3.6, eq. 6, and Table 6, whose "overall" is this micro average: Table 4's
    accuracies times GenEval's numbers of prompts weigh its columns to .84, .80, .93 and .68 where
    it says .83, .81, .93 and .67; plain means of the columns are .74, .81, .92 and .63.

    Args:
        name: of the metric; that of a category is "<name>/<category>".
        samples: each with the fact "category".
        given: whether the first task is right, of each sample.
        both: whether the second one is right too; not read where the first is wrong.
    """
    values: dict[str, tuple[list[float], list[str]]] = {}
    for sample, first, second in zip(samples, given, both, strict=True):
        if first:
            for part in (name, f"{name}/{sample.facts['category']}"):
                scores, clusters = values.setdefault(part, ([], []))
                scores.append(float(second))
                clusters.append(sample.id)
    return {part: estimate(*group) for part, group in values.items()}


def described(first: str, given: Sequence[bool], both: Sequence[bool]) -> str:
    """The counts behind a conditional accuracy, for readers."""
    joint = sum(a and b for a, b in zip(given, both, strict=True))
    return f"{joint} both right of {sum(given)} {first} right of {len(given)}"
