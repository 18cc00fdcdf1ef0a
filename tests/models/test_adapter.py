"""What trains, how it is saved, and that a saved adapter is the policy that was trained."""

import copy
import functools
import json
import shutil
import sys
import types

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import JanusForConditionalGeneration

from tests.toys import FAMILIES, TEMPLATE, build
from tests.toys.samples import mixed
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.models import recomputation
from unified_rl.models.adapter import GROUPS, Adapter, adapt, frozen_base, lora_config_of, root_of
from unified_rl.models.adapter_folder import BASE, CONFIG, TENSORS, adapted, merged, save
from unified_rl.models.janus.load import janus
from unified_rl.models.janus.policy import JanusPolicy
from unified_rl.models.quantisation import quantise

SHORT = Behaviour(max_text_tokens=5, max_image_count=1, guidance_scale=2.0)
LORA = Adapter("lora", rank=4, alpha=8)
ONLY_LORA = Adapter("lora", ["language_model"], rank=4, alpha=8)


def model(folder):
    """What Hydra makes of `${model}`: a factory that takes a checkpoint."""
    return functools.partial(janus, checkpoint=str(folder), template=TEMPLATE)


def trained(policy):
    """The policy with every weight that trains moved, so that it matters."""
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += (0.1 * noise).to(parameter.dtype)
    return policy.eval()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of a random Janus of two layers."""
    folder = tmp_path_factory.mktemp("base")
    build("janus").save(folder)
    return folder


@pytest.fixture(scope="module")
def trajectory():
    """A trajectory of all tasks, with guidance."""
    return build("janus").sample(mixed(), SHORT, torch.Generator().manual_seed(0))[0]


@pytest.fixture(scope="module")
def scores(trajectory):
    """Log-probs of the trajectory under a policy in evaluation mode."""

    def score(policy):
        with torch.no_grad():
            return policy.eval().logprobs(trajectory)

    return score


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    """A trained LoRA policy and the folder that it was saved in; nobody writes there."""
    folder = tmp_path_factory.mktemp("adapter")
    policy = trained(adapted(model(base), LORA, str(base)))
    save(policy, folder)
    return policy, folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of that folder, to be broken."""
    return shutil.copytree(saved[1], tmp_path / "adapter")


# -- groups ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_one_group(family):
    policy = build(family)
    groups = policy.parameter_groups().values()
    found = [p for group in groups for module in group for p in module.parameters()]
    assert len(found) == len(set(found)) == len(list(policy.parameters()))


@pytest.mark.parametrize("name", GROUPS)
def test_only_the_named_group_trains(name):
    policy = adapt(build("janus"), Adapter(trainable=[name]))
    expected = {p for module in policy.parameter_groups()[name] for p in module.parameters()}
    assert {p for p in policy.parameters() if p.requires_grad} == expected and expected


def test_all_but_the_image_parts_train_by_default():
    policy = adapt(build("janus"), Adapter())
    groups = policy.parameter_groups()
    frozen = [p for name in ("vision", "codec") for m in groups[name] for p in m.parameters()]
    assert {p for p in policy.parameters() if not p.requires_grad} == set(frozen)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_replaces_the_language_model_and_nothing_else(family):
    policy = adapt(build(family), Adapter("lora", rank=4))
    moving = {n for n, p in policy.named_parameters() if p.requires_grad}
    inside = {n for n in moving if ".layers." in n and "language_model" in n}
    assert inside == {n for n, _ in policy.named_parameters() if "lora_" in n}
    groups = policy.parameter_groups()
    others = [m for n in ("aligners", "heads", "embeddings") for m in groups.get(n, ())]
    assert len(moving - inside) == len([p for m in others for p in m.parameters()])


def test_all_linear_layers_of_the_language_model_get_a_product():
    # a layer of width 32 and inner width 64 at rank 4: q, k, v and o take 4 x 4 x (32 + 32) = 1024,
    # gate, up and down 3 x 4 x (32 + 64) = 1152; two layers 2 x 2176 = 4352
    policy = adapt(build("janus"), ONLY_LORA)
    assert sum(p.numel() for p in policy.parameters() if p.requires_grad) == 4352


def test_named_targets_are_those_of_the_language_model_alone():
    assert any("vision_model" in n and n.endswith("q_proj") for n in module_names(build("janus")))
    policy = adapt(build("janus"), Adapter("lora", target_modules=["q_proj"]))
    found = [n for n in module_names(policy) if n.endswith("lora_A")]
    assert len(found) == 2 and all("language_model" in n and "q_proj" in n for n in found)


def module_names(policy):
    return [name for name, _ in policy.named_modules()]


def test_the_root_is_the_librarys_model():
    for family in ("janus", "showo", "vila_u"):
        policy = build(family)
        assert root_of(policy) is getattr(policy, family)


def test_fresh_lora_changes_nothing(scores):
    assert torch.equal(scores(adapt(build("janus"), LORA)), scores(build("janus")))


def test_lora_is_float32_on_any_base(base):
    half = functools.partial(model(base), dtype="bfloat16")
    policy = adapted(half, LORA, str(base))
    assert {p.dtype for n, p in policy.named_parameters() if "lora_" in n} == {torch.float32}
    assert policy.janus.lm_head.weight.dtype == torch.bfloat16


# -- settings that cannot work ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "lara"}, "'lara'.*did you mean 'lora'"),
        ({"trainable": ["hedas"]}, "'hedas'.*did you mean 'heads'"),
        ({"kind": "lora", "trainable": ["heads"]}, r"\[heads\] leaves out"),
        ({"rank": 0}, "rank=0"),
        ({"alpha": -1}, "alpha=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_values_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Adapter(**settings)


@pytest.mark.parametrize("targets", [["q_porj"], ["q_proj", "fc1"]])
def test_targets_that_match_nothing_are_refused(targets):
    with pytest.raises(ConfigError, match=r"'(q_porj|fc1)'.*(did you mean 'q_proj'|known: down)"):
        adapt(build("janus"), Adapter("lora", target_modules=targets))


def test_no_targets_are_refused():
    with pytest.raises(ConfigError, match="empty; known: down_proj"):
        adapt(build("janus"), Adapter("lora", target_modules=[]))


@pytest.mark.parametrize(("family", "names"), [("janus", []), ("showo", ["aligners"])])
def test_nothing_to_train_is_refused(family, names):
    with pytest.raises(
        ConfigError, match="leaves nothing to train; this policy has language_model"
    ):
        adapt(build(family), Adapter(trainable=names))


def test_lora_on_random_weights_is_refused():
    with pytest.raises(ConfigError, match="needs model.checkpoint"):
        adapted(lambda: build("janus"), LORA, None)


def test_a_base_without_an_adapter_is_refused(base):
    with pytest.raises(ConfigError, match="is not an adapter"):
        adapted(model(base), None, str(base), base="elsewhere")


# -- four bits -------------------------------------------------------------------------------------


def never():
    raise AssertionError("no weights are read before the machine is known to hold them")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_four_bits_need_a_gpu(base):
    with pytest.raises(ConfigError, match="qlora needs a CUDA device and here is none; use lora"):
        adapted(never, Adapter("qlora"), str(base))


def test_four_bits_need_bitsandbytes(base, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        adapted(never, Adapter("qlora"), str(base))


def test_all_linear_layers_of_the_language_model_go_to_four_bits(monkeypatch):
    """With a stand-in for bitsandbytes, which shows what would be handed to it."""
    made = []

    class Linear4bit(nn.Linear):
        def __init__(self, inputs, outputs, bias, compute_dtype, device, **settings):
            super().__init__(inputs, outputs, bias, device=device)
            made.append((compute_dtype, settings))

    class Params4bit(nn.Parameter):
        def __new__(cls, data, requires_grad, module, **settings):
            made[-1] += (settings,)
            return super().__new__(cls, data, requires_grad)

    stand_in = types.ModuleType("bitsandbytes.nn")
    stand_in.Linear4bit, stand_in.Params4bit = Linear4bit, Params4bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", stand_in)
    policy, start = build("janus"), build("janus").state_dict()
    quantise(policy.janus, policy.parameter_groups()["language_model"], "cpu")
    nf4 = {"compress_statistics": True, "quant_type": "nf4"}
    assert made == [(torch.bfloat16, nf4, nf4)] * 14  # 2 layers x (q, k, v, o, gate, up, down)
    changed = [n for n, m in policy.named_modules() if isinstance(m, Linear4bit)]
    assert len(changed) == 14 and all("language_model.layers" in name for name in changed)
    assert all(torch.equal(start[name], value) for name, value in policy.state_dict().items())
    assert policy.janus.is_loaded_in_4bit


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_four_bit_lora_trains_and_comes_back_on_cuda(base, tmp_path, trajectory):
    pytest.importorskip("bitsandbytes")
    given = trajectory.to("cuda")
    policy = adapted(model(base), Adapter("qlora", rank=4), str(base)).to("cuda")
    start = policy.eval().logprobs(given)
    plain = build("janus").to("cuda").logprobs(given)
    assert 0 < (start - plain).abs().max() < 1  # four bits show, but the policy is still itself
    policy.logprobs(given).sum().backward()
    found = [p.grad for n, p in policy.named_parameters() if "lora_B" in n]
    assert len(found) == 14 and all(gradient.any() for gradient in found)
    save(trained(policy), tmp_path)
    back = adapted(model(base), None, str(tmp_path)).to("cuda").eval()
    assert torch.equal(back.logprobs(given), policy.logprobs(given))
    copied = copy.deepcopy(policy)  # as the reference is made
    assert torch.equal(copied.logprobs(given), policy.logprobs(given))


# -- gradient checkpointing ------------------------------------------------------------------------


def gradients(policy, trajectory):
    torch.manual_seed(0)  # of dropout
    policy.logprobs(trajectory).sum().backward()
    return {n: p.grad for n, p in policy.named_parameters() if p.requires_grad}


def checkpointed(adapter):
    return Adapter(**{**vars(adapter), "gradient_checkpointing": True})


DROPPED = Adapter("lora", rank=4, dropout=0.1)


@pytest.fixture(scope="module", params=["janus", "showo"])
def drawn(request):
    """A family and a trajectory of all its tasks, with guidance; Show-o replays behind a cache."""
    policy = build(request.param)
    return request.param, policy.sample(mixed() * 3, SHORT, torch.Generator().manual_seed(0))[0]


@pytest.fixture
def deterministic():
    """As conf/trainer/cpu.yaml has it: gradients of gathered rows are summed in one order."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("adapter", [Adapter(), ONLY_LORA, DROPPED], ids=["full", "lora", "drop"])
def test_checkpointing_changes_no_gradient(adapter, training, drawn):
    family, trajectory = drawn
    plain, saving = (
        gradients(trained(adapt(seeded(family), each)).train(training), trajectory)
        for each in (adapter, checkpointed(adapter))
    )
    assert plain.keys() == saving.keys()
    assert any(gradient.abs().max() > 1e-2 for gradient in plain.values())
    assert all(torch.equal(plain[name], saving[name]) for name in plain)


def seeded(family):
    policy = build(family)
    torch.manual_seed(0)  # of LoRA's first matrices
    return policy


@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_keeps_fewer_activations(training, drawn):
    family, trajectory = drawn

    def kept(policy):
        sizes = []

        def keep(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            policy.train(training).logprobs(trajectory)
        return sum(sizes)

    plain, saving = (adapt(build(family), a) for a in (Adapter(), checkpointed(Adapter())))
    assert kept(saving) < 0.7 * kept(plain)


@pytest.mark.parametrize("training", [False, True])
def test_sampling_is_never_checkpointed(training, trajectory, monkeypatch):
    monkeypatch.setattr(recomputation, "checkpoint", never)
    policy = adapt(build("janus"), checkpointed(Adapter())).train(training)
    found, _ = policy.sample(mixed(), SHORT, torch.Generator().manual_seed(0))
    assert torch.equal(found.logprobs, trajectory.logprobs)


def test_checkpointing_of_a_copy_is_its_own(trajectory):
    policy = adapt(build("janus"), checkpointed(Adapter()))
    copied = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    assert torch.equal(copied.logprobs(trajectory), build("janus").logprobs(trajectory))


def test_layers_that_cannot_be_run_again_are_refused():
    with pytest.raises(ConfigError, match="gradient_checkpointing=true"):
        recomputation.recompute_layers([nn.Linear(2, 2)])


# -- folders ---------------------------------------------------------------------------------------


def test_a_folder_is_pefts(saved, base):
    policy, folder = saved
    assert {path.name for path in folder.iterdir()} == {CONFIG, TENSORS, BASE}
    config = json.loads((folder / CONFIG).read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    assert config["base_model_name_or_path"] == str(base)
    tensors = load_file(folder / TENSORS)
    # 14 products of two; 2 layers in each aligner and in the image head, of two tensors each, the
    # text head and two embeddings
    assert len(tensors) == 28 + 2 * 4 + 4 + 1 + 2
    assert all(name.startswith("base_model.model.") for name in tensors)


@pytest.mark.parametrize("adapter", [None, LORA], ids=["evaluated", "trained on"])
def test_a_saved_adapter_comes_back_bit_by_bit(saved, base, adapter, scores):
    policy = adapted(model(saved[1]), adapter, str(saved[1]))
    assert torch.equal(scores(policy), scores(saved[0]))
    assert (scores(policy) - scores(build("janus"))).abs().max() > 0.1


def test_an_adapter_for_evaluation_does_not_train(saved):
    policy = adapted(model(saved[1]), None, str(saved[1]))
    assert not any(parameter.requires_grad for parameter in policy.parameters())


def test_an_adapter_that_goes_on_trains_the_same_tensors(saved):
    policy = adapted(model(saved[1]), LORA, str(saved[1]))
    names = [
        {n for n, p in each.named_parameters() if p.requires_grad} for each in (policy, saved[0])
    ]
    assert names[0] == names[1]


def test_a_bfloat16_base_comes_back_bit_by_bit(base, tmp_path, scores):
    half = functools.partial(model(base), dtype="bfloat16")
    policy = trained(adapted(half, LORA, str(base)))
    save(policy, tmp_path)
    back = adapted(functools.partial(model(tmp_path), dtype="bfloat16"), None, str(tmp_path))
    assert torch.equal(scores(back), scores(policy))


def test_peft_alone_loads_it(saved, base, scores):
    policy, folder = saved
    plain = JanusForConditionalGeneration.from_pretrained(base, attn_implementation="sdpa")
    wrapped = peft.PeftModel.from_pretrained(plain, folder).base_model.model
    theirs = JanusPolicy(wrapped, policy.tokenizer, policy.template)
    assert torch.equal(scores(theirs), scores(policy))


def test_what_trained_before_stays_with_the_adapter(saved, tmp_path, scores):
    policy, folder = saved
    going_on = adapted(model(folder), ONLY_LORA, str(folder))  # heads and the like are frozen now
    save(going_on, tmp_path)
    assert torch.equal(scores(adapted(model(tmp_path), None, str(tmp_path))), scores(policy))


def test_merging_changes_no_number(saved, tmp_path, scores):
    policy, folder = saved
    one = merged(model(folder), str(folder))
    assert (scores(one) - scores(policy)).abs().max() < 1e-5
    one.save(tmp_path)
    assert torch.equal(scores(model(tmp_path)()), scores(one))
    assert one.state_dict().keys() == build("janus").state_dict().keys()


def test_full_training_goes_on_from_a_merged_adapter(saved, scores):
    policy, folder = saved
    full = adapted(model(folder), Adapter(), str(folder))
    assert lora_config_of(full) is None and frozen_base(full) == set()
    assert (scores(full) - scores(policy)).abs().max() < 1e-5


def test_a_full_policy_is_saved_whole(base, tmp_path):
    save(adapted(model(base), Adapter(), str(base)), tmp_path)
    assert (tmp_path / "model.safetensors").is_file() and not (tmp_path / CONFIG).exists()


def test_an_adapter_without_a_base_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="is in no folder"):
        save(adapt(build("janus"), LORA), tmp_path)


def test_a_base_that_moved_is_named(saved, base, tmp_path, scores):
    policy, folder = saved
    moved = shutil.copytree(base, tmp_path / "moved")
    found = adapted(model(folder), None, str(folder), base=str(moved))
    assert found.adapted_from.checkpoint == str(moved)
    assert torch.equal(scores(found), scores(policy))


# -- folders that are broken -----------------------------------------------------------------------


def refused(folder, message, error=CheckpointError, adapter=None, base=None):
    with pytest.raises(error, match=message) as raised:
        adapted(model(folder), adapter, str(folder), base)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [TENSORS, BASE])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    refused(folder, f"not a readable adapter.*{name}")


@pytest.mark.parametrize("name", [CONFIG, TENSORS, BASE])
def test_a_broken_file_is_refused(folder, name):
    (folder / name).write_text("{")
    refused(folder, "not a readable adapter")


def test_a_missing_base_is_refused(folder):
    refused(folder, "base nowhere is not a folder.*policy.base", base="nowhere")


def test_another_base_is_refused(folder, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file(
        tensors | {"lm_head.weight": tensors["lm_head.weight"] + 1e-3},
        other / "model.safetensors",
        {"format": "pt"},
    )
    refused(folder, "its base had weights .{12}, but those in .*other are", base=str(other))


def test_a_missing_tensor_is_refused(folder):
    tensors = load_file(folder / TENSORS)
    save_file({n: t for n, t in tensors.items() if "lm_head" not in n}, folder / TENSORS)
    refused(
        folder,
        "does not fit its base: base_model.model.lm_head.weight is .* missing, the first of 1",
    )


def test_another_shape_is_refused(folder):
    tensors = load_file(folder / TENSORS)
    name = "base_model.model.lm_head.weight"
    save_file(tensors | {name: tensors[name][1:].clone()}, folder / TENSORS)
    refused(folder, "lm_head.weight has shape")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 8, "alpha": 8}, "adapter.rank gives 8, but the adapter in .* has 4"),
        ({"rank": 4, "alpha": 4}, "adapter.alpha gives 4, but the adapter in .* has 8"),
        ({"rank": 4, "alpha": 8, "target_modules": ["q_proj"]}, "adapter.target_modules gives"),
    ],
)
def test_another_adapter_than_the_saved_one_is_refused(folder, settings, message):
    refused(folder, f"{message}.*unified_rl.merge", ConfigError, Adapter("lora", **settings))


def test_nothing_to_merge_is_refused(base):
    with pytest.raises(CheckpointError, match="nothing to merge"):
        merged(model(base), str(base))


def test_an_adapter_is_no_model(folder):
    with pytest.raises(CheckpointError, match=r"is an adapter.*unified_rl\.merge"):
        model(folder)()
