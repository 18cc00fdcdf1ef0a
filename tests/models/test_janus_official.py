"""Janus from the authors' own checkpoints: every tensor placed, sizes as published, and back."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import JanusForConditionalGeneration

from tests.toys import MICRO_JANUS, TEMPLATE
from tests.toys.samples import questions
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.microworld.words import vocabulary
from unified_rl.models.janus import official
from unified_rl.models.janus.load import janus
from unified_rl.models.janus.official import export, janus_config, janus_template, load_state
from unified_rl.models.key_map import Ignored, Rule, build_empty
from unified_rl.models.specimens.janus import (
    ARCHITECTURE,
    PUBLISHED,
    SETTINGS,
    SPECIAL,
    WORDS,
    official_shapes,
    published,
    random_state,
    tokenizer_files,
    write_official,
)
from unified_rl.models.weights import FolderWeights

LAYOUTS = ("safetensors", "safetensors-shards", "bin", "bin-shards")


@pytest.fixture(scope="module")
def state():
    return random_state(official_shapes())


@pytest.fixture(scope="module")
def folder(state, tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("official"), state)


@pytest.fixture(scope="module")
def policy(folder):
    return load(folder)


def load(folder, **settings):
    return janus(str(folder), **{"architecture": ARCHITECTURE, **settings})


def by_hand(state):
    """What our model must hold, written out name by name."""
    vision, block = "vision_model.vision_tower", "vision_model.vision_tower.blocks.1"
    llama = "language_model.model"
    ours, codec = "model.vision_model", "gen_vision_model"
    layer = "model.vision_model.encoder.layers.1"
    qkv = state[f"{block}.attn.qkv.weight"]  # (96, 32)
    codes = state[f"{codec}.quantize.embedding.weight"]  # (40, 8)
    codes = codes / codes.square().sum(1, keepdim=True).sqrt()
    pairs = {
        f"{ours}.embeddings.patch_embedding.bias": state[f"{vision}.patch_embed.proj.bias"],
        f"{ours}.embeddings.position_embedding.weight": state[f"{vision}.pos_embed"][0],
        f"{layer}.self_attn.q_proj.weight": qkv[:32],
        f"{layer}.self_attn.k_proj.weight": qkv[32:64],
        f"{layer}.self_attn.v_proj.weight": qkv[64:],
        f"{layer}.self_attn.v_proj.bias": state[f"{block}.attn.qkv.bias"][64:],
        f"{layer}.self_attn.projection_layer.weight": state[f"{block}.attn.proj.weight"],
        f"{layer}.layer_norm2.bias": state[f"{block}.norm2.bias"],
        f"{layer}.mlp.fc1.weight": state[f"{block}.mlp.fc1.weight"],
        f"{ours}.post_layernorm.weight": state[f"{vision}.norm.weight"],
        "model.aligner.fc1.weight": state["aligner.layers.0.weight"],
        "model.aligner.hidden_layers.0.bias": state["aligner.layers.2.bias"],
        "model.generation_aligner.fc1.weight": state["gen_aligner.layers.0.weight"],
        "model.generation_aligner.hidden_layers.0.weight": state["gen_aligner.layers.2.weight"],
        "model.generation_embeddings.weight": state["gen_embed.weight"],
        "model.generation_head.proj_out.bias": state["gen_head.output_mlp_projector.bias"],
        "model.generation_head.vision_head.weight": state["gen_head.vision_head.weight"],
        "lm_head.weight": state["language_model.lm_head.weight"],
        "model.language_model.embed_tokens.weight": state[
            "language_model.model.embed_tokens.weight"
        ],
        "model.language_model.layers.1.mlp.up_proj.weight": state[
            f"{llama}.layers.1.mlp.up_proj.weight"
        ],
        "model.vqmodel.quantize.embedding.weight": codes,
    }
    moved = {
        "encoder.down.3.attn.0.q.weight": "encoder.conv_blocks.3.attn.0.q.weight",
        "encoder.down.2.downsample.conv.bias": "encoder.conv_blocks.2.downsample.conv.bias",
        "encoder.down.3.block.0.norm1.weight": "encoder.conv_blocks.3.res.0.norm1.weight",
        "encoder.mid.block_2.conv1.weight": "encoder.mid.2.conv1.weight",
        "decoder.mid.attn_1.proj_out.weight": "decoder.mid.1.proj_out.weight",
        "decoder.up.0.attn.1.v.bias": "decoder.conv_blocks.0.attn.1.v.bias",
        "decoder.up.0.upsample.conv.weight": "decoder.conv_blocks.0.upsample.conv.weight",
        "decoder.up.1.block.0.nin_shortcut.bias": "decoder.conv_blocks.1.res.0.nin_shortcut.bias",
        "decoder.norm_out.weight": "decoder.norm_out.weight",
        "post_quant_conv.weight": "post_quant_conv.weight",
        "quant_conv.bias": "quant_conv.bias",
    }
    moved = {f"model.vqmodel.{our}": state[f"{codec}.{name}"] for our, name in moved.items()}
    return pairs | moved


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(state, policy, tmp_path, layout):
    loaded = load(write_official(tmp_path, state, layout)).janus.state_dict()
    expected = policy.janus.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_tensors_are_where_the_hand_puts_them(state, policy):
    found = policy.janus.state_dict()
    for name, expected in by_hand(state).items():
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-6)


def test_a_state_dict_in_memory_loads_alike(state, policy):
    loaded = load_state(state, SETTINGS, ARCHITECTURE).state_dict()
    expected = policy.janus.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_nothing_is_left_on_meta(policy):
    tensors = (*policy.janus.parameters(), *policy.janus.buffers())
    assert not any(tensor.is_meta for tensor in tensors)
    frequencies = policy.janus.model.language_model.rotary_emb.inv_freq
    expected = torch.tensor([10000 ** (-i / 6) for i in range(6)])  # heads of 48 / 4 = 12
    torch.testing.assert_close(frequencies, expected, rtol=1e-6, atol=0)
    positions = policy.janus.model.vision_model.embeddings.position_ids
    assert positions.tolist() == [list(range(9))]  # 24 / 8 squared


def test_the_head_is_not_tied(policy):
    head, embeddings = policy.janus.lm_head.weight, policy.janus.get_input_embeddings().weight
    assert head is not embeddings and not torch.equal(head, embeddings)
    assert policy.janus.config.tie_word_embeddings is False


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_take_the_dtype_asked_for(folder, dtype):
    loaded = load(folder, dtype=dtype).janus
    assert {str(p.dtype) for p in loaded.parameters()} == {f"torch.{dtype}"}


def test_random_weights_take_the_dtype_too():
    made = janus(None, MICRO_JANUS, words=vocabulary(), template=TEMPLATE, dtype="bfloat16").janus
    assert {p.dtype for p in made.parameters()} == {torch.bfloat16}


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(ConfigError, match=r"model\.dtype='int8' must be one of float32"):
        load(folder, dtype="int8")


@torch.no_grad()
def test_codes_are_found_by_cosine(state, policy):
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    codec = policy.codec
    latents = codec.quant_conv(codec.encoder(pixels)).flatten(2)[0].T  # (9, 8)
    book = state["gen_vision_model.quantize.embedding.weight"]
    cosines = torch.nn.functional.cosine_similarity(latents[:, None], book[None], dim=-1)
    assert policy.encode_images(pixels)[0, :, 0].tolist() == cosines.argmax(-1).tolist()


def test_rules_and_reasons_cover_every_official_name():
    entries = {name: official.KEY_MAP.find(name)[0] for name in official_shapes()}
    ignored = {name for name, entry in entries.items() if isinstance(entry, Ignored)}
    assert all(isinstance(entry, Rule | Ignored) for entry in entries.values())
    assert all("attn_pool" in name or "codebook_used" in name for name in ignored)
    assert all(len(entries[name].reason) > 10 for name in ignored)


# -- standard folders ------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_policy_reloads_bit_for_bit(policy, tmp_path):
    policy.save(tmp_path)
    again = janus(str(tmp_path))
    expected = policy.janus.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in again.janus.state_dict().items())
    assert again.template == policy.template
    assert len(again.tokenizer) == len(policy.tokenizer)
    settings = again.janus.generation_config
    assert settings.generation_kwargs == {"boi_token_id": SPECIAL.index("<begin_of_image>")}
    assert (settings.guidance_scale, settings.eos_token_id) == (5.0, 2)
    plain = JanusForConditionalGeneration.from_pretrained(tmp_path, tie_word_embeddings=False)
    assert all(torch.equal(t, expected[n]) for n, t in plain.state_dict().items())


def conversion(folder, state, tied):
    """A conversion that kept the codebook as it was and says nothing of tying, as published."""
    model = load_state(state, SETTINGS, ARCHITECTURE)
    book = state["gen_vision_model.quantize.embedding.weight"]
    model.model.vqmodel.quantize.embedding.weight.data = book.clone()
    model.save_pretrained(folder)
    tokenizer_files(folder)
    settings = json.loads((folder / "config.json").read_text())
    del settings["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(settings))
    if tied:
        tensors = load_file(folder / "model.safetensors")
        del tensors["lm_head.weight"]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_a_conversion_is_read_untied_and_normalised(state, policy, tmp_path):
    conversion(tmp_path, state, tied=False)
    loaded, expected = janus(str(tmp_path)).janus.state_dict(), policy.janus.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_a_tied_head_is_refused(state, tmp_path):
    conversion(tmp_path, state, tied=True)
    refused(tmp_path, "lm_head.weight is missing", "tied", "tie_word_embeddings=false")


# -- exporting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_untrained_model_is_exported_bit_for_bit(tmp_path, layout):
    state = random_state(official_shapes(), torch.bfloat16)
    original = write_official(tmp_path / "original", state, layout)
    export(load(original).janus, original, tmp_path / "out")
    weights = FolderWeights(tmp_path / "out")
    assert weights.shards == FolderWeights(original).shards
    for name, tensor in state.items():
        read = weights.read(name)
        assert read.dtype == tensor.dtype and torch.equal(read, tensor), name
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == SETTINGS
    assert (tmp_path / "out" / "tokenizer.json").is_file()


@torch.no_grad()
def test_a_trained_model_is_exported_with_its_function(folder, tmp_path):
    policy = load(folder)
    generator = torch.Generator().manual_seed(3)
    for parameter in policy.janus.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)
    codebook = policy.codec.quantize.embedding.weight
    codebook.copy_(torch.nn.functional.normalize(codebook, dim=-1))
    export(policy.janus, folder, tmp_path / "out")
    again = load(tmp_path / "out").janus.state_dict()
    assert all(torch.equal(t, again[n]) for n, t in policy.janus.state_dict().items())


def test_an_original_of_the_library_is_not_exported_to(policy, tmp_path):
    policy.save(tmp_path)
    with pytest.raises(CheckpointError, match="'janus', not 'multi_modality'"):
        export(policy.janus, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- depths of the aligners ------------------------------------------------------------------------


def of_depth(depth, gen_depth):
    """Settings and shapes; the linear layers of an aligner have even numbers."""
    settings = copy.deepcopy(SETTINGS)
    shapes = official_shapes()
    for name, count in (("aligner", depth), ("gen_aligner", gen_depth)):
        settings[f"{name}_config"]["params"]["depth"] = count
        shapes = {n: s for n, s in shapes.items() if not n.startswith(f"{name}.layers.2.")}
        for layer in range(1, count):
            shapes |= {f"{name}.layers.{2 * layer}.weight": (48, 48)}
            shapes |= {f"{name}.layers.{2 * layer}.bias": (48,)}
    return settings, shapes


@pytest.mark.parametrize("depths", [(1, 1), (3, 2), (2, 4)])
@torch.no_grad()
def test_aligners_of_any_depth_are_read_and_written(tmp_path, depths):
    settings, shapes = of_depth(*depths)
    state = random_state(shapes)
    original = write_official(tmp_path / "original", state, settings=settings)
    model = load(original).janus
    inputs = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    expected = inputs
    for layer in range(depths[0]):  # a GELU between the linear layers, none at the end
        expected = torch.nn.functional.gelu(expected) if layer else expected
        root = f"aligner.layers.{2 * layer}"
        expected = expected @ state[f"{root}.weight"].T + state[f"{root}.bias"]
    torch.testing.assert_close(model.model.aligner(inputs), expected, rtol=1e-5, atol=1e-5)
    assert len(model.model.generation_aligner.hidden_layers) == depths[1] - 1
    export(model, original, tmp_path / "out")
    weights = FolderWeights(tmp_path / "out")
    assert set(weights.names()) == set(state)
    assert all(torch.equal(weights.read(name), tensor) for name, tensor in state.items())


def test_an_aligner_that_is_deeper_than_told_is_refused(tmp_path):
    _, shapes = of_depth(3, 2)
    write_official(tmp_path, random_state(shapes))
    refused(tmp_path, "2 unknown (aligner.layers.4.bias, aligner.layers.4.weight)")


# -- bad input -------------------------------------------------------------------------------------


def refused(folder, *words, **settings):
    with pytest.raises(CheckpointError) as caught:
        load(folder, **settings)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(folder), *words):
        assert word in message, message


def changed(**parts):
    """The settings with some of their values replaced: `part=(path, value)`."""
    settings = copy.deepcopy(SETTINGS)
    for part, (path, value) in parts.items():
        *outer, last = path.split(".")
        inner = settings[f"{part}_config"]
        for name in outer:
            inner = inner[name]
        inner[last] = value
    return settings


def test_a_vocabulary_mismatch_names_both_numbers_and_the_file(state, tmp_path):
    write_official(tmp_path, state, settings=changed(language=("vocab_size", 80)))
    refused(
        tmp_path,
        "model.safetensors",
        "vocabulary mismatch",
        "has 70 rows",
        "language_config.vocab_size=80",
        "set it to 70",
    )


def test_a_codebook_mismatch_names_both_numbers(state, tmp_path):
    settings = changed(gen_vision=("params.image_token_size", 64))
    write_official(tmp_path, state, settings=settings)
    refused(tmp_path, "has 40 rows", "gen_vision_config.params.image_token_size=64")


def test_a_tokenizer_that_is_too_large_is_refused(state, tmp_path):
    write_official(tmp_path, state)
    tokenizer_files(tmp_path, [f"word{index}" for index in range(80)])
    refused(tmp_path, "vocabulary mismatch", "tokenizer.json has 87 tokens", "vocab_size=70")


def test_a_tokenizer_without_room_for_the_trigger_is_refused(state, tmp_path):
    write_official(tmp_path, state)
    tokenizer_files(tmp_path, [f"word{index}" for index in range(63)])  # 6 + <unk> + 63 = 70
    with pytest.raises(CheckpointError, match="all 70 rows .* none for '<vis>'.*image_trigger"):
        load(tmp_path)


def test_layers_that_the_config_lacks_are_named(state, tmp_path):
    write_official(tmp_path, state, settings=changed(language=("num_hidden_layers", 1)))
    refused(tmp_path, "9 unknown (language_model.model.layers.1.input_layernorm.weight")


def test_layers_that_the_weights_lack_are_named(state, tmp_path):
    write_official(tmp_path, state, settings=changed(language=("num_hidden_layers", 3)))
    refused(tmp_path, "9 missing (model.language_model.layers.2.input_layernorm.weight")


def test_a_missing_head_is_told_as_tied(state, tmp_path):
    untied = {n: t for n, t in state.items() if n != "language_model.lm_head.weight"}
    write_official(tmp_path, untied)
    refused(tmp_path, "language_model.lm_head.weight is missing", "tied", "its head")


def test_a_missing_shard_is_named(state, tmp_path):
    write_official(tmp_path, state, "bin-shards")
    (tmp_path / "pytorch_model-00002-of-00003.bin").unlink()
    refused(tmp_path, "pytorch_model-00002-of-00003.bin is missing")


def test_a_truncated_file_is_named(state, tmp_path):
    write_official(tmp_path, state)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(tmp_path, "model.safetensors is truncated")


def test_a_folder_without_weights_is_named(state, tmp_path):
    write_official(tmp_path, state)
    (tmp_path / "model.safetensors").unlink()
    refused(tmp_path, "holds no weights", "pytorch_model.bin")


@pytest.mark.parametrize("model_type", ["phi", "llava_llama", "vila_u"])
def test_another_family_is_refused(tmp_path, state, model_type):
    write_official(tmp_path, state, "bin", settings={**SETTINGS, "model_type": model_type})
    refused(tmp_path, repr(model_type), "not 'janus' or 'multi_modality'", "the model=")


def test_a_model_of_the_same_type_that_cannot_draw_is_refused(tmp_path, state):
    settings = {n: v for n, v in SETTINGS.items() if not n.startswith("gen_")}
    write_official(tmp_path, state, settings=settings)
    refused(tmp_path, "not a Janus one", "gen_vision_config", "DeepSeek-VL")


@pytest.mark.parametrize(
    "part, path, value, words",
    [
        ("gen_head", "params.image_token_embed", 40, ("image_token_embed=40", "hidden_size=48")),
        ("aligner", "params.n_embed", 64, ("n_embed=64", "hidden_size=48")),
        ("vision", "params.select_layer", -2, ("select_layer=-2", "only -1")),
        ("aligner", "params.depth", 9, ("aligner_config.params.depth=9", "from 1 to 8")),
        ("gen_aligner", "params.depth", "2", ("gen_aligner_config.params.depth='2'",)),
        ("aligner", "params.projector_type", "linear", ("projector_type='linear'", "'mlp_gelu'")),
        ("vision", "params.image_size", 28, ("patch_size=8", "image_size=28")),
    ],
)
def test_architectures_that_the_library_lacks_are_refused(
    state, tmp_path, part, path, value, words
):
    write_official(tmp_path, state, settings=changed(**{part: (path, value)}))
    refused(tmp_path, *words)


def test_a_codec_of_another_grid_is_refused(state, tmp_path):
    # 3 levels halve twice, so 24 px make 6 x 6 codes where patches of 8 px make 3 x 3
    codec = {**ARCHITECTURE["codec"], "channel_multiplier": [1, 1, 2]}
    write_official(tmp_path, state)
    words = ("reduces by 4", "length 3", "patch_size=8", "the same grid")
    refused(tmp_path, *words, architecture={**ARCHITECTURE, "codec": codec})
    load(tmp_path).save(tmp_path / "standard")
    path = tmp_path / "standard" / "config.json"
    settings = json.loads(path.read_text())
    settings["vq_config"]["channel_multiplier"] = [1, 1, 2]
    path.write_text(json.dumps(settings))
    refused(tmp_path / "standard", *words)


def test_a_folder_without_a_tokenizer_names_the_file(state, tmp_path):
    write_official(tmp_path, state)
    (tmp_path / "tokenizer.json").unlink()
    refused(tmp_path, "tokenizer.json is missing", "copy it")


def test_unknown_names_of_sizes_are_refused(folder):
    words = ("'siglip_tiny'", "siglip_large_patch16_384", "model.architecture.vision")
    refused(folder, *words, architecture=None)


# -- prompts ---------------------------------------------------------------------------------------


def test_janus_pro_is_known_by_its_roles(policy, state, tmp_path):
    assert policy.template == janus_template("<|User|>", "<|Assistant|>")
    write_official(tmp_path, state)
    tokenizer_files(tmp_path, [word for word in WORDS if "<|" not in word])
    assert load(tmp_path).template == janus_template("User", "Assistant")


def test_a_prompt_is_laid_out_as_the_authors_do():
    ask = Sample("0", Task.TEXT_TO_IMAGE, (Text("a cat"),))
    start, words = janus_template().pieces(ask.task, ask.prompt)
    assert words.text == "<|User|>: a cat\n\n<|Assistant|>:"
    start, words = janus_template("User", "Assistant").pieces(ask.task, ask.prompt)
    assert words.text == "User: a cat\n\nAssistant:"


def test_a_question_about_an_image_gets_the_system_prompt():
    sample = questions(1)[0]
    pieces = janus_template().pieces(sample.task, sample.prompt)
    assert pieces[1].text.startswith("You are a helpful language and vision assistant.")
    assert pieces[1].text.endswith("natural language.\n\n<|User|>: ")
    assert pieces[3].text.startswith("\n")  # behind the image


def test_the_trigger_takes_a_row_that_the_tokenizer_leaves_free(policy):
    assert policy.image_trigger_id == len(SPECIAL) + 1 + len(WORDS)
    assert policy.janus.config.image_token_id == SPECIAL.index("<image_placeholder>")


@torch.no_grad()
def test_an_official_policy_draws(policy):
    ask = Sample("0", Task.TEXT_TO_IMAGE, (Text("a red circle"),))
    behaviour = Behaviour(guidance_scale=5.0)
    _, (drawn,) = policy.sample([ask], behaviour, torch.Generator().manual_seed(0))
    assert drawn.segments[0].pixels.shape == (24, 24, 3)


# -- published sizes -------------------------------------------------------------------------------


def language_count(width, inner, layers):
    # embeddings and head; q, k, v, o; gate, up, down; two norms a layer and one at the end
    matrices = 4 * width**2 + 3 * width * inner
    return 2 * 102400 * width + layers * (matrices + 2 * width) + width


def vision_count():
    # 24 layers of qkv and proj (4 d^2 + 4 d), MLP (8 d^2 + 5 d), two norms (4 d) at d = 1024;
    # patches of 16 x 16 x 3, 576 positions, a last norm
    d = 1024
    return 24 * (12 * d**2 + 13 * d) + (768 * d + d) + 576 * d + 2 * d


def adapters_count(width):
    # aligner 1024 -> w -> w, generation aligner 8 -> w -> w, head w -> w -> 16384, 16384 x 8 codes
    two_layers = width**2 + 2 * width
    head = width**2 + width + 16384 * width + 16384
    return (1024 * width + two_layers) + (8 * width + two_layers) + head + 16384 * 8


def codec_count():
    # VQ-16, widths 128 128 256 256 512 with 2 blocks a level down and 3 up, attention at 512 only
    def res(i, o):  # two norms, two 3 x 3 convolutions, a 1 x 1 one where the width changes
        return 9 * i * o + 9 * o * o + 4 * o + 2 * i + (i * o + o if i != o else 0)

    def attn(c):
        return 4 * c * c + 6 * c

    def conv(i, o):
        return 9 * i * o + o

    mid = 2 * res(512, 512) + attn(512)
    down = 4 * res(128, 128) + res(128, 256) + 3 * res(256, 256) + res(256, 512) + res(512, 512)
    encoder = conv(3, 128) + down + 2 * attn(512) + 2 * conv(128, 128) + 2 * conv(256, 256)
    encoder += mid + 2 * 512 + conv(512, 256)
    up = 3 * res(512, 512) + res(512, 256) + 5 * res(256, 256) + res(256, 128) + 5 * res(128, 128)
    decoder = conv(256, 512) + mid + up + 3 * attn(512) + conv(512, 512) + 2 * conv(256, 256)
    decoder += conv(128, 128) + 2 * 128 + conv(128, 3)
    return encoder + decoder + (256 * 8 + 8) + (8 * 256 + 256) + 16384 * 8


SIZES = {"1b": (2048, 5632, 24, 16), "7b": (4096, 11008, 30, 32)}


@pytest.fixture(scope="module", params=SIZES, ids=str)
def size(request):
    return SIZES[request.param]


def test_a_full_model_has_the_published_parameter_count(size):
    model = build_empty(lambda: JanusForConditionalGeneration(janus_config(published(*size))))
    vision, codec = vision_count(), codec_count()
    whole = vision + codec + adapters_count(size[0]) + language_count(*size[:3])
    parts = {model.model.vision_model: vision, model.model.vqmodel: codec, model: whole}
    for module, expected in parts.items():
        assert sum(p.numel() for p in module.parameters()) == expected


def test_a_full_model_takes_exactly_the_official_names(size):
    settings = published(*size)
    model = build_empty(lambda: JanusForConditionalGeneration(janus_config(settings)))
    names = official_shapes(settings, PUBLISHED)
    targets = [target for name in names for target in official.KEY_MAP.find(name)[1]]
    assert sorted(targets) == sorted(model.state_dict())


def test_the_1b_file_has_its_published_size():
    # model.safetensors of Janus-1.3B is listed with 4.18 GB; bfloat16, the pooling head included
    shapes = official_shapes(published(*SIZES["1b"]), PUBLISHED)
    count = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert round(2 * count / 1e9, 2) == 4.18
