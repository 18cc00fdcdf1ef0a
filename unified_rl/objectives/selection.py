"""Which completions of a group to learn from, where drawing them costs less than learning."""

import torch
from torch import Tensor


def most_spread(outcome: Tensor, group_size: int, kept: int) -> Tensor:
    """Rows of the completions whose rewards vary most within their group.

    The subset of greatest variance is always the best few and the worst few, so that `kept + 1`
    splits have to be compared. Among equal rewards, the first rows count as the worse.

    Source: PODS (arXiv 2504.13818), max-variance down-sampling, theorem 3.1.

    Args:
        outcome: (B,) reward of each completion; rows [i * G, (i + 1) * G) are a group.
        group_size: G.
        kept: completions to keep of each group, from 2 to G.

    Returns:
        (B / G * kept,) int64, ascending, so that rows [i * kept, (i + 1) * kept) are a group.

    Raises:
        ValueError: G does not divide B, or `kept` is out of its range.
    """
    if not 2 <= kept <= group_size or len(outcome) % group_size:
        raise ValueError(
            f"kept={kept} must be from 2 to group_size={group_size}, which must divide "
            f"{len(outcome)} completions"
        )
    grouped = outcome.view(-1, group_size).double()
    order = grouped.argsort(dim=1, stable=True)
    splits = torch.stack(
        [
            torch.cat([order[:, :worst], order[:, group_size - kept + worst :]], dim=1)
            for worst in range(kept + 1)
        ],
        dim=1,
    )  # (P, kept + 1, kept)
    rewards = grouped[:, None].expand(-1, kept + 1, -1).gather(2, splits)
    best = rewards.var(2, unbiased=False).argmax(1)
    chosen = splits[torch.arange(len(grouped), device=outcome.device), best].sort(1).values
    first = torch.arange(len(grouped), device=outcome.device)[:, None] * group_size
    return (first + chosen).flatten()
