"""The parity runner: what agrees passes, and nothing else does."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.parity.__main__ import FAMILIES, lines, main
from benchmarks.parity.checks import FAILURES, Check, Golden, exact, judge, judge_all
from tests.benchmarks import golden_janus
from tests.benchmarks.golden_folders import each_folder, needs_folders
from tests.benchmarks.golden_janus import IO


@needs_folders
@each_folder
def test_we_compute_what_the_official_code_computed(folder):
    failed = [f"{line.name}: {line.verdict}" for line in lines(folder) if line.verdict in FAILURES]
    assert not failed


# -- the runner itself -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return golden_janus.write(tmp_path_factory.mktemp("golden") / "janus")


@pytest.fixture
def folder(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "copy")


def run(monkeypatch, *folders):
    monkeypatch.setattr("sys.argv", ["parity", *map(str, folders)])
    return main()


def change(folder, change_io):
    io = load_file(folder / IO)
    change_io(io)
    save_file(io, folder / IO)


def test_what_agrees_passes(recorded, monkeypatch, capsys):
    assert run(monkeypatch, recorded) == 0
    said = capsys.readouterr().out.splitlines()
    names = load_file(recorded / IO)
    assert {line.split()[0] for line in said[:-2]} == set(names)
    assert f"{len(names)} tensors" in said[-2]


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("vision.features", 5e-5),  # ten times 5e-6
        ("vq.decode_pixels", 1e-3),
        ("und.text_loss", 1e-4),
        ("t2i_gen.greedy.tokens", 1),
        ("t2i_gen.half_sampled.image_uint8", 10),
    ],
)
def test_one_element_that_is_off_fails(folder, monkeypatch, capsys, name, off):
    def spoil(io):
        flat = io[name].flatten()
        index = int(flat.abs().argmin())
        flat[index] = flat[index] + off

    change(folder, spoil)
    assert run(monkeypatch, folder) == 1
    failed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "FAIL" in line]
    assert failed[0] == name


def test_a_weight_that_is_off_fails(folder, monkeypatch):
    weights = load_file(folder / "weights.safetensors")
    weights["language_model.model.norm.weight"] += 1e-3
    save_file(weights, folder / "weights.safetensors")
    assert run(monkeypatch, folder) == 1


@pytest.mark.parametrize("name", ["gen.aligned", "und.input_ids"])  # an output, and an input
def test_a_tensor_that_is_gone_fails(folder, monkeypatch, capsys, name):
    change(folder, lambda io: io.pop(name))
    assert run(monkeypatch, folder) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "MISSING" in line]
    assert said[0].split()[0] == name


def test_a_tensor_that_nobody_knows_fails(folder, monkeypatch, capsys):
    change(folder, lambda io: io.update({"vq.something": torch.zeros(2)}))
    assert run(monkeypatch, folder) == 1
    assert "vq.something" in next(
        line for line in capsys.readouterr().out.splitlines() if "UNKNOWN" in line
    )


# -- folders that cannot be read -------------------------------------------------------------------


def refused(monkeypatch, capsys, folder):
    assert run(monkeypatch, folder) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    return said[0]


def test_a_folder_that_does_not_exist_is_named(tmp_path, monkeypatch, capsys):
    assert str(tmp_path / "nothing") in refused(monkeypatch, capsys, tmp_path / "nothing")


def test_a_truncated_file_is_named(folder, monkeypatch, capsys):
    (folder / IO).write_bytes((folder / IO).read_bytes()[:1000])
    assert str(folder) in refused(monkeypatch, capsys, folder)


def test_a_broken_config_is_named(folder, monkeypatch, capsys):
    (folder / "config.json").write_text("{")
    assert str(folder) in refused(monkeypatch, capsys, folder)


def test_a_model_without_checks_is_named(folder, monkeypatch, capsys):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "Janos"}))
    assert "did you mean 'Janus'?" in refused(monkeypatch, capsys, folder)


def test_weights_of_other_sizes_are_refused(folder, monkeypatch, capsys):
    weights = load_file(folder / "weights.safetensors")
    del weights["gen_embed.weight"]
    save_file(weights, folder / "weights.safetensors")
    assert "generation_embeddings" in refused(monkeypatch, capsys, folder)


def test_one_bad_folder_does_not_hide_another(recorded, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path / "nothing", recorded) == 2
    assert "0 tensors" not in capsys.readouterr().out


# -- comparing -------------------------------------------------------------------------------------


def verdict(check, recorded):
    return judge("x", check, Golden({}, {"x": torch.tensor(recorded)}, {})).verdict


def test_tolerance_by_hand():
    # allowed at 10: 5e-6 + 1e-5 * 10 = 1.05e-4; float32 at 10 has steps of 9.5e-7
    assert verdict(Check(torch.tensor([10.0001])), [10.0]) == "ok"
    assert verdict(Check(torch.tensor([10.00012])), [10.0]) == "FAIL"


def test_not_a_number_never_agrees():
    nan = float("nan")
    assert verdict(Check(torch.tensor([nan]), 1.0, 1.0), [nan]) == "FAIL"
    assert verdict(Check(torch.tensor([0.0]), 1.0, 1.0), [nan]) == "FAIL"
    assert verdict(exact(torch.tensor([-torch.inf])), [-torch.inf]) == "ok"


def test_shapes_must_be_the_same():
    assert verdict(exact(torch.zeros(1, 2)), [0.0, 0.0]) == "FAIL"


def test_only_what_means_something_is_compared():
    kept = torch.tensor([True, False])
    assert verdict(exact(torch.tensor([1, 2]), where=kept), [1, 9]) == "ok"
    assert verdict(exact(torch.tensor([1, 2]), where=~kept), [1, 9]) == "FAIL"


def test_a_name_that_is_checked_twice_is_a_mistake_of_ours():
    golden = Golden({}, {"x": torch.zeros(1)}, {})
    twice = [("x", exact(torch.zeros(1)))] * 2
    with pytest.raises(RuntimeError, match="x is checked twice"):
        list(judge_all(twice, golden))


@pytest.mark.parametrize("module", FAMILIES.values())
def test_every_family_has_its_checks(module):
    assert (Path(__file__).parents[2] / "benchmarks" / "parity" / f"{module}.py").is_file()
