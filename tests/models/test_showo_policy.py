"""Show-o behind the policy protocol: saved whole, faithful to the library, drawn by schedule."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from tests.toys import MICRO_SHOWO, SHOWO_TEMPLATE, build
from tests.toys.samples import drawings, mixed, questions, stories
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.core.trajectory import Modality
from unified_rl.data.images import fit
from unified_rl.decoding.masked import SCHEDULES
from unified_rl.decoding.tape import Columns, Kind, Tape, stack
from unified_rl.microworld.words import vocabulary
from unified_rl.models.pictures import shown_images
from unified_rl.models.showo.load import showo

BEHAVIOUR = Behaviour(max_text_tokens=6, max_image_count=2, guidance_scale=2.0, image_step_count=4)
GREEDY = Behaviour(text=Sampling(0.0), max_text_tokens=6)
CLEAR = 1e-2
"""What something that is seen moves a state by, at least."""


@pytest.fixture(scope="module")
def policy():
    return build("showo")


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("showo")
    policy.save(folder)
    return folder


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def limited(text_limit, template=SHOWO_TEMPLATE):
    return showo(None, MICRO_SHOWO, words=vocabulary(), template=template, text_limit=text_limit)


# -- saving ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_policy_draws_and_scores_the_same(policy, folder):
    loaded = showo(str(folder)).eval()
    trajectory, _ = policy.sample(mixed(), BEHAVIOUR, seeded())
    again, _ = loaded.sample(mixed(), BEHAVIOUR, seeded())
    assert torch.equal(again.tape["ids"], trajectory.tape["ids"])
    assert torch.equal(loaded.logprobs(trajectory), policy.logprobs(trajectory))


def test_a_saved_policy_keeps_codec_template_and_tokenizer(policy, folder):
    loaded = showo(str(folder))
    kept = loaded.codec.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in policy.codec.state_dict().items())
    assert loaded.template == policy.template
    assert loaded.tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    assert not any(parameter.requires_grad for parameter in loaded.codec.parameters())


def test_truncated_weights_are_named(policy, tmp_path):
    policy.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a readable showo checkpoint"):
        showo(str(tmp_path))


def test_no_checkpoint_needs_sizes():
    with pytest.raises(ConfigError, match=r"model\.architecture"):
        showo(None)


# -- parts -----------------------------------------------------------------------------------------


def test_groups_hold_every_parameter_once(policy):
    groups = policy.parameter_groups().values()
    found = [p for group in groups for module in group for p in module.parameters()]
    assert len(found) == len({id(parameter) for parameter in found})
    assert {id(p) for p in found} == {id(p) for p in policy.parameters()}


def test_training_leaves_the_codec_as_it_is():
    policy = build("showo").train()
    assert policy.showo.language_model.training
    assert not any(module.training for module in policy.codec.modules())


def test_the_vocabulary_is_words_then_codes_then_the_mask(policy):
    table = policy.showo.get_input_embeddings().weight
    words, codes = len(policy.tokenizer), policy.capabilities.codebook_size
    assert (policy.code_offset, len(table)) == (words, words + codes + 1)
    assert torch.equal(policy.embed_codes(torch.tensor([[0]]))[0], table[words])
    assert torch.equal(policy.embed_codes(torch.tensor([[policy.mask_code]]))[0], table[-1])
    assert not bool(policy.allowed_text[words:].any())


def test_it_sees_an_image_as_it_would_draw_it(policy):
    pixels = policy.pixels([drawings(1)[0].target[0]])
    codes = policy.codec.encode(pixels)  # (1, 9)
    table = policy.showo.get_input_embeddings().weight
    assert torch.equal(policy.embed_pixels(pixels), table[codes + policy.code_offset])


# -- who sees whom ---------------------------------------------------------------------------------


def test_omni_attention_by_hand(policy):
    # word | begin, 2 shown, end | word | begin, 2 drawn, end | word, behind two columns of padding
    row = Columns(1).text([5]).text([2]).shown_image(2).text([3]).text([6])
    row.text([2], 0).codes([[1], [1]], 0).text([3], 0).text([7], 1)
    other = Columns(1).text([5] * (len(row) + 2))
    tape = stack([row, other], torch.zeros(2, 0, 3, 1, 1), left=True)
    rows = [
        ".............",  # padding; see below
        ".............",
        "..xxxxx......",  # what is shown is seen from the start, up to its end token
        "..xxxxx......",
        "..xxxxx......",
        "..xxxxx......",
        "..xxxxx......",
        "..xxxxxx.....",  # a word sees what is before it
        "..xxxxxxxxxx.",  # the drawn image sees itself whole, and what is before it
        "..xxxxxxxxxx.",
        "..xxxxxxxxxx.",
        "..xxxxxxxxxx.",
        "..xxxxxxxxxxx",
    ]
    seen = policy.visibility(tape.kind, tape.segment, 0)[0]
    # What padding reads is read by nobody; its rows see something, so that they are not empty.
    expected = torch.tensor([[letter == "x" for letter in line] for line in rows])
    assert torch.equal(seen[2:], expected[2:])
    assert bool(seen[:2].any(1).all())
    for start in (8, 12):  # the last columns alone, as decoding asks for them
        assert torch.equal(policy.visibility(tape.kind, tape.segment, start)[0], expected[start:])


@torch.no_grad()
def test_padding_changes_nothing(policy):
    ask = drawings(1)[0]
    row = policy._target_columns(ask, iter([[[0]] * 9]))
    other = Columns(1).text([5] * (len(row) + 4))
    tape = stack([row, other], torch.zeros(2, 0, 3, 1, 1), left=True)
    alone = stack([row], torch.zeros(1, 0, 3, 1, 1))
    assert (policy.read(tape)[0, 4:] - policy.read(alone)[0]).abs().max() <= 1e-5


@torch.no_grad()
def test_the_last_code_moves_the_first_but_no_word_before(policy):
    ask = drawings(1)[0]
    states = []
    for last in (3, 4):
        row = policy._target_columns(ask, iter([[[0]] * 8 + [[last]]]))
        states.append(policy.read(stack([row], torch.zeros(1, 0, 3, 1, 1)))[0])
    moved = (states[0] - states[1]).abs().amax(-1)
    begin = len(moved) - 11  # begin token, 9 codes, end token
    assert float(moved[:begin].max()) == 0
    assert moved[begin:].min() > CLEAR


# -- replay ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 3.0], ids=["plain", "guided"])
def test_replay_and_its_gradient_are_those_of_every_step_read_by_itself(policy, scale):
    behaviour = Behaviour(
        max_text_tokens=4, max_image_count=2, image_step_count=3, guidance_scale=scale
    )
    trajectory, _ = policy.sample([*drawings(2), *stories(120)], behaviour, seeded())
    trajectory = trajectory.select((trajectory.tape["kind"] == Kind.CODE).any(1))
    tape = Tape(*(trajectory.tape[name] for name in Tape._fields))
    weight = torch.randn(trajectory.logprobs.shape, generator=seeded(1)) * trajectory.action_mask
    kept = [p for p in policy.parameters() if p.requires_grad]

    def slowly():
        """Masks in the very place of the image, whose later columns cannot be seen anyway."""
        total = 0.0
        images = (tape.kind == Kind.CODE) & trajectory.action_mask[..., 0]
        for row, segment in {tuple(pair) for pair in images_of(trajectory)}:
            inside = images[row] & (trajectory.segment[row] == segment)
            for step in range(3):
                later = inside & (trajectory.tape["reveal"][row] >= step)
                masked = torch.where(later[:, None], policy.mask_code, tape.ids[row])
                one = Tape(*(field[row : row + 1] for field in tape))._replace(ids=masked[None])
                columns = inside & (trajectory.tape["reveal"][row] == step)
                states = policy.read(one)[0, columns]
                twin = policy.read(one.twin)[0, columns] if behaviour.guided else None
                chosen = policy.code_log_probs(states, twin, behaviour).gather(
                    1, tape.ids[row, columns]
                )
                total = total + (weight[row, columns] * chosen).sum()
        words = policy.read(tape)
        return total + (weight * policy._text_logprobs(trajectory, tape, words)).sum()

    def images_of(trajectory):
        rows, columns = ((tape.kind == Kind.CODE) & trajectory.action_mask[..., 0]).nonzero(
            as_tuple=True
        )
        return zip(rows.tolist(), trajectory.segment[rows, columns].tolist(), strict=True)

    assert len(set(images_of(trajectory))) > trajectory.row_count > 3  # some have two
    values = slowly(), (weight * policy.logprobs(trajectory)).sum()
    slow, fast = (torch.autograd.grad(v, kept, allow_unused=True) for v in values)
    assert values[1].item() == pytest.approx(values[0].item(), abs=1e-4)
    assert [g is None for g in slow] == [g is None for g in fast]
    gaps = [(a - b).abs().max() for a, b in zip(slow, fast, strict=True) if a is not None]
    assert max(gaps) <= 1e-5 * max(g.abs().max() for g in slow if g is not None)


def test_images_without_an_action_are_read_and_not_scored(policy):
    trajectory = policy.encode(stories(2), seeded())
    text = trajectory._replace(action_mask=trajectory.mask_of(Modality.TEXT))
    expected = policy.logprobs(trajectory) * text.action_mask
    assert (policy.logprobs(text) - expected).abs().max() <= 1e-5
    none = trajectory._replace(action_mask=torch.zeros_like(trajectory.action_mask))
    assert not policy.logprobs(none).any()


# -- understanding ---------------------------------------------------------------------------------


@torch.no_grad()
def test_an_answer_with_a_cache_is_the_one_without(policy):
    for ask in questions(3):
        trajectory, _ = policy.sample([ask], GREEDY, seeded())
        answer = trajectory.tape["ids"][0, trajectory.segment[0] >= 0, 0].tolist()
        prompt = policy._prompt_columns(ask)
        for token in answer:
            tape = stack([prompt], shown_images(policy, [ask]))
            scores = policy.text_log_distribution(policy.read(tape)[:, -1], GREEDY)
            assert token == scores.argmax()
            prompt.text([token], 0)


@torch.no_grad()
def test_text_scores_equal_the_librarys(policy):
    gold = policy.encode(questions(1), seeded())
    ids = gold.tape["ids"][..., 0].clone()
    shown = gold.tape["kind"] == Kind.PIXEL
    ids[shown] = policy.codec.encode(gold.tape["shown"][0]).flatten() + policy.code_offset
    length, end = ids.shape[1], int(shown[0].nonzero()[-1]) + 2
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    seen[:, :end] = True
    mask = torch.zeros(1, 1, length, length).masked_fill(~seen, -1e9)
    logits = policy.showo.language_model(input_ids=ids, attention_mask=mask).logits
    logits, scores = logits.log_softmax(-1), policy.logprobs(gold)
    for column in gold.action_mask[0, :, 0].nonzero().flatten().tolist():
        expected = logits[0, column - 1, ids[0, column]]
        assert scores[0, column, 0] == pytest.approx(float(expected), abs=1e-5)


def test_an_image_of_odd_shape_is_cut_about_its_centre(policy):
    # 60 x 24: the middle 24 columns are blue, the sides red
    picture = PillowImage.new("RGB", (60, 24), "red")
    picture.paste("blue", (18, 0, 42, 24))
    size, how = policy.capabilities.image_size, policy.capabilities.image_fit
    assert how == "crop"
    image = Image(fit(picture, size, how))
    assert np.array_equal(image.pixels, np.full((24, 24, 3), (0, 0, 255), np.uint8))
    ask = replace(questions(1)[0], prompt=(image, Text("how many")))
    shown = policy.encode([ask], seeded()).tape["shown"]
    assert shown.shape == (1, 1, 3, 24, 24)
    assert shown[0, 0, :, 5, 5].tolist() == [-1, -1, 1]


# -- drawing ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_image_scores_equal_the_librarys(policy):
    gold = policy.encode(drawings(1), seeded())
    ids, is_code = gold.tape["ids"][..., 0].clone(), gold.tape["kind"] == Kind.CODE
    learnt = gold.action_mask[..., 0]
    assert bool(learnt.any()) and not bool(learnt[~is_code].any())
    codes = ids[learnt]
    ids[is_code] += policy.code_offset
    ids[learnt] = policy.code_offset + policy.mask_code
    length, begin = ids.shape[1], int(is_code[0].nonzero()[0]) - 1
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    seen[begin:, begin:] = True
    mask = torch.zeros(1, 1, length, length).masked_fill(~seen, -1e9)
    logits = policy.showo.language_model(input_ids=ids, attention_mask=mask).logits
    expected = logits[learnt].log_softmax(-1).gather(1, codes[:, None] + policy.code_offset)
    assert (policy.logprobs(gold)[learnt] - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_published_guidance_5_is_scale_6(policy):
    hidden, twin = torch.randn(2, 3, 32, generator=seeded())
    found = policy.code_log_probs(hidden, twin, Behaviour(guidance_scale=6.0))
    rows = slice(policy.code_offset, policy.code_offset + 16)
    conditional, unconditional = (policy.text_logits(h)[:, rows] for h in (hidden, twin))
    expected = (6 * conditional - 5 * unconditional).log_softmax(-1)  # (1 + w) c - w u
    assert (found - expected).abs().max() <= 1e-4  # logits of some ten, in float32


@pytest.mark.parametrize(
    ("schedule", "revealed"),
    [
        # of 9 codes, how many stay masked is floored and falls at each step
        ("cosine", [1, 2, 3, 3]),  # 8.31, 6.36, 3.44 leave 8, 6, 3
        ("linear", [3, 2, 2, 2]),  # 6.75, 4.5, 2.25 leave 6, 4, 2
        ("pow", [1, 2, 3, 3]),  # 8.44, 6.75, 3.94 leave 8, 6, 3
        ("sigmoid", [2, 3, 3, 1]),  # 7.66, 4.5, 1.34 leave 7, 4, 1
    ],
)
def test_steps_reveal_what_the_schedule_says(policy, schedule, revealed):
    behaviour = Behaviour(mask_schedule=schedule, image_step_count=4)
    trajectory, _ = policy.sample(drawings(3), behaviour, seeded())
    is_code = trajectory.tape["kind"] == Kind.CODE
    for row in range(3):
        steps = trajectory.tape["reveal"][row, is_code[row]]
        assert steps.bincount(minlength=4).tolist() == revealed


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("step_count", [1, 9, 20])
def test_every_code_is_revealed_once(policy, schedule, step_count):
    # Also in more steps than there are codes: then some steps have nothing left to reveal.
    behaviour = Behaviour(mask_schedule=schedule, image_step_count=step_count)
    trajectory, (drawn,) = policy.sample(drawings(1), behaviour, seeded())
    is_code = trajectory.tape["kind"][0] == Kind.CODE
    steps = trajectory.tape["reveal"][0, is_code].bincount(minlength=step_count)
    assert (int(steps.sum()), len(steps)) == (9, step_count)
    assert steps[-1] >= 1
    assert bool((trajectory.tape["ids"][0, is_code] < policy.mask_code).all())
    assert len(drawn.images) == 1


def test_a_misspelt_schedule_lists_those_there_are():
    with pytest.raises(ValueError, match="mask_schedule='cosin' .*cosine, linear, pow, sigmoid"):
        Behaviour(mask_schedule="cosin")


# -- texts that are too long -----------------------------------------------------------------------

WORDS = "draw a red circle above a blue square"


def test_a_long_prompt_is_cut_and_still_closed():
    # [t2i], then 5 tokens: start, three words, end
    policy, ask = limited(5), Sample("0", Task.TEXT_TO_IMAGE, (Text(WORDS),))
    words = policy.tokenize("draw a red")
    task, end = policy.tokenizer.convert_tokens_to_ids(["<|t2i|>", "<eos>"])
    assert policy.prompt_ids(ask) == [task, policy.start_id, *words, end]


def test_a_prompt_that_just_fits_is_whole():
    ask = Sample("0", Task.TEXT_TO_IMAGE, (Text(WORDS),))
    whole = limited(None).prompt_ids(ask)
    assert limited(len(whole) - 1).prompt_ids(ask) == whole
    assert len(limited(len(whole) - 2).prompt_ids(ask)) == len(whole) - 1


def test_the_twin_of_a_cut_prompt_ends_where_it_ends():
    policy, ask = limited(5), drawings(1)[0]
    tape = Tape(*(policy.encode([ask], seeded()).tape[name] for name in Tape._fields))
    begin = int((tape.kind[0] == Kind.CODE).nonzero()[0]) - 1
    assert begin == 6
    task, end = policy.tokenizer.convert_tokens_to_ids(["<|t2i|>", "<eos>"])
    expected = [task, policy.start_id, end]
    assert tape.twin.ids[0, :, 0][tape.twin.valid[0]][:3].tolist() == expected
    assert tape.twin.kind[0, :begin].tolist() == [Kind.PAD] * 3 + [Kind.TEXT] * 3


def test_a_long_answer_is_cut_and_still_closed():
    ask = replace(questions(1)[0], target=(Text(WORDS),))
    whole = limited(None).encode([ask], seeded())
    policy = limited(8)
    gold = policy.encode([ask], seeded())
    behind = int((gold.tape["kind"][0] == Kind.PIXEL).nonzero()[-1]) + 2
    ids = gold.tape["ids"][0, :, 0]
    assert len(ids) == behind + 8 < whole.tape["ids"].shape[1]
    assert ids[:-1].tolist() == whole.tape["ids"][0, : behind + 7, 0].tolist()
    assert ids[-1] == policy.end_of_text_id


def test_a_long_text_is_cut_open():
    # as wide as a drawing: 1 + 3 tokens and an image of 9 codes and 2 borders
    ask = Sample("0", Task.TEXT, (Text("a"),), (Text(" ".join([WORDS] * 3)),))
    ids = limited(3).encode([ask], seeded()).tape["ids"][0, :, 0]
    assert ids.tolist() == limited(None).encode([ask], seeded()).tape["ids"][0, :15, 0].tolist()


def test_a_prompt_that_shows_an_image_is_not_cut():
    layouts = {**SHOWO_TEMPLATE.layouts, "text_to_image": "<|t2i|>{start}{prompt}<eos>"}
    template = replace(SHOWO_TEMPLATE, layouts=layouts)
    shown = drawings(1)[0].target[0]
    ask = Sample("0", Task.TEXT_TO_IMAGE, (shown, Text(WORDS)))
    whole, cut = (limited(n, template).prompt_ids(ask) for n in (None, 5))
    assert cut == whole
    assert len(whole) > 9 + 5


def test_stories_are_not_cut():
    ask = stories(1)[0]
    assert limited(3).prompt_ids(ask) == limited(None).prompt_ids(ask)


def test_the_limit_is_saved(tmp_path):
    limited(5).save(tmp_path)
    assert showo(str(tmp_path)).text_limit == 5
    assert showo(str(tmp_path), text_limit=7).text_limit == 7


@pytest.mark.parametrize("text_limit", [0, 2])
def test_a_limit_without_a_word_is_refused(folder, text_limit):
    for make in (limited, lambda limit: showo(str(folder), text_limit=limit)):
        with pytest.raises(ConfigError, match=f"text_limit={text_limit} .* at least 3"):
            make(text_limit)
