"""Each KL estimator's expectation, summed over all five outcomes of a softmax (D8)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unified_rl.objectives.divergences import Divergence, k1, k2, k3, k3_ratio

LOGITS = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.4], dtype=torch.float64)
REFERENCE = torch.tensor([-0.5, 0.4, 0.2, 1.1, -0.9], dtype=torch.float64).log_softmax(0)
BEHAVIOUR = torch.tensor([0.9, 0.0, -0.7, 0.3, 0.6], dtype=torch.float64).log_softmax(0)


def expected(estimator: Callable[..., Tensor], behaviour: Tensor | None) -> tuple[Tensor, Tensor]:
    """Value and gradient w.r.t. logits, outcomes drawn from `behaviour` (None: the policy)."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    drawn_from = (logprobs if behaviour is None else behaviour).detach()
    mean = (drawn_from.exp() * estimator(logprobs, REFERENCE, drawn_from)).sum()
    return mean.detach(), torch.autograd.grad(mean, logits)[0]


def exact(direction: str) -> tuple[Tensor, Tensor]:
    """The KL itself and its gradient, the expectation over the policy differentiated too."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    if direction == "reverse":
        kl = (logprobs.exp() * (logprobs - REFERENCE)).sum()
    else:
        kl = (REFERENCE.exp() * (REFERENCE - logprobs)).sum()
    return kl.detach(), torch.autograd.grad(kl, logits)[0]


def close(got: Tensor, want: Tensor) -> bool:
    return bool((got - want).abs().max() < 1e-12)


@pytest.mark.parametrize("estimator", [k1, k3, k3_ratio])
def test_unbiased_value_on_policy(estimator):
    assert close(expected(estimator, None)[0], exact("reverse")[0])


def test_k1_has_no_gradient():
    assert close(expected(k1, None)[1], torch.zeros(5))


@pytest.mark.parametrize(
    ("estimator", "direction"), [(k2, "reverse"), (k3, "forward"), (k3_ratio, "reverse")]
)
def test_gradient_on_policy(estimator, direction):
    other = {"reverse": "forward", "forward": "reverse"}[direction]
    gradient = expected(estimator, None)[1]
    assert close(gradient, exact(direction)[1])
    assert (gradient - exact(other)[1]).abs().max() > 0.05  # the two are told apart here


def test_only_the_ratio_is_exact_off_policy():
    value, gradient = expected(k3_ratio, BEHAVIOUR)
    assert close(value, exact("reverse")[0])
    assert close(gradient, exact("reverse")[1])
    for estimator in (k2, k3):
        assert (expected(estimator, BEHAVIOUR)[1] - exact("reverse")[1]).abs().max() > 0.05


@pytest.mark.parametrize("estimator", [k1, k2, k3, k3_ratio])
def test_equal_policies_have_exactly_no_divergence(estimator):
    logprobs = (-5 * torch.rand(100)).requires_grad_()
    got = estimator(logprobs, logprobs.detach(), logprobs.detach())
    assert torch.equal(got.detach(), torch.zeros(100))


def test_k3_keeps_small_differences_and_its_sign():
    # d = 1e-4: d^2 / 2 + d^3 / 6 = 5.00017e-9; exp(d) - d - 1 in float32 gives 0
    got = k3(torch.tensor([-1e-4, 1e-4]), torch.zeros(2), torch.zeros(2))
    torch.testing.assert_close(got, torch.tensor([5.00017e-9, 4.99983e-9]), rtol=1e-2, atol=0)


def test_only_the_policy_gets_a_gradient():
    policy, reference, behaviour = (torch.zeros(2, requires_grad=True) for _ in range(3))
    for name in Divergence:
        name(policy, reference, behaviour).sum().backward()
    assert reference.grad is None
    assert behaviour.grad is None


@pytest.mark.parametrize(("name", "function"), [("k2", k2), ("k3", k3), ("k3_ratio", k3_ratio)])
def test_lookup_by_name(name, function):
    arguments = torch.tensor([-1.0]), torch.tensor([-1.5]), torch.tensor([-0.8])
    assert torch.equal(Divergence(name)(*arguments), function(*arguments))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="divergence='k4' is none of k2, k3, k3_ratio"):
        Divergence("k4")
    with pytest.raises(ValueError, match="subtract it from a reward"):
        Divergence("k1")
