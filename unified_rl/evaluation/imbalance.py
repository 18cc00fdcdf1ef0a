"""How far a model draws and understands the same things: accuracy of one task given the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from unified_rl.core.sample import Sample
from unified_rl.evaluation.drawings.protocol import counts
from unified_rl.evaluation.estimates import Estimate, estimate

_PROMPTS, _PICTURES = 553, 4


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


def differences_from_paper(settings: Mapping[str, Any], by_rules: bool) -> list[str]:
    """How a measurement with GenEval's prompts differs from UniRL's; never in nothing.

    Args:
        settings: of the suite.
        by_rules: whether rules judge the answers.
    """
    verifier = settings["verifier"]
    own = verifier.get("differences", []) if isinstance(verifier, Mapping) else []
    source = settings["source"]
    prompts = source.get("count", 0) if isinstance(source, Mapping) else 0
    return [
        *own,
        *counts("prompts", prompts, _PROMPTS),
        *([] if settings["prompts_per_category"] is None else ["prompts are a choice of these"]),
        *counts("pictures of a prompt", settings["images_per_prompt"], _PICTURES),
        *(["rules judge the answers, not Qwen2.5-7B-Instruct-1M"] if by_rules else []),
        f"the pictures asked about are by {settings['other']}; the paper's are not released",
    ]
