"""VILA-U from the authors' own three folders: every tensor placed, ids as published, and back."""

import copy
import json
from dataclasses import replace
from math import prod

import numpy as np
import pytest
import torch
from transformers.convert_slow_tokenizer import import_protobuf

from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.models.key_map import Ignored, build_empty
from unified_rl.models.specimens.vila_u import (
    ARCHITECTURE,
    BORDERS,
    PUBLISHED_SIGLIP,
    ROOT,
    official_shapes,
    published,
    random_states,
    write_official,
    write_tokenizer,
)
from unified_rl.models.template import Shown, Start, Words
from unified_rl.models.vila_u import official_prompt
from unified_rl.models.vila_u.model import VilaUModel
from unified_rl.models.vila_u.official import (
    FOLDERS,
    build,
    export,
    key_maps,
    official_vila_u,
    vila_u_config,
)
from unified_rl.models.vila_u.official_prompt import official_template, official_tokenizer
from unified_rl.models.weights import FolderWeights, StateWeights

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
CODEBOOK = "rqvaesiglip.quantizer.codebooks.{}.weight"
PAIRS = {  # written out by hand: official folder and name, then ours
    ("llm", "model.embed_tokens.weight"): "language_model.model.embed_tokens.weight",
    ("llm", "model.layers.1.mlp.down_proj.weight"): (
        "language_model.model.layers.1.mlp.down_proj.weight"
    ),
    ("llm", "lm_head.weight"): "language_model.lm_head.weight",
    ("mm_projector", "layers.0.bias"): "projector.0.bias",
    ("mm_projector", "layers.2.weight"): "projector.2.weight",
    ("vision_tower", CODEBOOK.format(0)): "codec.quantizer.codebooks.0.weight",
    ("vision_tower", "rqvaesiglip.post_quant_conv.weight"): "codec.post_quant_conv.weight",
    ("vision_tower", "rqvaesiglip.decoder.up.3.attn.1.proj_out.bias"): (
        "codec.decoder.up.3.attn.1.proj_out.bias"
    ),
    (
        "vision_tower",
        "rqvaesiglip.siglip_model.vision_model.embeddings.position_embedding.weight",
    ): "codec.encoder.embeddings.position_embedding.weight",
    (
        "vision_tower",
        "rqvaesiglip.siglip_model.vision_model.encoder.layers.1.self_attn.out_proj.weight",
    ): "codec.encoder.encoder.layers.1.self_attn.out_proj.weight",
    ("vision_tower", "rqtransformer.pos_emb_d"): "depth_transformer.pos_emb_d",
    ("vision_tower", "rqtransformer.head_transformer.blocks.1.mlp.2.weight"): (
        "depth_transformer.head_transformer.blocks.1.mlp.2.weight"
    ),
}


def load(folder, **settings):
    return official_vila_u(str(folder), **{"architecture": ARCHITECTURE, **settings})


def changed(*path, **values):
    """The tiny settings with some values replaced at a path."""
    root = copy.deepcopy(ROOT)
    node = root
    for key in path:
        node = node[key]
    node.update(values)
    return root


@pytest.fixture(scope="module")
def states():
    return random_states()


@pytest.fixture(scope="module")
def folder(states, tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("official"), states)


@pytest.fixture(scope="module")
def policy(folder):
    return load(folder)


# -- values ----------------------------------------------------------------------------------------


def test_tensors_are_where_the_hand_puts_them(states, policy):
    found = policy.vila_u.state_dict()
    for (part, name), ours in PAIRS.items():
        assert torch.equal(found[ours], states[part][name].float()), name


def test_a_state_dict_in_memory_loads_alike(states, policy):
    config = vila_u_config(*(ROOT[f"{name}_cfg"] for name in FOLDERS), ARCHITECTURE)
    weights = {name: StateWeights(state) for name, state in states.items()}
    found, expected = (
        model.state_dict() for model in (build(config, weights, torch.float32), policy.vila_u)
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("shared", [True, False])
def test_rules_and_reasons_cover_every_official_name(shared):
    root = changed("vision_tower_cfg", "rqvaesiglip", shared_codebook=shared)
    config = vila_u_config(*(root[f"{name}_cfg"] for name in FOLDERS), ARCHITECTURE)
    targets, ignored = [], []
    for part, shapes in official_shapes(root).items():
        for name in shapes:
            entry, ours = key_maps(config)[part].find(name)
            targets += ours
            if isinstance(entry, Ignored):
                assert entry.reason
                ignored.append(name)
    model = build_empty(lambda: VilaUModel(config))
    assert set(targets) == set(model.state_dict())
    assert len(targets) - len(set(targets)) == (3 if shared else 0)  # of four depths
    # scale and bias twice; 2 + 16 + 2 + 2 of the text tower; 11 of the pooling head; the last
    # layer's 16 and its norm's 2; two averages at each of four depths
    assert len(ignored) == 4 + (2 + 16 + 2 + 2) + 11 + 18 + 8


def test_every_depth_has_a_codebook_of_its_own_where_none_is_shared(tmp_path):
    root = changed("vision_tower_cfg", "rqvaesiglip", shared_codebook=False)
    states = random_states(root)
    books = load(write_official(tmp_path, states, root)).codec.quantizer.codebooks
    expected = [states["vision_tower"][CODEBOOK.format(depth)].float() for depth in range(4)]
    assert all(torch.equal(book.weight, e) for book, e in zip(books, expected, strict=True))
    assert not torch.equal(expected[0], expected[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_take_the_dtype_asked_for(folder, dtype):
    parameters = load(folder, dtype=dtype).vila_u.parameters()
    assert {p.dtype for p in parameters} == {getattr(torch, dtype)}


def test_sizes_come_from_the_three_configurations(policy):
    config, capabilities = policy.vila_u.config, policy.capabilities
    assert (config.text_config.vocab_size, policy.context_length) == (80, 256)
    assert config.text_config.rope_parameters["rope_theta"] == 10000
    assert (config.vision_config.layer_norm_eps, config.vision_config.hidden_act) == (
        1e-6,
        "gelu_pytorch_tanh",
    )
    assert (capabilities.image_size, capabilities.image_positions) == (32, 16)
    assert (capabilities.code_depth, capabilities.codebook_size) == (4, 40)


def test_positions_that_were_stretched_linearly_stay_so():
    stretched = changed("llm_cfg", rope_scaling={"type": "linear", "factor": 2.0})
    config = vila_u_config(*(stretched[f"{name}_cfg"] for name in FOLDERS), ARCHITECTURE)
    rotary = VilaUModel(config).language_model.model.rotary_emb
    # heads of 12: frequencies 10000^(-2i / 12), all halved
    expected = torch.tensor([10000.0 ** (-i / 6) / 2 for i in range(6)])
    torch.testing.assert_close(rotary.inv_freq, expected)


def test_a_saved_policy_reloads_bit_for_bit(policy, tmp_path):
    policy.save(tmp_path)
    again = official_vila_u(str(tmp_path))
    found, expected = again.vila_u.state_dict(), policy.vila_u.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert again.template == policy.template
    assert again.tokenizer.get_vocab() == policy.tokenizer.get_vocab()


@torch.no_grad()
def test_an_official_policy_draws(policy):
    ask = Sample("0", Task.TEXT_TO_IMAGE, (Text("a red circle"),))
    generator = torch.Generator().manual_seed(0)
    _, (drawn,) = policy.sample([ask], Behaviour(guidance_scale=3.0), generator)
    assert drawn.segments[0].pixels.shape == (32, 32, 3)  # 4 x 4 positions, enlarged eightfold


# -- tokens and prompts ----------------------------------------------------------------------------


def test_borders_are_the_last_rows_and_the_trigger_takes_that_of_videos(policy):
    names = ["<im_start>", "<im_end>", "<vis>", "<vi_end>"]
    assert policy.tokenizer.convert_tokens_to_ids(names) == [76, 77, 78, 79]
    assert (policy.begin_of_image_id, policy.end_of_image_id) == (76, 77)
    assert (policy.pad_id, policy.start_id, policy.end_of_text_id) == (0, 1, 2)
    assert policy.tokenize("a <vis> red") == [6, 78, 7]
    forbidden = (~policy.allowed_text).nonzero().flatten().tolist()
    assert forbidden == [0, 1, 76, 77, 79]


def test_borders_that_the_tokenizer_lacks_are_added(tmp_path, policy):
    write_tokenizer(tmp_path, last=(), rows=76)
    found = official_tokenizer(tmp_path, 80, BORDERS, official_template())
    assert found.get_vocab() == policy.tokenizer.get_vocab()


def test_a_prompt_is_laid_out_as_the_authors_do():
    template = official_template()
    draw = template.pieces(Task.TEXT_TO_IMAGE, (Text("a red circle"),))
    # the authors' " <im_start>": the space is a token, the border is the sampler's to force
    assert draw == [Start(), Words(SYSTEM + " USER: a red circle ASSISTANT: ")]
    assert template.twin_pieces() == [Start(), Words(SYSTEM + " USER:ASSISTANT: ")]
    image = Image(np.zeros((2, 2, 3), np.uint8))
    ask = template.pieces(Task.UNDERSTANDING, (image, Text("What is it?")))
    expected = [Start(), Words(SYSTEM + " USER: "), Shown(image)]
    assert ask == [*expected, Words("\nWhat is it? ASSISTANT:")]


def test_a_checkpoint_without_videos_has_no_row_for_the_trigger(tmp_path):
    root = {**ROOT, "mm_use_vi_start_end": False}
    write_official(tmp_path, root=root)
    write_tokenizer(tmp_path / "llm", BORDERS[:2])
    with pytest.raises(ConfigError, match=r"false leaves no row for .*image_trigger='<vis>'"):
        load(tmp_path)
    template = replace(official_template(BORDERS[:2]), image_trigger="word9")
    policy = load(tmp_path, template=template)
    assert (policy.begin_of_image_id, policy.end_of_image_id) == (78, 79)
    assert policy.image_trigger_id == 9


def write_pieces(path):
    """A sentencepiece model of 3 + 256 + 12 pieces, with spaces as Llama's has them."""
    model = import_protobuf().ModelProto()
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{i:02X}>", 6) for i in range(256))]
    words = ("▁a", "▁red", "ed", "re", "▁", "a", "r", "e", "d", ":", "▁r", "b")
    for rank, (piece, kind) in enumerate([*pieces, *((word, 1) for word in words)]):
        model.pieces.add(piece=piece, score=-rank, type=kind)
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
    model.normalizer_spec.name, model.normalizer_spec.add_dummy_prefix = "identity", True
    model.normalizer_spec.remove_extra_whitespaces = False
    path.write_bytes(model.SerializeToString())
    return len(model.pieces)


def test_a_sentencepiece_model_is_read_where_the_library_is(tmp_path):
    pytest.importorskip("sentencepiece")
    count = write_pieces(tmp_path / "tokenizer.model")
    tokenizer = official_tokenizer(tmp_path, count + 4, BORDERS, official_template())
    ids = tokenizer("a red: ", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["▁a", "▁red", ":", "▁"]
    assert tokenizer.convert_tokens_to_ids(["<im_start>", "<vis>"]) == [count, count + 2]
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\xff")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is truncated or no sentencepiece"):
        official_tokenizer(tmp_path, count + 4, BORDERS, official_template())


def test_a_sentencepiece_model_asks_for_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr(official_prompt, "is_sentencepiece_available", lambda: False)
    write_official(tmp_path)
    (tmp_path / "llm" / "tokenizer.json").rename(tmp_path / "llm" / "tokenizer.model")
    refused(tmp_path, "tokenizer.model cannot be read", "pip install sentencepiece", "beside it")


# -- exporting -------------------------------------------------------------------------------------


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_an_untrained_model_is_exported_bit_for_bit(policy, states, folder, tmp_path):
    export(policy.vila_u, folder, tmp_path / "out")
    assert files(tmp_path / "out") == files(folder)
    for part, state in states.items():
        weights = FolderWeights(tmp_path / "out" / part)
        assert weights.shards == FolderWeights(folder / part).shards
        for name, tensor in state.items():
            read = weights.read(name)
            assert read.dtype == tensor.dtype and torch.equal(read, tensor), name
    for name in ("config.json", "llm/config.json", "llm/tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


@torch.no_grad()
def test_a_trained_model_comes_back(folder, states, tmp_path):
    policy = load(folder)
    policy.vila_u.language_model.lm_head.weight.add_(0.5)
    policy.codec.quantizer.codebooks[0].weight.mul_(2)
    policy.export(folder, tmp_path / "out")
    head = FolderWeights(tmp_path / "out" / "llm").read("lm_head.weight")
    assert torch.equal(head, (states["llm"]["lm_head.weight"].float() + 0.5).bfloat16())
    tower, before = FolderWeights(tmp_path / "out" / "vision_tower"), states["vision_tower"]
    for depth in range(4):  # one codebook under four names
        assert torch.equal(tower.read(CODEBOOK.format(depth)), 2 * before[CODEBOOK.format(depth)])
    again = load(tmp_path / "out").vila_u.state_dict()
    assert again["codec.quantizer.codebooks.0.weight"].shape == (41, 32)


# -- bad input -------------------------------------------------------------------------------------


def refused(folder, *words, **settings):
    with pytest.raises(CheckpointError) as caught:
        load(folder, **settings)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_folder_is_named(tmp_path, name):
    write_official(tmp_path)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    refused(tmp_path, f"{tmp_path / name} is missing", "download all of them")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_broken_configuration_is_named(tmp_path, name):
    path = write_official(tmp_path) / name / "config.json"
    path.write_text(path.read_text()[:-4])
    refused(tmp_path, path, "truncated", "download it again")


def test_no_folder_at_all_is_told(tmp_path):
    refused(tmp_path / "nothing", "nothing", "is not a folder")


@pytest.mark.parametrize("model_type", ["llava_llama", "multi_modality"])
def test_another_family_is_refused(tmp_path, model_type):
    write_official(tmp_path, root={**ROOT, "model_type": model_type})
    refused(tmp_path, f"'{model_type}'", "not 'vila_u_llama'", "the model=")


def test_another_family_without_these_folders_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "multi_modality"}')
    refused(tmp_path, "'multi_modality'", "not 'vila_u'", "the model=")


def test_a_missing_shard_is_named(tmp_path):
    write_official(tmp_path)
    (tmp_path / "llm" / "model-00002-of-00003.safetensors").unlink()
    refused(tmp_path, "model-00002-of-00003.safetensors", "download it")


@pytest.mark.parametrize("name", ["vision_tower", "mm_projector"])
def test_a_truncated_file_is_named(tmp_path, name):
    path = write_official(tmp_path) / name / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(tmp_path, path, "truncated", "download it again")


def test_missing_weights_are_named(tmp_path):
    (write_official(tmp_path) / "mm_projector" / "model.safetensors").unlink()
    refused(tmp_path, tmp_path / "mm_projector", "no weights")


def test_a_missing_tokenizer_is_named(tmp_path):
    (write_official(tmp_path) / "llm" / "tokenizer.json").unlink()
    refused(tmp_path, tmp_path / "llm" / "tokenizer.model", "is missing")


def test_a_vocabulary_mismatch_names_both_numbers_and_the_file(tmp_path):
    write_official(tmp_path, root=changed("llm_cfg", vocab_size=81), states=random_states())
    write_tokenizer(tmp_path / "llm", rows=81)
    refused(tmp_path, "vocabulary mismatch", ".safetensors", "80 rows", "vocab_size=81")


def test_the_tokenizer_of_another_model_is_refused(tmp_path):
    write_tokenizer(write_official(tmp_path) / "llm", rows=79)
    refused(tmp_path, tmp_path / "llm", "has 79 tokens", "[75, 76, 77, 78]", "vocab_size=80")


def test_a_tokenizer_that_puts_spaces_everywhere_is_refused(tmp_path):
    path = write_official(tmp_path) / "llm" / "tokenizer.json"
    state = json.loads(path.read_text())
    state["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a"}]}
    path.write_text(json.dumps(state))
    refused(tmp_path, path, "legacy", "tokenizer.model")


def test_borders_in_another_order_are_refused(tmp_path):
    write_tokenizer(write_official(tmp_path) / "llm", BORDERS[::-1])
    refused(tmp_path, "vocabulary mismatch", "[79, 78, 77, 76]")


def test_a_checkpoint_without_borders_is_refused(tmp_path):
    write_official(tmp_path, root={**ROOT, "mm_use_im_start_end": False})
    refused(tmp_path, "mm_use_im_start_end must be true")


def test_a_tied_head_is_refused(tmp_path, states):
    llm = {name: tensor for name, tensor in states["llm"].items() if name != "lm_head.weight"}
    root = changed("llm_cfg", tie_word_embeddings=True)
    write_official(tmp_path, {**states, "llm": llm}, root)
    refused(tmp_path, "lm_head.weight is missing", "tied", "tie_word_embeddings=false")


def test_depths_that_share_a_codebook_in_name_only_are_refused(tmp_path, states):
    tower = {**states["vision_tower"]}
    tower[CODEBOOK.format(2)] = tower[CODEBOOK.format(2)] + 1
    write_official(tmp_path, {**states, "vision_tower": tower})
    refused(tmp_path, CODEBOOK.format(2), "should repeat", "but differs")


def test_parts_that_count_codes_differently_are_refused(tmp_path):
    write_official(tmp_path, root=changed("vision_tower_cfg", "rqvaesiglip", n_embed=41))
    refused(tmp_path, "vocabulary mismatch", "n_embed=41", "vocab_size=40")


def test_an_unknown_encoder_asks_for_its_sizes(folder):
    known = "only siglip-large-patch16-256 is known"
    refused(folder, "'tiny siglip'", known, "model.architecture.vision", architecture=None)


def test_an_encoder_of_another_grid_is_refused(folder):
    vision = {**ARCHITECTURE["vision"], "image_size": 40}
    refused(folder, "code_shape=[4, 4, 4]", "5 x 5", architecture={"vision": vision})


def test_another_projector_is_refused(tmp_path):
    write_official(tmp_path, root=changed("mm_projector_cfg", mm_projector_type="linear"))
    refused(tmp_path, "mm_projector_type='linear'", "'mlp2x_gelu'")


def test_the_configuration_of_another_tower_is_refused(tmp_path, states):
    write_official(tmp_path, states, {**ROOT, "vision_tower_cfg": {"hidden_size": 32}})
    refused(tmp_path, "vision_tower/config.json", "KeyError", "rqvaesiglip")


def test_swapped_folders_are_told(tmp_path, states):
    swapped = {"llm": "llm", "vision_tower": "mm_projector", "mm_projector": "vision_tower"}
    write_official(tmp_path, {part: states[source] for part, source in swapped.items()})
    refused(tmp_path, "unknown (", "missing (")


def test_layers_that_the_config_lacks_are_named(tmp_path, states):
    root = changed("llm_cfg", num_hidden_layers=1)
    refused(write_official(tmp_path, states, root), "model.layers.1.", "unknown")


# -- published sizes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full():
    root = published()
    return build_empty(lambda: VilaUModel(vila_u_config(*(root[f"{n}_cfg"] for n in FOLDERS))))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_a_full_language_model_has_the_published_parameter_count(full):
    # Llama-2-7B, and a row of embeddings and of the head for each of four tokens
    assert count(full.language_model) == 6_738_415_616 + 4 * 2 * 4096


def test_a_full_depth_transformer_has_its_parameter_count(full):
    w = 2560
    # query, key, value, out; two norms; up to four times the width and down
    block = 4 * (w * w + w) + 2 * 2 * w + (4 * w * w + 4 * w) + (4 * w * w + w)
    inputs = (1024 * w + w) + (4096 * w + w) + 4 * w  # of code vectors, of states, of depths
    assert count(full.depth_transformer) == inputs + 6 * block + 2 * w + 16384 * (w + 1)


def test_a_full_projector_and_encoder_have_their_parameter_counts(full):
    assert count(full.projector) == (1024 + 1) * 4096 + (4096 + 1) * 4096
    w, inner = 1024, 4096
    layer = 4 * (w * w + w) + 2 * w * inner + inner + w + 2 * 2 * w
    # patches of 16 x 16 px, 256 positions, 23 of 24 layers
    assert count(full.codec.encoder) == 3 * 16 * 16 * w + w + 256 * w + 23 * layer
    assert count(full.codec.quantizer) == 16385 * 1024


def test_a_full_model_takes_exactly_the_official_names(full):
    found, maps, targets = full.state_dict(), key_maps(full.config), set()
    for part, shapes in official_shapes(published(), PUBLISHED_SIGLIP).items():
        for name, shape in shapes.items():
            entry, ours = maps[part].find(name)
            assert entry is not None, name
            assert all(tuple(found[target].shape) == shape for target in ours), name
            targets.update(ours)
    assert targets == set(found)


def test_the_folders_have_their_published_sizes():
    # two bytes a number: three shards of 4.94, 4.95 and 3.59 GB, a tower of 2.71 GB, 42 MB
    shapes = official_shapes(published(), PUBLISHED_SIGLIP)
    sizes = {part: 2 * sum(map(prod, named.values())) for part, named in shapes.items()}
    assert round(sizes["llm"] / 1e9, 2) == 13.48
    assert round(sizes["vision_tower"] / 1e9, 2) == 2.71
    assert round(sizes["mm_projector"] / 1e6) == 42


def test_published_folders_need_no_architecture():
    root = published()
    config = vila_u_config(*(root[f"{name}_cfg"] for name in FOLDERS))
    assert config.vision_config.num_hidden_layers == 24
    assert config.depth_config == {"width": 2560, "layer_count": 6, "head_count": 40}
    assert config.codec_config["attention_resolutions"] == (16,)
