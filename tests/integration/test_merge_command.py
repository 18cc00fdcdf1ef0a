"""`python -m unified_rl.merge rule=...` from its command line, on folders of small policies."""

import functools
import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.toys import MICRO_JANUS, TEMPLATE, build
from unified_rl.microworld.words import vocabulary
from unified_rl.models.checkpoint import weights_hash, write_folder
from unified_rl.models.janus.load import janus
from unified_rl.models.specimens.tensors import write_shards
from unified_rl.models.weights import FolderWeights

TRAINED = "model.language_model"
"""What the models of these tests were trained in; the rest stayed frozen."""


def changed(base, folder, seed):
    """A copy of a folder, its language model changed as training would, with provenance."""
    shutil.copytree(base, folder)
    draw = torch.Generator().manual_seed(seed)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.startswith(TRAINED):
            tensor += 0.01 * torch.randn(tensor.shape, generator=draw)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    card = {"start_weights": weights_hash(base)}
    (folder / "provenance.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Base and two models that were trained from it."""
    root = tmp_path_factory.mktemp("made")
    write_folder(root / "base", build("janus").save)
    base = root / "base"
    return base, changed(base, root / "one", 1), changed(base, root / "other", 2)


@pytest.fixture
def folders(made, tmp_path):
    """Copies of base and models, to be spoilt."""
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in made]


@pytest.fixture
def start(run_command):
    """Runs the command."""
    return functools.partial(run_command, "merge")


def listed(*folders):
    return f"checkpoints=[{','.join(map(str, folders))}]"


RULES = {
    "linear": ("rule=linear", "rule.weights=[3,1]"),
    "task_arithmetic": ("rule=task_arithmetic", "rule.scales=[0.5,2]"),
    "gaussian": ("rule=gaussian", "rule.spread=0"),
}
BY_HAND = {
    "linear": lambda base, one, other: (3 * one + other) / 4,
    "task_arithmetic": lambda base, one, other: base + (one - base) / 2 + 2 * (other - base),
    "gaussian": lambda base, one, other: base + (one - base) + (other - base),  # spread 0
}


@pytest.mark.parametrize("rule", RULES)
def test_the_merged_model_is_a_standard_folder(made, start, tmp_path, rule):
    base, one, other = made
    output = tmp_path / "merged"
    code, out, err = start(*RULES[rule], listed(one, other), f"base={base}", f"output={output}")
    assert (code, out) == (0, f"checkpoint: {output}\n"), err
    assert {p.name for p in output.iterdir()} == {p.name for p in one.iterdir()}
    assert (output / "config.json").read_bytes() == (one / "config.json").read_bytes()
    tensors = [load_file(folder / "model.safetensors") for folder in made]
    found = load_file(output / "model.safetensors")
    assert list(found) == list(tensors[1])
    for name, tensor in found.items():
        inputs = [state[name] for state in tensors]
        if name.startswith(TRAINED):
            assert not torch.equal(tensor, inputs[1])
            expected = BY_HAND[rule](*(state.double() for state in inputs)).float()
            torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-6)
        else:  # frozen: the same bits
            assert tensor.dtype == inputs[0].dtype
            assert tensor.numpy().tobytes() == inputs[0].numpy().tobytes(), name
    policy = janus(str(output), MICRO_JANUS, words=vocabulary(), template=TEMPLATE)
    for name, tensor in policy.janus.state_dict().items():
        assert name not in found or torch.equal(tensor, found[name]), name


def test_provenance_says_what_was_merged_and_how(made, start, tmp_path):
    base, one, other = made
    output = tmp_path / "merged"
    assert start("rule=gaussian", listed(one, other), f"base={base}", f"output={output}")[0] == 0
    assert json.loads((output / "provenance.json").read_text()) == {
        "rule": {"_target_": "unified_rl.models.merging.gaussian", "spread": 2.0},
        "models": [
            {"checkpoint": str(folder.resolve()), "weights": weights_hash(folder)}
            for folder in (one, other)
        ],
        "base": {"checkpoint": str(base.resolve()), "weights": weights_hash(base)},
        "start_weights": weights_hash(base),
    }


def test_a_merged_model_is_merged_again(made, start, tmp_path):
    base, one, other = made
    first = tmp_path / "first"
    assert start("rule=linear", listed(one, other), f"output={first}")[0] == 0
    output = tmp_path / "second"
    code, _, err = start("rule=gaussian", listed(first, one), f"base={base}", f"output={output}")
    assert code == 0, err


def test_a_model_is_merged_with_its_base(made, start, tmp_path):
    base, one, _ = made
    # the base itself was made from random weights, as its provenance may say
    before = shutil.copytree(base, tmp_path / "before")
    (before / "provenance.json").write_text('{"start_weights": null}')
    code, _, err = start("rule=linear", listed(before, one), f"output={tmp_path / 'merged'}")
    assert code == 0, err


def test_shards_are_those_of_the_first_model(folders, start, tmp_path):
    base, one, other = folders
    whole = load_file(one / "model.safetensors")
    (one / "model.safetensors").unlink()
    write_shards(one, whole, 3)
    output = tmp_path / "merged"
    code, _, err = start(
        "rule=task_arithmetic", listed(one, other), f"base={base}", f"output={output}"
    )
    assert code == 0, err
    assert FolderWeights(output).shards == FolderWeights(one).shards
    index = "model.safetensors.index.json"
    assert (output / index).read_bytes() == (one / index).read_bytes()
    janus(str(output), MICRO_JANUS, words=vocabulary(), template=TEMPLATE)


def test_the_first_model_gives_the_dtype(folders, start, tmp_path):
    base, one, other = folders
    halved = {n: t.bfloat16() for n, t in load_file(one / "model.safetensors").items()}
    save_file(halved, one / "model.safetensors", {"format": "pt"})
    output = tmp_path / "merged"
    code, _, err = start("rule=gaussian", listed(one, other), f"base={base}", f"output={output}")
    assert code == 0, err
    found = load_file(output / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}


def test_what_describes_the_first_model_alone_is_left_behind(folders, start, tmp_path):
    _, one, other = folders
    (one / "README.md").write_text("scores of one")
    output = tmp_path / "merged"
    assert start("rule=linear", listed(one, other), f"output={output}")[0] == 0
    assert not (output / "README.md").exists()


def test_one_tensor_of_each_folder_is_in_memory(folders, start, tmp_path, monkeypatch):
    base, one, other = folders
    for folder in (one, other):  # so that no tensor is passed on as it was read
        state = load_file(folder / "model.safetensors")
        state = {n: t + 0.1 if t.is_floating_point() else t for n, t in state.items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
    read, order, alive = FolderWeights.read, [], []

    def watched(self, name, dtype=None):
        held = {n for n, reference in alive if reference() is not None}
        assert held <= {name}, f"{held} are still held when {name} is read"
        tensor = read(self, name, dtype)
        order.append((name, self.folder))
        if tensor.is_floating_point():
            alive.append((name, weakref.ref(tensor)))
        return tensor

    monkeypatch.setattr(FolderWeights, "read", watched)
    output = tmp_path / "merged"
    code, _, err = start("rule=gaussian", listed(one, other), f"base={base}", f"output={output}")
    assert code == 0, err
    names = list(load_file(output / "model.safetensors"))
    assert sorted(order) == sorted((name, folder) for name in names for folder in folders)


# -- bad input -------------------------------------------------------------------------------------


def rewritten(folder, edit):
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def rename(state):
    name = min(state)
    state[f"{name}.other"] = state.pop(name)


def other_architecture(base, one, other):
    path = other / "config.json"
    settings = json.loads(path.read_text())
    settings["text_config"]["num_attention_heads"] = 8
    path.write_text(json.dumps(settings))
    return f"error: {path} has text_config.num_attention_heads=8, but {one / 'config.json'} has 4"


def other_names(base, one, other):
    rewritten(other, rename)
    return f"error: {one} and {other} do not hold the same tensors: "


def other_shapes(base, one, other):
    name = "lm_head.weight"
    rewritten(other, lambda state: state.update({name: state[name][:-1].clone()}))
    return f"error: {other}/model.safetensors: {name} has shape ("


def base_of_other_shapes(base, one, other):
    name = "lm_head.weight"
    rewritten(base, lambda state: state.update({name: state[name][:-1].clone()}))
    return f"error: {base}/model.safetensors: {name} has shape ("


def another_base(base, one, other):
    """Fits in every shape, but is not what the models were trained from."""
    rewritten(base, lambda state: state["lm_head.weight"].add_(1))
    return f"error: {one}/provenance.json: this model was trained from weights "


def models_of_two_bases(base, one, other):
    (other / "provenance.json").write_text('{"start_weights": "0123456789ab"}')
    return f"error: {other}/provenance.json: this model was trained from weights 0123456789ab, but "


def random_start(base, one, other):
    (other / "provenance.json").write_text('{"start_weights": null}')
    return f"error: {other}/provenance.json: this model was trained from random weights"


def broken_provenance(base, one, other):
    (one / "provenance.json").write_text("{")
    return f"error: {one}/provenance.json cannot be read ("


def integers_that_differ(base, one, other):
    for folder, number in ((base, 1), (one, 1), (other, 2)):
        rewritten(folder, lambda state, n=number: state.update({"steps": torch.tensor([n])}))
        (folder / "provenance.json").unlink(missing_ok=True)
    return f"{other}/model.safetensors: steps holds no floats and differs from that in {base}"


def not_finite(base, one, other):
    rewritten(other, lambda state: state["lm_head.weight"][0].fill_(float("nan")))
    return "lm_head.weight merged is not finite; leave a model out that diverged"


def truncated(base, one, other):
    path = other / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    return f"error: {path} is truncated or not .safetensors"


def an_adapter(base, one, other):
    (other / "adapter_config.json").write_text("{}")
    return f"error: checkpoints={other} is an adapter, which needs its base; merge the two first"


def absent_model(base, one, other):
    shutil.rmtree(other)
    return f"error: checkpoints={other} is not a folder"


def absent_base(base, one, other):
    shutil.rmtree(base)
    return f"error: base={base} is not a folder"


SPOILT = (
    *(other_architecture, other_names, other_shapes, base_of_other_shapes, another_base),
    *(models_of_two_bases, random_start, broken_provenance, integers_that_differ, not_finite),
    *(truncated, an_adapter, absent_model, absent_base),
)


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_does_not_fit_is_refused_in_one_line(folders, start, tmp_path, spoil):
    base, one, other = folders
    expected = spoil(base, one, other)
    output = tmp_path / "merged"
    code, out, err = start("rule=gaussian", listed(one, other), f"base={base}", f"output={output}")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert expected in err
    assert not list(tmp_path.glob("merged*"))


def mistakes(base, one, other, root):
    """Settings, and what their line must say."""
    models, where, output = listed(one, other), f"base={base}", f"output={root / 'out'}"
    full = root / "full"
    full.mkdir()
    (full / "precious.txt").write_text("kept")
    return [
        (["rule=gaussian"], "error: output, checkpoints and base have no value; give output="),
        (["rule=gaussian", f"checkpoint={one}"], "did you mean 'checkpoints'?"),
        (["rule=gaussian", models, output], "error: base has no value; give base=... (conf/rule/"),
        (["rule=gaussian", models, "base=null", output], "error: rule=gaussian needs base="),
        (["rule=linear", f"checkpoints={one}", output], "must list folders: checkpoints='[A,B]'"),
        (["rule=linear", "checkpoints=[]", output], "must list folders"),
        (["rule=linear", listed(one), output], "merges two models or more; checkpoints has 1"),
        (["rule=linear", models, output, "rule.weights=[1]"], "must be a list of 2 finite numbers"),
        (["rule=gaussian", models, where, output, "rule.spread=-1"], "rule.spread=-1 must be"),
        (["rule=gaussian", models, where, output, "rule.spraed=1"], "did you mean 'rule.spread'?"),
        (["rule=gauss", models, where, output], "did you mean 'gaussian'?"),
        (["rule=linear", models, f"output={full}"], f"error: output={full} exists already"),
        (["rule=linear", models, f"output={one}"], "exists already; give a new folder"),
        (["rule=linear", models, f"output={one / 'merged'}"], f"lies in {one}, which is read only"),
    ]


def test_a_mistake_ends_in_one_line_and_leaves_all_folders_alone(made, start, tmp_path):
    cases = mistakes(*made, tmp_path)
    before = sorted(path for folder in made for path in Path(folder).rglob("*"))
    for settings, expected in cases:
        code, out, err = start(*settings)
        assert (code, out, err.count("\n")) == (2, "", 1), (settings, err)
        assert expected in err, settings
    assert before == sorted(path for folder in made for path in Path(folder).rglob("*"))
    assert (tmp_path / "full" / "precious.txt").read_text() == "kept"
    assert not (tmp_path / "out").exists()
