"""Supervised fine-tuning through Lightning."""

import pytest
import torch

from tests.stages.training import gradients, run, sft
from tests.toys.samples import drawings, questions, stories
from unified_rl.core.errors import ConfigError


def test_the_likelihood_of_gold_rises(family):
    before, after = (run(sft(family), batches=count).callback_metrics["loss"] for count in (1, 25))
    assert after < before - 0.5  # nats


def test_metrics_add_up(family):
    metrics = run(sft(family, text_weight=2.0, image_weight=0.5), batches=1).callback_metrics
    expected = 2.0 * metrics["text_nll"] + 0.5 * metrics["image_nll"]
    assert metrics["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_only_what_draws_is_hidden():
    stage = sft("vila_u", condition_dropout=1.0)
    batch = [*stories(1), *drawings(2), *questions(1)]
    hidden = stage._hidden_prompts(batch, torch.Generator())
    assert hidden.tolist() == [True, True, True, False]


def test_condition_dropout_changes_the_gradient(family):
    shown, hidden = gradients(sft(family)), gradients(sft(family, condition_dropout=1.0))
    assert max((shown[name] - hidden[name]).abs().max() for name in shown) > 1e-3


def test_a_share_above_one_is_refused():
    with pytest.raises(ConfigError, match="1.5"):
        sft("vila_u", condition_dropout=1.5)
