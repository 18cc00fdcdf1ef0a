"""Evaluation mode, and the way back, whatever happens between."""

import pytest
import torch
from torch import nn

from unified_rl.decoding.modes import evaluation_mode


def modes(policy):
    return [module.training for module in policy.modules()]


@pytest.fixture
def policy():
    """Trains, but for its middle."""
    policy = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout()), nn.Dropout()).train()
    policy[1].eval()
    return policy


def test_each_module_gets_its_own_mode_back(policy):
    before = modes(policy)
    assert before == [True, True, False, False, True]
    with evaluation_mode(policy):
        assert not any(modes(policy))
        assert not torch.is_grad_enabled()
    assert modes(policy) == before
    assert torch.is_grad_enabled()


def test_also_behind_an_error(policy):
    before = modes(policy)
    with pytest.raises(KeyError), evaluation_mode(policy):
        raise KeyError
    assert modes(policy) == before
    assert torch.is_grad_enabled()


def test_a_part_that_trains_alone_goes_on_training():
    policy = nn.Sequential(nn.Dropout(), nn.Dropout()).eval()
    policy[0].train()
    with evaluation_mode(policy):
        assert not any(modes(policy))
    assert modes(policy) == [False, True, False]


def test_what_is_no_module_has_no_modes():
    with evaluation_mode(object()):
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
