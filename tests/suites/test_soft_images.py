"""Gradients from an answer through the image that was drawn, on every family."""

import copy

import numpy as np
import pytest
import torch

from tests.suites.test_own_drawings import asked
from tests.suites.trajectories import PLAIN, seeded, trim
from tests.toys import build
from tests.toys.samples import drawings
from unified_rl.models.base import UnifiedPolicy

SEEDS = torch.tensor([5, 6, 7])


def drawn(policy: UnifiedPolicy, count: int = 3):
    return policy.sample(drawings(count), PLAIN, seeded())


def answers(policy, trajectory, completions, soft):
    """Gold answers about the drawings, which are seen softly."""
    gold = policy.encode(asked(policy.own_pictures(trajectory, completions)), seeded())
    return gold._replace(tape={**gold.tape, "shown": soft[:, None]})


def test_the_value_is_what_the_policy_sees_of_its_drawing(policy):
    trajectory, completions = drawn(policy)
    with torch.no_grad():
        soft = policy.soft_images(trajectory, 1.0, SEEDS)
    codes = torch.stack([torch.from_numpy(i.codes) for i in policy.drawn_images(trajectory)])
    if policy.capabilities.shared_image_tokens:
        assert torch.equal(soft, policy.embed_codes(codes))
    else:  # seen as pixels, which are rounded to whole numbers where they are shown
        seen = policy.embed_pixels(policy.pixels(policy.own_pictures(trajectory, completions)))
        torch.testing.assert_close(soft, seen, atol=0.1, rtol=0.05)


def test_a_row_alone_is_the_row_in_the_batch(policy):
    trajectory, _ = drawn(policy)
    redrawn, completions = policy.redraw(trajectory, SEEDS)
    for codes in (None, redrawn):
        together = policy.soft_images(trajectory, 0.8, SEEDS, codes)
        for row in range(3):
            alone, rows = trim(trajectory.select(slice(row, row + 1))), slice(row, row + 1)
            again, picture = policy.redraw(alone, SEEDS[rows])
            assert torch.equal(again[0], redrawn[row])
            pair = (c.images[0].astype(int) for c in (picture[0], completions[row]))
            assert abs(next(pair) - next(pair)).max() <= 1  # a decoder's rounding
            of_row = None if codes is None else codes[rows]
            soft = policy.soft_images(alone, 0.8, SEEDS[rows], of_row)
            torch.testing.assert_close(soft[0], together[row])


def test_drawn_anew_the_value_is_that_of_the_new_codes(policy):
    trajectory, _ = drawn(policy)
    codes, completions = policy.redraw(trajectory, SEEDS)
    soft = policy.soft_images(trajectory, 1.0, SEEDS, codes).detach()
    pixels = policy._drawn(codes)
    assert all(np.array_equal(c.images[0], p) for c, p in zip(completions, pixels, strict=True))
    if policy.capabilities.shared_image_tokens:
        assert torch.equal(soft, policy.embed_codes(codes))


def test_the_gradient_owes_nothing_to_how_a_batch_is_cut(random_policy, monkeypatch):
    policy = copy.deepcopy(random_policy)
    trajectory, completions = drawn(policy)

    def gradient():
        policy.zero_grad()
        soft = policy.soft_images(trajectory, 0.8, SEEDS)
        policy.logprobs(answers(policy, trajectory, completions, soft)).sum().backward()
        return [p.grad.clone() for p in policy.parameters() if p.grad is not None]

    whole = gradient()
    monkeypatch.setattr("unified_rl.models.soft_images.RELAXED_LOGITS", 1)
    for one, other in zip(whole, gradient(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def image_head(policy: UnifiedPolicy) -> torch.nn.Parameter:
    """A weight that nothing but the logits of images depends on."""
    likelihood = policy.capabilities.likelihood
    if likelihood == "next_token":
        return policy.janus.model.generation_head.vision_head.weight
    if likelihood == "residual_depth":
        return policy.vila_u.depth_transformer.classifier_mlp["linear"].weight
    return policy.showo.language_model.lm_head.weight


@pytest.mark.parametrize("redraw", [False, True])
def test_the_answers_gradient_reaches_the_image_logits(family, redraw):
    policy = build(family)
    trajectory, completions = drawn(policy)
    head = image_head(policy)
    rows = policy._code_rows if family.endswith("showo") else slice(None)
    codes = policy.redraw(trajectory, SEEDS)[0] if redraw else None
    soft = policy.soft_images(trajectory, 1.0, SEEDS, codes)
    policy.logprobs(answers(policy, trajectory, completions, soft)).sum().backward()
    through_the_image = head.grad[rows].clone()
    policy.zero_grad()
    hard = soft.detach()
    policy.logprobs(answers(policy, trajectory, completions, hard)).sum().backward()
    # Show-o's words compete with its codes, so that its head learns something without the image
    without = torch.zeros_like(through_the_image) if head.grad is None else head.grad[rows]
    assert family.endswith("showo") or not bool(without.any())
    assert float((through_the_image - without).abs().max()) > 1e-5


def test_only_trainable_groups_get_a_gradient(family):
    policy = build(family)
    for name, parts in policy.parameter_groups().items():
        for part in parts:
            part.requires_grad_(name == "heads")
    trajectory, completions = drawn(policy)
    soft = policy.soft_images(trajectory, 1.0, SEEDS)
    policy.logprobs(answers(policy, trajectory, completions, soft)).sum().backward()
    groups = policy.parameter_groups()
    heads = {id(p) for part in groups["heads"] for p in part.parameters()}
    for parameter in policy.parameters():
        assert (parameter.grad is not None) <= (id(parameter) in heads)
    assert float(image_head(policy).grad.abs().sum()) > 0


def test_the_gradient_is_that_of_finite_differences_of_the_soft_mixture(family, monkeypatch):
    # Where all that follows the code vectors is linear, the gradient of the bias of the image
    # logits must be the slope of the soft mixture, the noise held fixed. In float64; the mixture
    # itself is in float32, so its slopes over steps of 1e-2 are good to about 1e-4.
    policy = build(family).double()
    trajectory, _ = drawn(policy, 2)
    monkeypatch.setattr(policy, "embed_code_vectors", lambda vectors: vectors.sum(-2))
    everything = torch.ones(1, policy.image_positions, dtype=torch.bool)  # what is given is hard
    monkeypatch.setattr(policy, "_masks", lambda count, generator: everything, raising=False)
    monkeypatch.setattr("unified_rl.models.soft_images.gumbel_noise_given", plain_noise)
    bias, first = image_bias(policy)
    direction = torch.randn(
        policy.soft_images(trajectory, 1.0, SEEDS[:2]).shape, generator=seeded(1)
    ).double()

    def value():
        return (policy.soft_images(trajectory, 1.0, SEEDS[:2]) * direction).sum()

    value().backward()
    found = bias.grad[first : first + 5].clone()
    monkeypatch.setattr("unified_rl.models.soft_images.straight_through", soft_alone)
    slopes = []
    for place in range(first, first + 5):
        ends = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                bias[place] += step
                ends.append(float(value()))
                bias[place] -= step
        slopes.append((ends[0] - ends[1]) / 2e-2)
    assert max(map(abs, slopes)) > 1e-2
    torch.testing.assert_close(found, torch.tensor(slopes).double(), atol=5e-4, rtol=5e-3)


def plain_noise(logits, codes, generator):
    """Noise that owes nothing to the logits."""
    return -(-torch.rand(logits.shape, generator=generator).clamp(1e-6, 1 - 1e-6).log()).log()


def soft_alone(logits, noise, codes, table, temperature):
    """The mixture itself."""
    return ((logits.float() + noise) / temperature).softmax(-1).to(table.dtype) @ table


def image_bias(policy: UnifiedPolicy) -> tuple[torch.nn.Parameter, int]:
    """The bias of the logits of images, and where code 0 stands in it."""
    likelihood = policy.capabilities.likelihood
    if likelihood == "next_token":
        return policy.janus.model.generation_head.vision_head.bias, 0
    if likelihood == "residual_depth":
        return policy.vila_u.depth_transformer.classifier_mlp["linear"].bias, 0
    return policy.showo.language_model.lm_head.bias, policy.code_offset


def test_no_logits_are_kept_for_the_gradient(policy, monkeypatch):
    # The states are given, so that what is kept is what turning them into rows of the table keeps.
    trajectory, _ = drawn(policy)
    states, codes, chosen = policy.relaxed_states(trajectory, [seeded(row) for row in range(3)])
    leaf = states.detach().requires_grad_()
    monkeypatch.setattr(policy, "relaxed_states", lambda *given: (leaf, codes, chosen))
    monkeypatch.setattr(policy, "embed_code_vectors", lambda vectors: vectors)
    logits = codes.numel() * policy.capabilities.codebook_size

    def kept() -> int:
        storages = {}

        def note(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.numel()
            return tensor

        weights = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            policy.soft_images(trajectory, 1.0, SEEDS)
        return sum(count for place, count in storages.items() if place not in weights)

    assert kept() <= sum(given.numel() for given in (states, codes, chosen, SEEDS))
    monkeypatch.setattr(
        "unified_rl.models.soft_images.checkpoint",
        lambda function, *given, use_reentrant: function(*given),
    )
    assert kept() > 2 * logits  # which it would keep otherwise
