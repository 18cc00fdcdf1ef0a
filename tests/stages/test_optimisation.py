"""Which weights an optimiser takes, and the rate that it takes them at."""

import pytest
import torch

from tests.stages.training import run, sft
from tests.toys import build
from unified_rl.core.errors import ConfigError
from unified_rl.stages.optimisation import Optimisation


def names(policy, optimizer):
    taken = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name for name, p in policy.named_parameters() if id(p) in taken}


@pytest.mark.parametrize("family", ["janus", "showo", "vila_u"])
def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest(family):
    policy = build(family)
    layers = policy.parameter_groups()["language_model"]
    adamw, muon = Optimisation(muon_learning_rate=0.1).optimizers(policy.parameters(), layers)
    matrices = names(policy, muon)
    assert any("q_proj" in name for name in matrices)
    assert not any(part in name for name in matrices for part in ("embed", "head", "norm", "bias"))
    assert all(policy.get_parameter(name).ndim == 2 for name in matrices)
    trainable = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert names(policy, adamw) | matrices == trainable
    assert not names(policy, adamw) & matrices


def test_without_muon_adamw_takes_all():
    policy = build("janus")
    (adamw,) = Optimisation().optimizers(policy.parameters(), [policy])
    trainable = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert names(policy, adamw) == trainable


def test_both_rates_follow_the_schedule():
    stage = sft("janus")
    stage.optimisation = Optimisation(learning_rate=1e-3, muon_learning_rate=1e-2, warmup=3)
    run(stage, batches=2)
    # the second of three iterations before the peak: (1 + 1) / (3 + 1) of it
    adamw, muon = (optimizer.param_groups[0]["lr"] for optimizer in stage._optimizers())
    assert (adamw, muon) == pytest.approx((0.5e-3, 0.5e-2))
    assert stage.learning_rate == adamw


def test_muon_with_nothing_to_move_is_refused():
    vectors = torch.nn.LayerNorm(4)
    with pytest.raises(ConfigError, match="muon_learning_rate=0.1"):
        Optimisation(muon_learning_rate=0.1).optimizers(vectors.parameters(), [vectors])
