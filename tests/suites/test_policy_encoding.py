"""What every policy must keep of gold answers: laid out as sampled, hidden as the twin hides."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.suites.trajectories import PLAIN, sampled, seeded, trim
from tests.toys import build
from tests.toys.samples import drawings, mixed, questions, stories
from unified_rl.core.errors import DataError
from unified_rl.core.protocols import Policy
from unified_rl.core.sample import Completion, Image, Sample, Task, Text
from unified_rl.core.trajectory import Modality, Trajectory
from unified_rl.decoding.tape import Kind, Tape
from unified_rl.microworld.words import vocabulary
from unified_rl.models.base import UnifiedPolicy


def answered(sample: Sample, completion: Completion) -> Sample:
    """The sample with what was drawn as its gold answer."""
    return Sample(sample.id, sample.task, sample.prompt, completion.segments)


def encode_with_codes(
    policy: UnifiedPolicy,
    sample: Sample,
    codes: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    unconditional: torch.Tensor | None = None,
) -> Trajectory:
    """`encode` for a codec that found exactly these codes."""
    with monkeypatch.context() as patch:
        patch.setattr(policy, "encode_images", lambda pixels: codes)
        return policy.encode([sample], seeded(), unconditional)


def test_it_is_a_policy(policy):
    assert isinstance(policy, Policy)


def test_an_encoded_completion_lies_as_it_was_sampled(policy, monkeypatch):
    samples = [*mixed(), *stories(16)]
    trajectory, completions = policy.sample(samples, PLAIN, seeded())
    tasks = set()
    for row, (sample, completion) in enumerate(zip(samples, completions, strict=True)):
        if not completion.finished:
            continue  # a cut-off text has no end to lay out
        own = trim(trajectory.select(slice(row, row + 1)))
        is_code = own.tape["kind"] == Kind.CODE
        shape = -1, policy.image_positions, policy.capabilities.code_depth
        codes = own.tape["ids"][is_code].reshape(shape)
        gold = encode_with_codes(policy, answered(sample, completion), codes, monkeypatch)
        for name in ("ids", "kind", "segment"):
            assert torch.equal(gold.tape[name], own.tape[name])
        assert torch.equal(gold.mask_of(Modality.TEXT), own.mask_of(Modality.TEXT))
        tasks.add(sample.task)
    assert {Task.INTERLEAVED, Task.TEXT_TO_IMAGE} <= tasks


def test_a_gold_story_stops_behind_its_last_image(policy):
    # ... begin, N codes, end, end of text; only the last is chosen as a word
    gold = policy.encode(stories(1), seeded())
    ids = gold.tape["ids"][0, :, 0].tolist()
    assert ids[-2:] == [policy.end_of_image_id, policy.end_of_text_id]
    assert ids[-policy.image_positions - 3] == policy.begin_of_image_id
    assert gold.mask_of(Modality.TEXT)[0, -2:, 0].tolist() == [False, True]
    assert gold.segment[0, -1] == gold.segment[0, -2] + 1


def test_actions_of_a_gold_image_are_its_codes(policy):
    gold = policy.encode(stories(2), seeded())
    images = gold.mask_of(Modality.IMAGE)
    is_code = (gold.tape["kind"] == Kind.CODE)[..., None].expand_as(images)
    assert not bool(images[~is_code].any())
    if policy.capabilities.likelihood == "mask_predict":  # predicts what is masked
        assert 0 < images.sum() < is_code.sum()
    else:
        assert torch.equal(images, is_code)


def test_encoding_is_seeded(policy):
    one, other = (policy.encode(stories(2), seeded(3)) for _ in range(2))
    assert torch.equal(one.action_mask, other.action_mask)


def test_encoding_records_nothing(policy):
    assert not bool(policy.encode(stories(1), seeded()).logprobs.any())


# -- unconditional rows ----------------------------------------------------------------------------


def test_a_hidden_prompt_is_what_the_twin_reads(policy, monkeypatch):
    sample = drawings(1)[0]
    trajectory, (completion,) = policy.sample([sample], PLAIN, seeded())
    codes = trajectory.tape["ids"][trajectory.tape["kind"] == Kind.CODE][None]
    hidden = encode_with_codes(
        policy, answered(sample, completion), codes, monkeypatch, torch.tensor([True])
    )
    twin = Tape(*(trajectory.tape[name] for name in Tape._fields)).twin
    assert torch.equal(hidden.tape["ids"], twin.ids)
    assert torch.equal(hidden.tape["kind"], twin.kind)


def test_the_twin_reads_structure_and_drawn_images_only(policy):
    # Prompt lengths differ within the batch, so that a fill by column would hit a start token.
    trajectory, _ = sampled(policy)
    tape = Tape(*(trajectory.tape[name] for name in Tape._fields))
    ids, kind, twin = tape.ids, tape.kind, tape.twin
    borders = torch.tensor([policy.begin_of_image_id, policy.end_of_image_id])
    answer = tape.segment >= 0
    kept = answer & ((kind == Kind.CODE) | torch.isin(ids[..., 0], borders))
    assert torch.equal(twin.ids[kept], ids[kept])
    assert torch.equal(twin.kind[kept], kind[kept])
    said = answer & ~kept
    if policy.template.unconditional is None:
        assert set(twin.ids[said][:, 0].tolist()) == {policy.pad_id}
    else:
        assert set(twin.kind[said].tolist()) == {Kind.PAD}
    assert not bool((twin.kind == Kind.PIXEL).any())
    prompts = torch.where(twin.valid & ~answer, twin.ids[..., 0], -1)
    told = [row[row >= 0].tolist() for row in prompts]
    words = {token for row in told for token in row}
    assert not words & {policy.tokenize(word)[0] for word in vocabulary()}


def test_only_the_rows_asked_for_are_hidden(policy):
    samples = drawings(2)
    plain = policy.encode(samples, seeded())
    hidden = policy.encode(samples, seeded(), torch.tensor([False, True]))
    same = (plain.tape["ids"] == hidden.tape["ids"]).flatten(1).all(1)
    assert same.tolist() == [True, False]


def test_a_hidden_prompt_leaves_no_trace(policy):
    short, long = _same_length_drawings(policy)
    hide = torch.tensor([True])
    with torch.no_grad():
        one, other = (policy.logprobs(policy.encode([s], seeded(), hide)) for s in (short, long))
        shown = [policy.logprobs(policy.encode([s], seeded())) for s in (short, long)]
    assert torch.equal(one, other)
    assert (shown[0] - shown[1]).abs().max() > 1e-2


def test_a_hidden_story_teaches_its_images_only(policy):
    gold = stories(1)
    hidden = policy.encode(gold, seeded(), torch.tensor([True]))
    shown = policy.encode(gold, seeded())
    assert shown.mask_of(Modality.TEXT).any()
    assert not hidden.mask_of(Modality.TEXT).any()
    assert hidden.mask_of(Modality.IMAGE).any()


@pytest.mark.parametrize(
    "target",
    [
        (),
        (Text("<think> a circle"), Image(np.zeros((24, 24, 3), np.uint8))),
        (Image(np.zeros((24, 24, 3), np.uint8)),),
    ],
    ids=["none", "not asked for", "image first"],
)
def test_a_target_that_decoding_could_not_make_is_refused(policy, target):
    sample = dataclasses.replace(stories(1)[0], target=target)
    with pytest.raises(DataError, match="story"):
        policy.encode([sample], seeded())


@pytest.mark.parametrize(
    ("samples", "target", "found"),
    [
        (drawings, (Text("a circle"),), "one image, not text"),
        (drawings, (Image(np.zeros((24, 24, 3), np.uint8)),) * 2, "one image, not image, image"),
        (questions, (Image(np.zeros((24, 24, 3), np.uint8)),), "one text, not image"),
    ],
    ids=["a drawing in words", "two drawings", "an answer in colours"],
)
def test_a_target_of_another_task_is_refused(policy, samples, target, found):
    sample = dataclasses.replace(samples(1)[0], target=target)
    with pytest.raises(DataError, match=found):
        policy.encode([sample], seeded())


def test_only_the_first_text_of_an_answer_opens_as_the_template_says(policy, monkeypatch):
    (story,) = stories(1)
    before = policy.encode([story], seeded())
    monkeypatch.setattr(
        policy, "template", dataclasses.replace(policy.template, before_answer="a ")
    )
    after = policy.encode([story], seeded())
    (word,) = policy.tokenize("a")
    start = int((before.segment[0] == 0).nonzero()[0])
    ids = before.tape["ids"][0]
    assert int(after.tape["ids"][0, start, 0]) == word and bool(after.action_mask[0, start, 0])
    assert torch.equal(after.tape["ids"][0, start + 1 :], ids[start:])


def test_a_hidden_question_is_refused(policy):
    with pytest.raises(ValueError, match="understanding"):
        policy.encode(questions(1), seeded(), torch.tensor([True]))


def _same_length_drawings(policy):
    """Two prompts of equally many words before one and the same picture."""
    first, *others = drawings(40)
    for other in others:
        words = len(first.prompt_text.split()), len(other.prompt_text.split())
        if words[0] == words[1] and first.prompt_text != other.prompt_text:
            return first, Sample(other.id, other.task, other.prompt, first.target)
    raise AssertionError("no two prompts of one length")


# -- codec and capabilities ------------------------------------------------------------------------


def test_codes_have_the_declared_shape(policy):
    declared = policy.capabilities
    pixels = torch.rand(2, 3, declared.image_size, declared.image_size) * 2 - 1
    codes = policy.encode_images(pixels)
    assert codes.shape == (2, declared.image_positions, declared.code_depth)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < declared.codebook_size


def test_images_have_the_declared_size(policy):
    declared = policy.capabilities
    codes = torch.zeros(2, declared.image_positions, declared.code_depth, dtype=torch.long)
    assert policy.decode_images(codes).shape == (2, 3, declared.image_size, declared.image_size)


def test_eye_and_hand_share_codes_if_declared(policy):
    pixels = policy.pixels([s.target[0] for s in drawings(2)])
    with torch.no_grad():
        seen, drawn = policy.embed_pixels(pixels), policy.embed_codes(policy.encode_images(pixels))
    assert seen.shape == drawn.shape
    assert torch.equal(seen, drawn) == policy.capabilities.shared_image_tokens


def test_trajectories_have_the_declared_depth(policy):
    trajectory, _ = sampled(policy)
    is_text = trajectory.tape["kind"] == Kind.TEXT
    assert trajectory.logprobs.shape[2] == policy.capabilities.code_depth
    assert not bool(trajectory.action_mask[is_text][:, 1:].any())


def test_completions_carry_uint8_images(policy):
    size = policy.capabilities.image_size
    _, completions = sampled(policy)
    images = [image for completion in completions for image in completion.images]
    assert {(image.dtype, image.shape) for image in images} == {
        (np.dtype(np.uint8), (size, size, 3))
    }


def test_an_image_of_another_size_is_refused(policy):
    small = Image(np.zeros((8, 8, 3), np.uint8))
    sample = Sample("small", Task.TEXT_TO_IMAGE, (Text("draw a red circle"),), (small,))
    with pytest.raises(Exception, match="8x8"):
        policy.encode([sample], seeded())


def test_the_codec_stays_in_eval(family):
    policy = build(family).train()
    assert policy.training
    assert not any(module.training for module in policy.codec.modules())


def test_the_codec_gets_no_gradient(family):
    policy = build(family)
    policy.logprobs(policy.encode([*stories(1), *questions(1)], seeded())).sum().backward()
    parameters = list(policy.codec.parameters())
    assert parameters
    assert not any(p.requires_grad or p.grad is not None for p in parameters)
