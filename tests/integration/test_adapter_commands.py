"""LoRA from the command line: trained, gone on with, evaluated, merged, evaluated again."""

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from unified_rl import evaluate, merge, train
from unified_rl.core.errors import CheckpointError
from unified_rl.models.checkpoint import write_folder
from unified_rl.runtime.cli import register_resolvers

CONF = Path(__file__).parents[2] / "conf"
SMALL = [
    *("iterations=2", "data.batch_size=2", "sample_every=0", "logger.mode=disabled", "threads=1"),
    *("adapter=lora", "adapter.rank=2", "adapter.target_modules=[q_proj,v_proj]"),
    "adapter.trainable=[language_model,heads]",
]
FEW = [
    *("suite.story_count=2", "suite.drawings_per_category=1", "suite.questions_per_category=1"),
    *("device=cpu", "threads=1"),
]


@pytest.fixture(scope="module", autouse=True)
def conf():
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The demo's own architecture, of random weights."""
    folder = tmp_path_factory.mktemp("base") / "model"
    torch.manual_seed(0)
    config = compose("train", ["model.checkpoint=null"])
    write_folder(folder, instantiate(config.model, _convert_="all")().save)
    return folder


def trained(start, output, *overrides):
    where = [f"model.checkpoint={start}", f"paths.output={output}"]
    return train.train_from(compose("train", [*SMALL, *where, *overrides]))


@pytest.fixture(scope="module")
def warm(base, tmp_path_factory):
    return trained(base, tmp_path_factory.mktemp("warm"))


def scores(checkpoint, output):
    where = [f"model.checkpoint={checkpoint}", f"paths.output={output}"]
    found = evaluate.evaluate_from(compose("evaluate", [*FEW, *where])).to_json()["metrics"]
    return {name: score["value"] for name, score in found.items()}


def test_training_writes_an_adapter(warm):
    names = {path.name for path in warm.iterdir()}
    files = {"adapter_config.json", "adapter_model.safetensors", "base.json", "provenance.json"}
    assert names == files
    config = json.loads((warm / "adapter_config.json").read_text())
    assert (config["r"], config["modules_to_save"]) == (2, ["lm_head", "model.generation_head"])


def test_grpo_goes_on_from_an_adapter(warm, base, tmp_path):
    stage = ["experiment=unified_grpo/micro_grpo", "stage.group_size=2", "objective.beta=0.1"]
    checkpoint = trained(warm, tmp_path, *stage)
    record = json.loads((checkpoint / "base.json").read_text())
    assert record["checkpoint"] == str(base.resolve())


def test_full_training_goes_on_from_an_adapter(warm, tmp_path):
    where = [f"model.checkpoint={warm}", f"paths.output={tmp_path}"]
    config = compose("train", [*SMALL[:5], *where, "adapter=full", "adapter.trainable=[heads]"])
    assert (train.train_from(config) / "model.safetensors").is_file()


def test_a_merged_adapter_scores_the_same(warm, tmp_path, capsys):
    output = tmp_path / "merged"
    merge.main(compose("merge", [f"checkpoint={warm}", f"output={output}"]))
    assert capsys.readouterr().out == f"checkpoint: {output}\n"
    assert scores(warm, tmp_path / "one") == scores(output, tmp_path / "other")


def test_an_adapter_is_not_merged_over_itself(warm):
    with pytest.raises(CheckpointError, match="exists already"):
        merge.main(compose("merge", [f"checkpoint={warm}", f"output={warm}"]))


def test_a_model_is_not_merged(base, tmp_path):
    with pytest.raises(CheckpointError, match="nothing to merge"):
        merge.main(compose("merge", [f"checkpoint={base}", f"output={tmp_path / 'merged'}"]))
