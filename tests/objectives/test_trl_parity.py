"""Our loss and gradient against the installed trl's own `GRPOTrainer._compute_loss`."""

from collections import defaultdict
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.objectives.reference import invent
from unified_rl.objectives.advantages import group_advantages
from unified_rl.objectives.aggregation import Aggregation
from unified_rl.objectives.grpo import GrpoObjective

pytest.importorskip("trl")

from trl import GRPOTrainer
from trl.trainer.utils import nanstd

ROWS, LENGTH, MAX_LENGTH = 8, 11, 16
NORMALISATIONS = {
    "grpo": Aggregation("sequence"),
    "bnpo": Aggregation("token"),
    "dapo": Aggregation("token"),
    "dr_grpo": Aggregation("constant", constant_length=MAX_LENGTH),
}
CLIPS = ((0.2, 0.2), (0.05, 0.3))


def trl_loss(
    loss_type: str,
    objective: GrpoObjective,
    batch: dict[str, Tensor],
    logprobs: Tensor,
    micro_batch_size: int,
    token_level: bool,
) -> Tensor:
    """The sum of what trl backpropagates over the micro-batches of one optimiser step.

    The trainer is a bare namespace with what `_compute_loss` reads, and its forward pass answers
    with our log-probs.
    """
    part_count = ROWS // micro_batch_size
    mask = batch["action_mask"][..., 0].long()
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
    )
    trainer = SimpleNamespace(
        model=torch.nn.Identity().train(),
        accelerator=accelerator,
        args=SimpleNamespace(
            delta=None,
            use_bias_correction_kl=objective.divergence == "k3_ratio",
            steps_per_generation=part_count,
        ),
        loss_type=loss_type,
        importance_sampling_level="token",
        beta=objective.beta,
        epsilon_low=objective.clip_low,
        epsilon_high=objective.clip_high,
        max_completion_length=MAX_LENGTH,
        current_gradient_accumulation_steps=part_count,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    total = torch.zeros(())
    for start in range(0, ROWS, micro_batch_size):
        rows = slice(start, start + micro_batch_size)
        answer = logprobs[rows, :, 0], torch.zeros(micro_batch_size, LENGTH), None
        trainer._get_per_token_logps_and_entropies = lambda *_, answer=answer, **__: answer
        ids = torch.zeros(micro_batch_size, LENGTH, dtype=torch.int64)
        inputs = {
            "prompt_ids": ids[:, :2],
            "prompt_mask": ids[:, :2] + 1,
            "completion_ids": ids,
            "completion_mask": mask[rows],
            "advantages": batch["token_advantages" if token_level else "advantages"][rows],
            "old_per_token_logps": batch["behaviour_logprobs"][rows, :, 0],
            "ref_per_token_logps": batch["reference_logprobs"][rows, :, 0],
            "num_items_in_batch": mask.sum(),
        }
        total = total + GRPOTrainer._compute_loss(trainer, None, inputs)
    return total


@pytest.mark.parametrize(
    ("loss_type", "kl", "clips", "micro_batch_size", "token_level"),
    [
        case
        for case in product(
            NORMALISATIONS, [(0.0, "k3"), (0.1, "k3"), (0.1, "k3_ratio")], CLIPS, [8, 2], [0, 1]
        )
        if case[0] != "bnpo" or case[3] == 8  # bnpo pools each micro-batch on its own
    ],
)
def test_loss_and_gradient_equal_trl(loss_type, kl, clips, micro_batch_size, token_level):
    batch = invent(seed=0, rows=ROWS, length=LENGTH, depth=1)
    beta, divergence = kl
    objective = GrpoObjective(*clips, beta, divergence, aggregation=NORMALISATIONS[loss_type])

    theirs = batch["logprobs"].clone().requires_grad_()
    want = trl_loss(loss_type, objective, batch, theirs, micro_batch_size, token_level)
    want.backward()

    ours = batch["logprobs"].clone().requires_grad_()
    terms = objective.loss(
        ours,
        batch["behaviour_logprobs"],
        batch["reference_logprobs"],
        batch["token_advantages" if token_level else "advantages"],
        objective.weights(batch["action_mask"], batch["modality"]),
        batch["action_mask"],
    )
    terms.loss.backward()
    assert 0 < terms.clip_fraction < 1
    assert abs(terms.loss - want) < 1e-6
    assert (ours.grad - theirs.grad).abs().max() < 1e-6
    assert theirs.grad.abs().max() > 1e-3


def test_advantages_equal_trl():
    """trl scales by `nanstd` of the group plus 1e-4, inside a method that also generates."""
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(0))
    grouped = rewards.view(-1, 4)
    centred = grouped - grouped.mean(1, keepdim=True)
    want = (centred / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)).view(-1)
    torch.testing.assert_close(group_advantages(rewards, 4, epsilon=1e-4), want)
