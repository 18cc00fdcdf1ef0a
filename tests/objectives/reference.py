"""GRPO written from the equations: python loops over scalars in double precision, no masks."""

import torch
from torch import Tensor

from unified_rl.objectives.grpo import GrpoObjective


def invent(seed: int, rows: int = 6, length: int = 7, depth: int = 3) -> dict[str, Tensor]:
    """A float32 batch of ragged mixed rows; text only at depth 0; the last row holds no action.

    Off-mask entries are not zero, so that a loss which reads them is found out.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(rows, length, depth, generator=generator)

    modality = torch.randint(2, (rows, length), generator=generator)
    mask = torch.rand(rows, length, depth, generator=generator) < 0.7
    mask[:, :, 1:] &= (modality == 1).unsqueeze(-1)
    mask[-1] = False
    base = -noise(1.0).abs() - 0.5
    return {
        "logprobs": base + noise(0.2),
        "behaviour_logprobs": base,
        "reference_logprobs": base + noise(0.2),
        "advantages": torch.randn(rows, generator=generator),
        "token_advantages": torch.randn(rows, length, generator=generator),
        "action_mask": mask,
        "modality": modality,
    }


def units_of(batch: dict[str, Tensor], row: int, unit: str) -> list[list[tuple[int, int, int]]]:
    """The (row, position, depth) triples of each ratio: one list a position, or one a code."""
    _, length, depth = batch["action_mask"].shape
    units = []
    for t in range(length):
        codes = [(row, t, d) for d in range(depth) if batch["action_mask"][row, t, d]]
        if codes:
            units += [codes] if unit == "position" else [[code] for code in codes]
    return units


def loop_loss(objective: GrpoObjective, batch: dict[str, Tensor], token_level: bool) -> Tensor:
    """- 1/B sum_i 1/|Y_i| sum_t min(...) + beta KL, and the two other normalisations."""
    aggregation = objective.aggregation
    weight_of = {0: aggregation.text_weight, 1: aggregation.image_weight}
    rows = batch["action_mask"].shape[0]
    row_sums, row_weights = [], []
    for i in range(rows):
        row_sum, row_weight = torch.zeros((), dtype=torch.float64), 0.0
        units = units_of(batch, i, objective.ratio_unit)
        for codes in units:
            t = codes[0][1]
            weight = weight_of[int(batch["modality"][i, t])]
            if objective.ratio_unit == "code" and aggregation.count == "positions":
                weight /= sum(other[0][1] == t for other in units)
            lp = sum(batch["logprobs"][code] for code in codes)
            old = sum(batch["behaviour_logprobs"][code] for code in codes)
            advantage = batch["token_advantages"][i, t] if token_level else batch["advantages"][i]
            ratio = torch.exp(lp - old)
            lowest, highest = 1 - objective.clip_low, 1 + objective.clip_high
            clipped = min(max(ratio, torch.tensor(lowest)), torch.tensor(highest))
            loss = -min(ratio * advantage, clipped * advantage)
            if objective.beta:
                ref = sum(batch["reference_logprobs"][code] for code in codes)
                k3 = torch.exp(ref - lp) - (ref - lp) - 1
                kl = {"k2": (lp - ref) ** 2 / 2, "k3": k3, "k3_ratio": ratio * k3}
                loss = loss + objective.beta * kl[objective.divergence]
            row_sum, row_weight = row_sum + weight * loss, row_weight + weight
        row_sums.append(row_sum)
        row_weights.append(row_weight)
    if aggregation.normalisation == "sequence":
        return sum(s / w for s, w in zip(row_sums, row_weights, strict=True) if w) / rows
    if aggregation.normalisation == "token":
        return sum(row_sums) / sum(row_weights)
    return sum(row_sums) / (rows * aggregation.constant_length)
