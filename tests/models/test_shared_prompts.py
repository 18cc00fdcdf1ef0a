"""Answers to one prompt: the numbers of a plain pass, with the prompt read once."""

from dataclasses import replace

import pytest
import torch

from tests.suites.trajectories import BEHAVIOURS, PLAIN, seeded
from tests.toys import build
from tests.toys.samples import drawings, mixed, questions
from unified_rl.core.sample import Image
from unified_rl.decoding.tape import Tape
from unified_rl.models import shared_prompts
from unified_rl.models.recomputation import recompute_layers

BRIEF = replace(PLAIN, max_text_tokens=3)


@pytest.fixture(scope="module", params=["janus", "vila_u"])
def policy(request):
    return build(request.param)


def tape_of(trajectory):
    return Tape(*(trajectory.tape[name] for name in Tape._fields))


def answers(policy, samples, behaviour=BRIEF):
    return policy.sample(samples, behaviour, seeded())[0]


def reads(policy, monkeypatch):
    """Rows and columns of the passes through the language model."""
    seen, backbone = [], policy.backbone

    def keep(embeds, *rest):
        seen.append(tuple(embeds.shape[:2]))
        return backbone(embeds, *rest)

    monkeypatch.setattr(policy, "backbone", keep)
    return seen


def groups():
    """Three answers to each of two questions about images of their own, not side by side."""
    one, other = questions(2)
    return [one, other, one, other, other, one]


def test_a_prompt_is_read_once_for_its_answers(policy, monkeypatch):
    trajectory = answers(policy, groups())
    longest = max(len(policy._prompt_columns(sample)) for sample in groups())
    tape = tape_of(trajectory)
    answer = int((tape.valid & (tape.segment >= 0)).sum(1).max())
    seen = reads(policy, monkeypatch)
    pixels, embed = [], policy.embed_pixels
    monkeypatch.setattr(policy, "embed_pixels", lambda x: pixels.append(len(x)) or embed(x))
    with torch.no_grad():
        replayed = policy.logprobs(trajectory)
    assert seen == [(2, longest), (6, answer)]
    assert pixels == [2]
    assert (replayed - trajectory.logprobs).abs().max() <= 1e-5


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("family", ["janus", "vila_u"])
def test_values_and_gradients_are_those_of_a_plain_pass(family, recompute, monkeypatch):
    policy = build(family).double()
    if recompute:
        recompute_layers(policy.parameter_groups()["language_model"])
    trajectory = answers(policy, groups())
    wanted = [parameter for parameter in policy.parameters() if parameter.requires_grad]

    def replay():
        scores = policy.logprobs(trajectory)
        weights = torch.randn(scores.shape, generator=seeded())
        return scores, torch.autograd.grad((weights * scores).sum(), wanted, allow_unused=True)

    seen = reads(policy, monkeypatch)
    shared, slopes = replay()
    assert [rows for rows, _ in seen] == [2, 6]
    with torch.no_grad():  # as the old log-probs of several updates are: their first ratio is 1
        assert torch.equal(policy.logprobs(trajectory), shared)
    monkeypatch.setattr(shared_prompts, "WORTH", 0.0)
    seen.clear()
    plain, expected = replay()
    assert [rows for rows, _ in seen] == [6]
    assert (shared - plain).abs().max() <= 1e-6
    for one, other in zip(slopes, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).abs().max() <= 1e-6 * (1 + other.abs().max())


@torch.no_grad()
def test_every_state_that_is_read_is_that_of_a_plain_pass(policy, monkeypatch):
    # Drawings have twins, stories several segments; the price does not count here.
    monkeypatch.setattr(shared_prompts, "WORTH", 10.0)
    samples = [sample for sample in mixed() for _ in range(2)]
    trajectory = answers(policy, samples, BEHAVIOURS["guided"])
    for tape in (tape_of(trajectory), tape_of(trajectory).twin):
        shared, plain = shared_prompts.read_sharing(policy, tape), policy.read(tape)
        assert (shared - plain)[tape.valid].abs().max() <= 1e-5
    assert (policy.logprobs(trajectory) - trajectory.logprobs).abs().max() <= 1e-5


def two_images():
    """Three answers to one and the same question about each of two images."""
    one, other = questions(2)
    picture = next(part for part in other.prompt if isinstance(part, Image))
    swapped = tuple(picture if isinstance(part, Image) else part for part in one.prompt)
    return [one, replace(one, prompt=swapped)] * 3


def test_the_same_words_about_another_image_are_another_prompt(policy, monkeypatch):
    trajectory = answers(policy, two_images())
    seen = reads(policy, monkeypatch)
    with torch.no_grad():
        replayed = policy.logprobs(trajectory)
    assert [rows for rows, _ in seen] == [2, 6]
    assert (replayed - trajectory.logprobs).abs().max() <= 1e-5


def test_images_of_one_fingerprint_are_told_apart(policy, monkeypatch):
    trajectory = answers(policy, two_images())
    monkeypatch.setattr(shared_prompts, "_fingerprints", lambda shown: torch.zeros(6).double())
    seen = reads(policy, monkeypatch)
    with torch.no_grad():
        replayed = policy.logprobs(trajectory)
    assert [rows for rows, _ in seen] == [6]
    assert (replayed - trajectory.logprobs).abs().max() <= 1e-5


@pytest.mark.parametrize("samples", [drawings(1) * 2, questions(3), questions(1)])
def test_what_saves_little_is_one_plain_pass(policy, samples, monkeypatch):
    # A prompt of 9 and two images of 10 columns are 29 / 38 of two rows, more than 3/4.
    trajectory = answers(policy, samples)
    seen = reads(policy, monkeypatch)
    with torch.no_grad():
        policy.logprobs(trajectory)
    assert seen == [tuple(trajectory.segment.shape)]


def test_soft_images_are_read_row_by_row(policy, monkeypatch):
    trajectory = answers(policy, questions(1) * 3)
    shown = trajectory.tape["shown"].clone().requires_grad_()
    soft = trajectory._replace(tape={**trajectory.tape, "shown": shown})
    seen = reads(policy, monkeypatch)
    policy.logprobs(soft).sum().backward()
    assert [rows for rows, _ in seen] == [3]
    assert bool(shown.grad.flatten(1).any(1).all())


def test_prompts_that_all_differ_are_one_plain_pass_though_it_ends_in_padding(policy, monkeypatch):
    trajectory = answers(policy, questions(3))
    tape = tape_of(trajectory)
    wide = Tape(
        *(
            field if name == "shown" else torch.cat([field, torch.zeros_like(field)], dim=1)
            for name, field in tape._asdict().items()
        )
    )
    wide = wide._replace(segment=torch.cat([tape.segment, torch.full_like(tape.segment, -1)], 1))
    seen = reads(policy, monkeypatch)
    with torch.no_grad():
        states = shared_prompts.read_sharing(policy, wide)
    assert seen == [tuple(wide.kind.shape)]
    assert torch.equal(states, policy.read(wide))


@pytest.mark.parametrize("asked", ["no prompt", "no answer"])
def test_rows_without_a_prompt_or_an_answer_are_read_as_they_are(policy, asked, monkeypatch):
    trajectory = answers(policy, drawings(1) * 2)
    segment = torch.full_like(trajectory.segment, 0 if asked == "no prompt" else -1)
    seen = reads(policy, monkeypatch)
    with torch.no_grad():
        shared_prompts.read_sharing(policy, tape_of(trajectory)._replace(segment=segment))
    assert seen == [tuple(segment.shape)]
