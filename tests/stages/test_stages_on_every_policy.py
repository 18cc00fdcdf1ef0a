"""What all stages must keep, whatever the family."""

import pytest
import torch

from tests.stages.training import (
    gradients,
    grpo,
    pair_dpo,
    pair_grpo,
    run,
    self_improvement,
    sft,
    weights,
)
from tests.toys import build

STAGES = {
    "sft": sft,
    "grpo": grpo,
    "pair_grpo": pair_grpo,
    "self_improvement": self_improvement,
    "pair_dpo": pair_dpo,
}


@pytest.fixture(params=STAGES)
def make(request):
    return STAGES[request.param]


def test_training_moves_weights_but_not_the_codec(make, family):
    stage, start = make(family), build(family)
    run(stage)
    codec, trained = start.codec.state_dict(), stage.policy.codec.state_dict()
    assert all(torch.equal(codec[name], trained[name]) for name in codec)
    before, after = weights(start), weights(stage.policy)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("language_model" in name for name in moved)


def test_the_run_reports_finite_metrics(make, family):
    metrics = run(make(family)).callback_metrics
    assert {"loss", "gradient_norm", "learning_rate", "iteration"} <= set(metrics)
    assert all(torch.isfinite(value) for value in metrics.values())
    assert metrics["gradient_norm"] > 0


def test_the_same_seed_trains_the_same_weights(make):
    one, other = make("vila_u"), make("vila_u")
    run(one), run(other)
    assert all(map(torch.equal, weights(one.policy).values(), weights(other.policy).values()))


@pytest.mark.parametrize("size", [1, 4])
def test_micro_batches_change_no_gradient(make, family, size):
    whole, parts = gradients(make(family)), gradients(make(family, micro_batch_size=size))
    assert set(whole) == set(parts)
    largest = max(gradient.abs().max() for gradient in whole.values())
    assert largest > 1e-3
    # Where rows of a prompt are read together or apart, float32 sums round at the largest's scale.
    gap = max((whole[name] - parts[name]).abs().max() for name in whole)
    assert gap <= 1e-6 * max(1.0, largest)
