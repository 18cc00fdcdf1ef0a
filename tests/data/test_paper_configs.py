"""Each config of a published data set reads a fixture in that set's layout, from batch to state."""

import importlib.util
import inspect
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from tests.data.adapter_cases import picture
from tests.data.paper_cases import (
    write_activitynet,
    write_genhowto,
    write_journeydb,
    write_openstory,
)
from unified_rl.core.sample import Image, Task
from unified_rl.runtime.cli import register_resolvers

CONF = Path(__file__).parents[2] / "conf"


def write_emova(folder):
    """As EMOVA's script leaves a subset: annotations apart, paths that begin with its name."""
    records = []
    for number in range(3):
        picture(folder / f"ai2d/{number}.png", number)
        talk = [("human", f"<image>\nwhat is {number}?"), ("gpt", "noise"), ("human", "why?")]
        turns = [{"from": who, "value": said} for who, said in (*talk, ("gpt", "no idea"))]
        records.append({"id": number, "image": f"ai2d/{number}.png", "conversations": turns})
    (folder / "annotations").mkdir()
    (folder / "annotations/ai2d.json").write_text(json.dumps(records))


CONFIGS = {
    "activitynet": (
        write_activitynet,
        {"path": "train.json", "videos": "videos"},
        Task.INTERLEAVED,
    ),
    "genhowto": (
        write_genhowto,
        {"path": "states.heldout.txt", "partner": "actions.heldout.txt", "images": "frames"},
        Task.INTERLEAVED,
    ),
    "openstory": (
        write_openstory,
        {"path": "story", "frames": "frames", "frame_name": None},
        Task.INTERLEAVED,
    ),
    "journeydb": (write_journeydb, {"path": "anno.jsonl", "images": "imgs"}, Task.TEXT_TO_IMAGE),
    "emova": (
        write_emova,
        {"path": "annotations/ai2d.json", "image_root": "."},
        Task.UNDERSTANDING,
    ),
}


@pytest.fixture
def composed():
    """Composes a data config with settings on the command line."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda name, *settings: compose("train", [f"data={name}", *settings]).data


@pytest.mark.parametrize("name", CONFIGS)
def test_config_reads_its_layout(composed, tmp_path, name):
    if name == "activitynet" and importlib.util.find_spec("av") is None:
        pytest.skip("the extra 'video' is not installed")
    write, places, task = CONFIGS[name]
    write(tmp_path)
    settings = [
        f"data.sources.{name}.{setting}={tmp_path / place}"
        for setting, place in places.items()
        if place is not None
    ]
    if "frame_name" in places:  # the fixture's frames are PNG
        settings.append(f"data.sources.{name}.frame_name='{{video}}/{{frame}}.png'")
    data = instantiate(composed(name, *settings), _convert_="all")
    batch = next(iter(data.train_dataloader()))
    assert len(batch) == 16 and {sample.task for sample in batch} == {task}
    shapes = {
        segment.pixels.shape
        for sample in batch
        for segment in (*sample.prompt, *sample.target)
        if isinstance(segment, Image)
    }
    assert shapes == {(24, 24, 3)}


PICTURES = {"activitynet": "videos", "genhowto": None, "openstory": "frames", "journeydb": "images"}


@pytest.mark.parametrize(("name", "pictures"), PICTURES.items())
def test_prompts_can_be_read_without_their_targets(composed, tmp_path, name, pictures):
    """Without PyAV and without the folders of what a target shows."""
    write, places, _ = CONFIGS[name]
    if name == "activitynet":
        captions = {"duration": 9.0, "timestamps": [[0.0, 9.0]], "sentences": ["It ends."]}
        (tmp_path / "train.json").write_text(json.dumps({"v_gone": captions}))
    else:
        write(tmp_path)
    settings = [f"data.sources.{name}.read_target=false"]
    for setting, place in places.items():
        if setting == pictures:
            settings.append(f"data.sources.{name}.{setting}=null")
        elif place is not None:
            settings.append(f"data.sources.{name}.{setting}={tmp_path / place}")
    rows = instantiate(composed(name, *settings).sources[name], _convert_="all")
    samples = [sample for _, sample in rows.in_order()]
    assert len(samples) == len(rows) and {sample.target for sample in samples} == {()}
    assert all(sample.prompt_text.strip() for sample in samples)
    assert all(len(sample.prompt) == (2 if name == "genhowto" else 1) for sample in samples)


@pytest.mark.parametrize("name", ["activitynet", "journeydb"])
def test_targets_need_a_folder(composed, tmp_path, name):
    write, places, _ = CONFIGS[name]
    (tmp_path / places["path"]).write_text("{}")
    settings = [f"data.sources.{name}.path={tmp_path / places['path']}"]
    settings.append(f"data.sources.{name}.{PICTURES[name]}=null")
    with pytest.raises(InstantiationException, match="=null, but read_target=true|PyAV"):
        instantiate(composed(name, *settings).sources[name], _convert_="all")


@pytest.mark.parametrize("name", CONFIGS)
def test_config_holds_every_setting_so_that_the_command_line_can(composed, name):
    (source,) = composed(name).sources.values()
    settings = inspect.signature(get_object(source["_target_"])).parameters
    assert set(settings) == set(source) - {"_target_"}
    for setting, parameter in settings.items():
        # what is listed is the constructor's own value, the policy's size aside
        if setting not in ("image_size", "image_root") and parameter.default is not parameter.empty:
            assert source[setting] == parameter.default, setting
