"""Show-o that is shown images through CLIP: what it sees, who sees it, where its weights are."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from tests.toys import MICRO_SHOWO, SHOWO_TEMPLATE
from tests.toys.samples import drawings, mixed, questions
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.decoding.tape import Columns, Kind, stack
from unified_rl.microworld.words import vocabulary
from unified_rl.models.key_map import build_empty
from unified_rl.models.pictures import shown_images
from unified_rl.models.showo.load import showo
from unified_rl.models.showo.model import ShowoConfig, ShowoModel
from unified_rl.models.showo.official import export, official_showo
from unified_rl.models.showo.official_prompt import SYSTEM
from unified_rl.models.showo.vision import ClipTower
from unified_rl.models.specimens.showo import PHI, SETTINGS, language_state, load, write_folders
from unified_rl.models.specimens.tensors import linear, norm, random_state
from unified_rl.models.weights import FolderWeights

EYE = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
"""Four patches, where an image has nine codes."""
PUBLISHED_EYE = {
    "image_size": 336,
    "patch_size": 14,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}


def seeded():
    return torch.Generator().manual_seed(0)


def built():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        architecture = {**MICRO_SHOWO, "vision": EYE}
        policy = showo(None, architecture, 0.2, vocabulary(), SHOWO_TEMPLATE)
    return policy.eval()


@pytest.fixture(scope="module")
def policy():
    return built()


# -- what it sees ----------------------------------------------------------------------------------


@torch.no_grad()
def test_features_are_the_librarys_before_the_last_layer():
    torch.manual_seed(0)
    library = CLIPVisionModel(CLIPVisionConfig(**EYE)).eval()
    tower = ClipTower(CLIPVisionConfig(**EYE)).eval()
    missing = tower.load_state_dict(library.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert all(
        name.startswith(("encoder.layers.1.", "post_layernorm."))
        for name in missing.unexpected_keys
    )
    pixels = torch.rand(2, 3, 24, 24, generator=seeded()) * 2 - 1
    states = library(tower.prepare(pixels), output_hidden_states=True).hidden_states
    assert (tower(pixels) - states[-2][:, 1:]).abs().max() <= 1e-5


def test_pixels_are_normalised_as_clip_does():
    # white is 1: (1 - 0.48145466) / 0.26862954 = 1.93034, and so on for green and blue
    tower = ClipTower(CLIPVisionConfig(**EYE))
    found = tower.prepare(torch.ones(1, 3, 24, 24))
    assert found.shape == (1, 3, 16, 16)
    assert found[0, :, 7, 7].tolist() == pytest.approx([1.93034, 2.07489, 2.14590], abs=1e-5)
    black = tower.prepare(-torch.ones(1, 3, 24, 24))[0, :, 7, 7]
    assert black.tolist() == pytest.approx([-1.79226, -1.75210, -1.48022], abs=1e-5)


def test_a_shown_image_takes_as_many_columns_as_patches(policy):
    gold = policy.encode(questions(1), seeded())
    assert (gold.tape["kind"] == Kind.PIXEL).sum() == 4
    assert policy.image_features(gold.tape["shown"]).shape == (1, 4, 32)
    drawn = policy.encode(drawings(1), seeded())
    assert (drawn.tape["kind"] == Kind.CODE).sum() == 9


@torch.no_grad()
def test_seeing_does_not_go_through_the_codec():
    policy, blind = built(), built()
    for parameter in blind.codec.parameters():
        parameter.zero_()
    gold = policy.encode(questions(1), seeded())
    assert torch.equal(blind.logprobs(gold), policy.logprobs(gold))
    assert not policy.capabilities.shared_image_tokens


@torch.no_grad()
def test_another_image_is_answered_otherwise(policy):
    gold = policy.encode(questions(1), seeded())
    gold.tape["shown"] = -gold.tape["shown"]
    other = policy.logprobs(gold)
    gold.tape["shown"] = -gold.tape["shown"]
    assert (policy.logprobs(gold) - other).abs().max() > 1e-2


# -- who sees whom ---------------------------------------------------------------------------------


def test_the_image_alone_is_seen_from_before(policy):
    # task, system prompt | begin, 2 shown, end | word
    row = Columns(1).text([4, 5]).text([2]).shown_image(2).text([3]).text([6])
    tape = stack([row], torch.zeros(1, 0, 3, 1, 1))
    rows = ["x..xx..", "xx.xx..", "xxxxx..", "xxxxx..", "xxxxx..", "xxxxxx.", "xxxxxxx"]
    expected = [[letter == "x" for letter in line] for line in rows]
    assert policy.visibility(tape.kind, tape.segment, 0)[0].tolist() == expected
    assert policy.visibility(tape.kind, tape.segment, 5)[0].tolist() == expected[5:]


# -- as any policy ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_replay_equals_recording(policy, scale):
    behaviour = Behaviour(max_text_tokens=6, guidance_scale=scale, image_step_count=4)
    trajectory, _ = policy.sample(mixed(), behaviour, seeded())
    assert (policy.logprobs(trajectory) - trajectory.logprobs).abs().max() <= 1e-5


@torch.no_grad()
def test_an_answer_with_a_cache_is_the_one_without(policy):
    greedy = Behaviour(text=Sampling(0.0), max_text_tokens=6)
    ask = questions(1)[0]
    trajectory, _ = policy.sample([ask], greedy, seeded())
    prompt = policy._prompt_columns(ask)
    for token in trajectory.tape["ids"][0, trajectory.segment[0] >= 0, 0].tolist():
        tape = stack([prompt], shown_images(policy, [ask]))
        scores = policy.text_log_distribution(policy.read(tape)[:, -1], greedy)
        assert token == scores.argmax()
        prompt.text([token], 0)


def test_every_trained_tensor_gets_a_gradient():
    policy = built()
    policy.logprobs(policy.encode([*drawings(2), *questions(2)], seeded())).sum().backward()
    trained = [(name, p) for name, p in policy.named_parameters() if p.requires_grad]
    assert [name for name, p in trained if p.grad is None or not p.grad.any()] == []


def test_groups_hold_every_parameter_once(policy):
    groups = policy.parameter_groups()
    found = [id(p) for group in groups.values() for module in group for p in module.parameters()]
    assert sorted(found) == sorted(id(p) for p in policy.parameters())
    assert {"aligners", "vision"} <= groups.keys()


@torch.no_grad()
def test_a_saved_policy_scores_the_same(policy, tmp_path):
    policy.save(tmp_path)
    loaded = showo(str(tmp_path))
    gold = policy.encode(questions(2), seeded())
    assert torch.equal(loaded.logprobs(gold), policy.logprobs(gold))


# -- the authors' folders --------------------------------------------------------------------------


def projector_state():
    shapes = linear("mm_projector.0", PHI["hidden_size"], 32)
    return random_state(shapes | linear("mm_projector.2", 32, PHI["hidden_size"]), seed=2)


def eye_state():
    """CLIP as it is published: all layers, and a half that reads texts."""
    sizes = {
        "vision_model." + n: t
        for n, t in CLIPVisionModel(CLIPVisionConfig(**EYE)).state_dict().items()
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in sizes.items()}
    shapes |= norm("text_model.final_layer_norm", 8) | {"visual_projection.weight": (8, 32)}
    return random_state(shapes, seed=3) | {
        "logit_scale": torch.tensor(4.6),
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    folders = write_folders(root, {**SETTINGS, "w_clip_vit": True})
    state = language_state() | projector_state()
    torch.save(state, folders["checkpoint"] / "pytorch_model.bin")
    folders["vision"] = root / "vision"
    folders["vision"].mkdir()
    settings = {"model_type": "clip", "vision_config": EYE, "text_config": {"hidden_size": 8}}
    (folders["vision"] / "config.json").write_text(json.dumps(settings))
    save_file(eye_state(), folders["vision"] / "model.safetensors")
    return folders


def test_every_tensor_is_placed(folders):
    found = load(folders).showo.state_dict()
    for name, tensor in projector_state().items():
        assert torch.equal(found[name.replace("mm_projector", "projector")], tensor)
    eye = {name: t for name, t in found.items() if name.startswith("vision_model.")}
    kept = eye_state()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in eye.items())
    left_out = kept.keys() - eye.keys()
    assert {name.split(".")[2] for name in left_out if "encoder" in name} == {"layers"}
    assert not any(name.startswith("vision_model.encoder.layers.0") for name in left_out)


def test_a_question_is_laid_out_as_the_authors_do(folders):
    policy = load(folders)
    ask = Sample("0", Task.UNDERSTANDING, (drawings(1)[0].target[0], Text("what")))
    ids = policy.prompt_ids(ask)
    # [mmu] 14, the system prompt, [soi] 9, 4 patches, [eoi] 10, then USER: what ASSISTANT:
    words = len(SYSTEM.split())
    assert ids[0] == 14
    assert ids[1 : 1 + words] == policy.tokenize(SYSTEM)
    assert ids[1 + words :] == [9, 0, 0, 0, 0, 10, *policy.tokenize("USER: what ASSISTANT:")]


def test_an_untrained_model_is_exported_bit_for_bit(folders, tmp_path):
    export(load(folders).showo, folders["checkpoint"], tmp_path / "out")
    weights = FolderWeights(tmp_path / "out")
    expected = language_state() | projector_state()
    assert set(weights.names()) == set(expected)
    assert all(torch.equal(weights.read(name), tensor) for name, tensor in expected.items())


@torch.no_grad()
def test_a_trained_eye_comes_back_in_its_own_folder(folders, tmp_path):
    policy = load(folders)
    changed = policy.showo.vision_model.pre_layrnorm.bias
    changed.add_(0.5)
    left_out = export(policy.showo, folders["vision"], tmp_path / "out")
    assert left_out == ("language_model", "codec")
    before, after = FolderWeights(folders["vision"]), FolderWeights(tmp_path / "out")
    differing = [n for n in before.names() if not torch.equal(before.read(n), after.read(n))]
    assert differing == ["vision_model.pre_layrnorm.bias"]
    assert torch.equal(after.read(differing[0]), changed.to(before.read(differing[0]).dtype))


@torch.no_grad()
def test_a_trained_projector_comes_back(folders, tmp_path):
    policy = load(folders)
    policy.showo.projector[2].bias.add_(0.5)
    export(policy.showo, folders["checkpoint"], tmp_path / "out")
    found = FolderWeights(tmp_path / "out").read("mm_projector.2.bias")
    assert torch.equal(found, projector_state()["mm_projector.2.bias"] + 0.5)


def test_a_saved_policy_is_read_without_the_other_folders(folders, tmp_path):
    policy = load(folders)
    policy.save(tmp_path)
    again = official_showo(str(tmp_path))
    expected = policy.showo.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in again.showo.state_dict().items())
    assert again.template == policy.template


def test_an_eye_is_asked_for(folders):
    without = {name: path for name, path in folders.items() if name != "vision"}
    with pytest.raises(ConfigError, match=r"w_clip_vit=true, so model\.vision must be a folder"):
        load(without)


def test_the_folder_of_another_model_is_refused(folders):
    with pytest.raises(CheckpointError, match="must be that of CLIP.*'phi'"):
        load({**folders, "vision": folders["tokenizer"]})


def test_a_checkpoint_without_its_projector_is_refused(folders, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    torch.save(language_state(), checkpoint / "pytorch_model.bin")
    (checkpoint / "config.json").write_text(json.dumps({**SETTINGS, "w_clip_vit": True}))
    with pytest.raises(CheckpointError, match=r"4 missing \(projector"):
        load({**folders, "checkpoint": checkpoint})


def test_published_sizes():
    config = ShowoConfig(
        text_config={"hidden_size": 2048, "num_hidden_layers": 1}, vision_config=PUBLISHED_EYE
    )
    model = build_empty(lambda: ShowoModel(config))
    shapes = {name: tuple(p.shape) for name, p in model.projector.named_parameters()}
    assert shapes == {
        "0.weight": (2048, 1024),
        "0.bias": (2048,),
        "2.weight": (2048, 2048),
        "2.bias": (2048,),
    }
    assert len(model.vision_model.encoder.layers) == 23
    # 24 x 24 patches and the class token
    assert model.vision_model.embeddings.position_embedding.weight.shape == (577, 1024)
