"""Scores in parts: the numbers of the whole, and never its logits."""

import math

import peft
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.stages.training import gradients, grpo
from tests.suites.trajectories import BEHAVIOURS, seeded
from tests.toys import FAMILIES, build
from tests.toys.samples import drawings, mixed, stories
from unified_rl.core.behaviour import Sampling
from unified_rl.core.trajectory import Modality
from unified_rl.decoding.sampling import guide, log_distribution
from unified_rl.models import lean_logprobs
from unified_rl.models.lean_logprobs import score_in_parts

ROWS, WIDTH, VOCABULARY = 7, 5, 11


def at_most(monkeypatch, logits):
    monkeypatch.setattr(lean_logprobs, "LOGITS_AT_ONCE", logits)


@pytest.fixture
def three_rows(monkeypatch):
    """Seven rows make three parts: of three, two and two rows."""
    at_most(monkeypatch, 3 * VOCABULARY + VOCABULARY - 1)


class Head:
    """Log-probs of ids from states, maybe guided and truncated; keeps the heights it was given."""

    def __init__(self, head, sampling=Sampling(), allowed=None):  # noqa: B008 - frozen
        self.head, self.sampling, self.allowed = head, sampling, allowed
        self.heights = []

    def __call__(self, states, ids, twin=None, support=None):
        self.heights.append(len(states))
        logits = self.head(states)
        if twin is not None:
            logits = guide(logits, self.head(twin), 3.0)
        scores = log_distribution(logits, self.sampling, self.allowed, support)
        return scores.gather(-1, ids[:, None]).squeeze(-1)


def linear(dtype=torch.float32, vocabulary=VOCABULARY):
    torch.manual_seed(0)
    return nn.Linear(WIDTH, vocabulary, dtype=dtype)


def states_and_ids(dtype=torch.float32, rows=ROWS, vocabulary=VOCABULARY):
    torch.manual_seed(1)
    states = torch.randn(rows, WIDTH, dtype=dtype, requires_grad=True)
    return states, torch.randint(vocabulary, (rows,))


def with_gradients(function, wanted):
    """Scores, and the gradients of a weighted sum of them."""
    scores = function()
    weights = torch.linspace(-1, 2, scores.numel()).view_as(scores)
    return scores, torch.autograd.grad((weights * scores).sum(), wanted)


# -- the very numbers ------------------------------------------------------------------------------


def test_scores_by_hand(monkeypatch):
    # Logits (0, 0) and (ln 3, 0): 1/2 for either token; 3/4 and 1/4.
    at_most(monkeypatch, 2)
    states = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [math.log(3), 0.0]])
    head = Head(nn.Identity())
    scores = score_in_parts(head, (states, torch.tensor([1, 0, 1])), 2)
    assert scores.exp().tolist() == pytest.approx([1 / 2, 3 / 4, 1 / 4], abs=1e-6)
    assert head.heights == [1, 1, 1]


def cut(dtype):
    support = torch.rand(ROWS, VOCABULARY, generator=seeded()) < 0.5
    return support | nn.functional.one_hot(states_and_ids()[1], VOCABULARY).bool()


CASES = {
    "plain": (Sampling(), None, False, False),
    "cool": (Sampling(0.7), None, False, False),
    "greedy_over_support": (Sampling(0.0), None, False, True),
    "allowed": (Sampling(), torch.arange(VOCABULARY) != 3, False, False),
    "support": (Sampling(1.3, top_k=4), None, False, True),
    "guided": (Sampling(), None, True, False),
    "all": (Sampling(0.7, top_p=0.9), torch.arange(VOCABULARY) != 3, True, True),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_parts_equal_the_whole(case, dtype, three_rows):
    sampling, allowed, guided, truncated = CASES[case]
    (states, ids), linear_head = states_and_ids(dtype), linear(dtype)
    ids = torch.where(ids == 3, 4, ids)
    twin = (states.detach() + 1).requires_grad_() if guided else None
    support = cut(dtype) | nn.functional.one_hot(ids, VOCABULARY).bool() if truncated else None
    head = Head(linear_head, sampling, allowed)
    fields = states, ids, twin, support
    wanted = [states, *linear_head.parameters(), *([twin] if guided else [])]
    whole, slopes = with_gradients(lambda: head(*fields), wanted)
    logits = VOCABULARY * (2 if guided else 1)
    scores, found = with_gradients(lambda: score_in_parts(head, fields, logits), wanted)
    # A guided row takes twice the logits, so one row a part; scored again for their gradients.
    parts = [1] * 7 if guided else [3, 2, 2]
    assert head.heights[: 1 + len(parts)] == [ROWS, *parts]
    assert sorted(head.heights[1 + len(parts) :]) == sorted(parts)
    assert torch.isfinite(whole).all()
    torch.testing.assert_close(scores, whole, rtol=0, atol=1e-5)
    for one, other in zip(found, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "heights"),
    [(1, [1]), (2, [2]), (3, [3]), (4, [2, 2]), (5, [3, 2]), (6, [3, 3]), (9, [3, 3, 3])],
)
def test_parts_are_as_few_and_as_equal_as_they_can_be(rows, heights, three_rows):
    head = Head(linear())
    with torch.no_grad():
        score_in_parts(head, states_and_ids(rows=rows), VOCABULARY)
    assert head.heights == heights


def test_a_row_wider_than_the_limit_is_a_part(monkeypatch):
    at_most(monkeypatch, VOCABULARY - 1)
    head = Head(linear())
    with torch.no_grad():
        score_in_parts(head, states_and_ids(rows=3), VOCABULARY)
    assert head.heights == [1, 1, 1]


def test_no_rows_score_nothing_and_have_a_gradient(three_rows):
    head = Head(linear())
    scores = score_in_parts(head, states_and_ids(rows=0), VOCABULARY)
    scores.sum().backward()
    assert scores.shape == (0,)
    assert head.heights == [0]
    assert not head.head.weight.grad.any()


def test_what_fits_is_scored_once_and_not_again():
    head = Head(linear())
    score_in_parts(head, states_and_ids(), VOCABULARY).sum().backward()
    assert head.heights == [ROWS]


def test_scores_without_a_gradient_are_the_very_same(three_rows):
    head, fields = Head(linear()), states_and_ids()
    scores = score_in_parts(head, fields, VOCABULARY)
    with torch.no_grad():
        again = score_in_parts(head, fields, VOCABULARY)
    assert torch.equal(scores, again)
    assert head.heights == [3, 2, 2] * 2


# -- heads of all kinds ----------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", ["head", "states", "both"])
def test_what_is_frozen_stays_without_a_gradient(frozen, three_rows):
    head, (states, ids) = Head(linear()), states_and_ids()
    head.head.requires_grad_(frozen == "states")
    states.requires_grad_(frozen == "head")
    scores = score_in_parts(head, (states, ids), VOCABULARY)
    assert scores.requires_grad == (frozen != "both")
    if frozen == "both":
        return
    wanted = [states] if frozen == "head" else list(head.head.parameters())
    found = torch.autograd.grad(scores.sum(), wanted)
    expected = torch.autograd.grad(head(states, ids).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_a_half_precision_head_is_normalised_in_full_precision(three_rows):
    head, (states, ids) = Head(linear(torch.bfloat16)), states_and_ids(torch.bfloat16)
    wanted = [states, head.head.weight]
    scores, found = with_gradients(lambda: score_in_parts(head, (states, ids), VOCABULARY), wanted)
    logits = nn.functional.linear(states, head.head.weight, head.head.bias).detach()
    exact = logits.double().log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    assert scores.dtype == torch.float32
    # A wider product may round one bfloat16 logit, of less than 4, to its neighbour.
    torch.testing.assert_close(scores.double(), exact, rtol=0, atol=2**-6)
    _, expected = with_gradients(lambda: head(states, ids), wanted)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one, other, rtol=2**-5, atol=2**-5)


def test_a_head_with_an_adapter_learns_through_it(three_rows):
    wrapped = nn.ModuleDict({"lm_head": linear()})
    config = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, wrapped)
    head, fields = Head(wrapped["lm_head"]), states_and_ids()
    wanted = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    assert len(wanted) == 2
    scores, found = with_gradients(lambda: score_in_parts(head, fields, VOCABULARY), wanted)
    whole, expected = with_gradients(lambda: head(*fields), wanted)
    torch.testing.assert_close(scores, whole, rtol=0, atol=1e-5)
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


# -- what is held ----------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The most elements that any result of any operation had."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        found = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numel = max(self.numel, *found, 0)
        return result


@pytest.mark.parametrize(("limit", "largest"), [(2**11, 2**11), (2**20, 2**16)])
def test_no_tensor_holds_more_logits_than_the_limit(limit, largest, monkeypatch):
    # 256 rows of 256 logits are 2**16. At 2**11 at once, 8 rows make a part. The 256 x 5 states and
    # the weights of the head, which are as many, are fewer.
    at_most(monkeypatch, limit)
    head = Head(linear(vocabulary=256))
    fields = states_and_ids(rows=256, vocabulary=256)
    with Largest() as seen:
        score_in_parts(head, fields, 256).sum().backward()
    assert seen.numel == largest


@pytest.mark.parametrize(("limit", "kept"), [(2**11, 0), (2**20, 2**16)])
def test_no_logits_are_kept_for_the_gradient(limit, kept, monkeypatch):
    at_most(monkeypatch, limit)
    head, saved = Head(linear(vocabulary=256)), []

    def keep(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = score_in_parts(head, states_and_ids(rows=256, vocabulary=256), 256)
    scores.sum().backward()
    assert max([0, *(count for count in saved if count > 256 * WIDTH)]) == kept


# -- every family ----------------------------------------------------------------------------------

SCORED = ("truncated", "guided_warm_truncated", "frozen_masks_guided")


def watch_heads(policy, monkeypatch):
    """Numbers of logits that the heads made, call by call."""
    seen = []
    for name in ("text_logits", "code_log_probs", "score_codes"):
        head = getattr(policy, name, None)
        if head is None:
            continue

        def count(states, *rest, head=head, name=name):
            width = policy.capabilities.codebook_size * policy.capabilities.code_depth
            width = policy.text_vocabulary_size if name == "text_logits" else width
            guided = bool(rest) and rest[0] is not None
            seen.append(len(states) * width * (2 if guided else 1))
            return head(states, *rest)

        monkeypatch.setattr(policy, name, count)
    return seen


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("family", FAMILIES)
def test_replay_in_parts_equals_replay_at_once(family, name, monkeypatch):
    policy = build(family).double()
    trajectory, _ = policy.sample(mixed(), BEHAVIOURS[name], seeded())
    wanted = [parameter for parameter in policy.parameters() if parameter.requires_grad]

    def replay():
        scores = policy.logprobs(trajectory)
        weights = torch.randn(scores.shape, generator=seeded())
        return scores, torch.autograd.grad((weights * scores).sum(), wanted, allow_unused=True)

    whole, slopes = replay()
    limit = 2 * policy.text_vocabulary_size
    at_most(monkeypatch, limit)
    seen = watch_heads(policy, monkeypatch)
    scores, found = replay()
    assert len(seen) > 4
    assert max(seen) <= limit
    assert (scores - whole).abs().max() <= 1e-6  # log-probs are float32, of float64 logits
    for one, other in zip(found, slopes, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).abs().max() <= 1e-6 * (1 + other.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_gold_answers_score_in_parts_as_at_once(family, monkeypatch):
    policy = build(family)
    gold = policy.encode([*stories(2), *drawings(2)], seeded())
    whole = policy.logprobs(gold)
    at_most(monkeypatch, 2 * policy.text_vocabulary_size)
    scores = policy.logprobs(gold)
    assert (scores - whole).abs().max() <= 1e-5
    with torch.no_grad():  # as the old log-probs of several updates are: their first ratio is 1
        assert torch.equal(policy.logprobs(gold), scores)


def test_heads_see_only_what_was_chosen(monkeypatch):
    policy = build("janus")
    trajectory, _ = policy.sample(mixed(), BEHAVIOURS["plain"], seeded())
    seen = watch_heads(policy, monkeypatch)
    with torch.no_grad():
        policy.logprobs(trajectory)
    texts = int(trajectory.mask_of(Modality.TEXT).sum())
    images = int(trajectory.mask_of(Modality.IMAGE).sum())
    assert sorted(seen) == sorted([texts * policy.text_vocabulary_size, images * 16])


@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_and_parts_change_no_gradient(family, monkeypatch):
    whole = gradients(grpo(family))
    at_most(monkeypatch, 256)
    parts = gradients(grpo(family, micro_batch_size=3))
    for name, gradient in whole.items():
        assert (parts[name] - gradient).abs().max() <= 1e-6
