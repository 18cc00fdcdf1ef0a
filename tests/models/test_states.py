"""Hidden states of a prompt that shows an image: which columns, of which layer, of whom."""

import copy
import dataclasses

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import JanusForConditionalGeneration, PreTrainedTokenizerFast

from tests.toys import FAMILIES, SHIPPED, build
from tests.toys.samples import drawings, questions
from unified_rl.core.errors import ConfigError
from unified_rl.core.protocols import Represents
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.decoding.tape import Kind
from unified_rl.models.adapter import Adapter, adapt
from unified_rl.models.janus.official import janus_template
from unified_rl.models.janus.policy import JanusPolicy
from unified_rl.models.pictures import shown_images
from unified_rl.models.showo.official_prompt import official_template as showo_template
from unified_rl.models.states import find_places
from unified_rl.models.template import Template
from unified_rl.models.vila_u.official_prompt import official_template as vila_u_template

LAYERS = (-1, 1, 2, "embeddings")


@pytest.fixture(scope="module", params=[*FAMILIES, *SHIPPED])
def policy(request):
    """Shared; no test leaves it changed."""
    return build(request.param)


@pytest.fixture(scope="module")
def samples():
    """Prompts of different length."""
    shown = next(s for s in questions(1)[0].prompt if isinstance(s, Image))
    pictures = [Image(shown.pixels), Image(255 - shown.pixels), Image(shown.pixels // 2)]
    texts = ("a red circle", "circle", "what is the main object of the image")
    return [asked(text, picture) for text, picture in zip(texts, pictures, strict=True)]


def asked(text, picture):
    return Sample(text, Task.UNDERSTANDING, (picture, Text(text)))


def ids_at(policy, row, place):
    return [ids[0] for ids in row.ids[place]]


# -- columns ---------------------------------------------------------------------------------------


def test_places_are_of_words_and_image(policy, samples):
    assert isinstance(policy, Represents)
    for sample in samples:
        row = policy._prompt_columns(sample)
        text, image, behind = find_places(policy, sample, row)
        assert ids_at(policy, row, text) == policy.tokenize(sample.prompt_text)
        shown = [place for place, kind in enumerate(row.kind) if kind == Kind.PIXEL]
        assert list(range(len(row)))[image] == shown
        assert (behind.start, behind.stop) == (shown[-1] + 1, len(row))
        assert row.ids[behind.start][0] == policy.end_of_image_id


# <bos> <user>, image of 3 + 9 + 1 columns' borders and positions, "a red circle" <assistant>
JANUS = (slice(13, 16), slice(3, 12), slice(12, 17))
# <|mmu|>, begin of image, its 9 positions, its end, <bos> <user> "a red circle" <assistant>
SHOWO = (slice(14, 17), slice(2, 11), slice(11, 18))


@pytest.mark.parametrize(("family", "places"), [("janus", JANUS), ("showo", SHOWO)])
def test_places_by_hand(family, places, samples):
    policy = build(family)
    row = policy._prompt_columns(samples[0])
    assert find_places(policy, samples[0], row) == places


def test_padding_on_the_left_moves_all_places(samples):
    policy = build("showo")
    long = "<|t2i|>{start}" + "<eos>" * 18  # a twin of 20 columns beside a prompt of 18
    policy.template = dataclasses.replace(policy.template, unconditional=long)
    row = policy._prompt_columns(samples[0])
    assert row.kind[:3] == [Kind.PAD, Kind.PAD, Kind.TEXT]
    moved = tuple(slice(place.start + 2, place.stop + 2) for place in SHOWO)
    assert find_places(policy, samples[0], row) == moved


def byte_level(*merged):
    """A byte-level tokenizer that joins the given pairs of characters, and nothing else."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pairs = [tuple(splitter.pre_tokenize_str(pair)[0][0]) for pair in merged]
    pieces = [*sorted(splitter.alphabet()), *map("".join, pairs)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, pairs))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentence_pieces(*merged):
    """A tokenizer of characters, spaces written as ▁, other characters as their bytes."""
    letters = [chr(code) for code in range(33, 127)]
    pairs = [tuple(pair.replace(" ", "▁")) for pair in merged]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *map("".join, pairs)])}
    model = models.BPE(vocabulary, pairs, unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer


def speaking(tokenizer, template):
    """A small policy with another tokenizer and layout, whatever family that is of."""
    special = [template.start, template.pad, template.end_of_text, template.image_trigger]
    special += [template.begin_of_image, template.end_of_image, "<|mmu|>", "<|User|>"]
    special = list(dict.fromkeys(special))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    template = dataclasses.replace(template, forbidden=())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    config = copy.deepcopy(build("janus").janus.config)
    config.text_config.vocab_size = len(tokenizer)
    return JanusPolicy(JanusForConditionalGeneration(config), tokenizer, template)


TEMPLATES = {
    "janus": janus_template(),
    "showo": showo_template(),
    "showo_clip": showo_template(with_clip=True),
    "vila_u": vila_u_template(),
    "words_before": Template(layout="{start}ask {text} of {images} end"),
}
TOKENIZERS = {"bytes": byte_level, "pieces": sentence_pieces}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_words_in_a_run_with_the_layout_by_hand(template, tokenizer, samples):
    policy = speaking(TOKENIZERS[tokenizer](), TEMPLATES[template])
    for text, count in (
        ("a cat", 5),
        ("a h\u00e9ron", 8),  # seven characters, one of two bytes
        ("USER: a ASSISTANT: b ask of", 27),  # words of the layouts
        (" two  spaces ", 13),
    ):
        sample = asked(text, samples[0].prompt[0])
        row = policy._prompt_columns(sample)
        place = find_places(policy, sample, row).text
        assert place.stop - place.start == count
        assert ids_at(policy, row, place) == policy.tokenize(text)
        rest = row.ids[: place.start] + row.ids[place.stop :]
        without = policy._prompt_columns(asked("", samples[0].prompt[0])).ids
        assert rest == without


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_token_shared_with_the_layout_is_the_prompts(tokenizer, samples):
    # "USER: a cat. ASSISTANT:": " a" holds the layout's space, ". " its other one
    layout = Template(layout="{start}USER: {text} ASSISTANT:{images}")
    policy = speaking(TOKENIZERS[tokenizer](" a", ". "), layout)
    sample = Sample("", Task.UNDERSTANDING, (Text("a cat."), samples[0].prompt[0]))
    row = policy._prompt_columns(sample)
    place = find_places(policy, sample, row).text
    expected = [*policy.tokenize(" a"), *policy.tokenize(" cat"), *policy.tokenize(". ")]
    assert [len(policy.tokenize(t)) for t in (" a", " cat", ". ")] == [1, 4, 1]
    assert ids_at(policy, row, place) == expected
    assert place == slice(1 + len("USER:"), 1 + len("USER:") + 6)  # <bos>, a token a character


def test_a_line_break_that_joins_a_full_stop_is_the_prompts(samples):
    policy = speaking(byte_level(".\n"), janus_template())
    sample = asked("a cat.", samples[0].prompt[0])
    place = find_places(policy, sample, policy._prompt_columns(sample)).text
    ids = ids_at(policy, policy._prompt_columns(sample), place)
    assert policy.tokenizer.decode(ids) == "a cat.\n"
    assert len(ids) == 6


# -- layers ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_embeddings_are_the_inputs(policy, samples):
    states = policy.states(samples, "embeddings")
    for sample, own in zip(samples, states, strict=True):
        words = torch.tensor(policy.tokenize(sample.prompt_text))
        assert torch.equal(own.text, policy.embed_text(words))
        seen = policy.embed_pixels(policy.pixels([sample.prompt[0]]))[0]
        assert torch.allclose(own.image, seen.to(own.image.dtype), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_last_states_are_the_normed_output_of_the_last_block(policy, samples):
    blocks, norm = policy.parameter_groups()["language_model"]
    last, behind_blocks = (policy.states(samples, layer) for layer in (-1, len(blocks)))
    for one, other in zip(last, behind_blocks, strict=True):
        for field, unnormed in zip(one, other, strict=True):
            assert torch.allclose(field, norm(unnormed), atol=1e-6, rtol=0)
            assert (field - unnormed).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["janus", "vila_u"])
@torch.no_grad()
def test_layers_are_those_that_the_library_counts(family, samples):
    """A row by itself, under the library's own causal mask."""
    policy = build(family)
    model = policy.janus.model if family == "janus" else policy.vila_u.language_model
    model = model.language_model if family == "janus" else model.model
    tape = policy._tape([policy._prompt_columns(samples[0])], shown_images(policy, samples[:1]))
    embeds = policy.embed(tape.ids, tape.kind, policy.image_features(tape.shown))
    found = model(inputs_embeds=embeds, output_hidden_states=True).hidden_states
    for layer, expected in (("embeddings", found[0]), (1, found[1]), (-1, found[2])):
        states = policy.states(samples[:1], layer)[0]
        for place, own in zip(JANUS, states, strict=True):
            assert torch.allclose(own, expected[0, place], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("dtype", "share"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
@torch.no_grad()
def test_a_row_owes_nothing_to_its_batch(policy, samples, dtype, share):
    """But for rounding: `share` of the greatest number of the states."""
    policy = copy.deepcopy(policy).to(dtype)
    lengths = {len(policy._prompt_columns(sample)) for sample in samples}
    assert len(lengths) == 3
    for layer in LAYERS:
        together = policy.states(samples, layer)
        turned = policy.states(samples[::-1], layer)[::-1]
        for row, sample in enumerate(samples):
            (alone,) = policy.states([sample], layer)
            for field, batched, other in zip(alone, together[row], turned[row], strict=True):
                assert field.isfinite().all()
                assert field.shape == batched.shape == other.shape
                nearness = share * float(field.abs().max())
                assert torch.allclose(field, batched, atol=nearness, rtol=0)
                assert torch.allclose(field, other, atol=nearness, rtol=0)


@torch.no_grad()
def test_words_look_at_the_image_but_for_the_embeddings(policy, samples):
    one = samples[0]
    other = asked(one.prompt_text, samples[1].prompt[0])
    for layer in LAYERS:
        (first,), (second,) = policy.states([one], layer), policy.states([other], layer)
        moved = float((first.text - second.text).abs().max())
        assert moved == 0 if layer == "embeddings" else moved > 1e-4


def test_gradients_flow_and_no_hook_is_left(samples):
    policy = build("janus")
    policy.states(samples, 1)[0].text.sum().backward()
    blocks = policy.parameter_groups()["language_model"][0]
    grads = [any(p.grad is not None for p in block.parameters()) for block in blocks]
    assert grads == [True, False]
    policy.embed_pixels = None
    with pytest.raises(TypeError):
        policy.states(samples, 1)
    assert not any(block._forward_hooks for block in blocks)


def test_layers_are_found_under_an_adapter(samples):
    policy, adapted = build("janus"), build("janus")
    adapt(adapted, Adapter(kind="lora", rank=2, gradient_checkpointing=True))
    for layer in LAYERS:
        for one, other in zip(
            policy.states(samples, layer), adapted.states(samples, layer), strict=True
        ):
            assert torch.allclose(one.text, other.text, atol=1e-6, rtol=0)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 3, -2, 1.5, "last"])
def test_a_layer_that_is_not_there_is_refused(layer, samples):
    with pytest.raises(ConfigError, match=rf"layer={layer!r} is none .* 1 to 2 "):
        build("janus").states(samples, layer)


def test_other_prompts_are_refused(samples):
    policy, picture = build("janus"), samples[0].prompt[0]
    words = Text("a")
    for prompt in ((words,), (picture,), (picture, picture, words), (picture, words, words)):
        with pytest.raises(ValueError, match="its prompt an Image and a Text"):
            policy.states([Sample("0", Task.UNDERSTANDING, prompt)], -1)
    with pytest.raises(ValueError, match="text_to_image sample"):
        policy.states(drawings(1), -1)


def test_a_prompt_beyond_the_context_is_refused(samples):
    policy = build("janus")
    long = asked("red " * policy.context_length, samples[0].prompt[0])
    with pytest.raises(ConfigError, match="the model's context"):
        policy.states([long], -1)


def test_no_words_have_no_states(samples):
    (states,) = build("janus").states([asked("", samples[0].prompt[0])], -1)
    assert states.text.shape == (0, 32)
