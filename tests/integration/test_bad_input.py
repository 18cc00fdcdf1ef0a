"""Bad input from the command line: one line that names the file or value and what mends it."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image as PillowImage
from safetensors.torch import load_file, save_file

from unified_rl.core.errors import UserError
from unified_rl.data.images import read_image
from unified_rl.data.jsonl import JsonlSource
from unified_rl.generate import literal
from unified_rl.models.specimens import janus as official_janus
from unified_rl.models.specimens import showo as official_showo
from unified_rl.models.specimens import vila_u as official_vila_u
from unified_rl.runtime.cli import register_resolvers
from unified_rl.runtime.explaining import explain

ROOT = Path(__file__).parents[2]
CONF, ASSETS = ROOT / "conf", ROOT / "assets"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
OPEN = [name for name in MODELS if "checkpoint: ???" in (CONF / f"model/{name}.yaml").read_text()]
MICRO = ("micro_janus", "micro_showo", "micro_vila_u")
COMMON = ["threads=1", f"paths.assets={ASSETS}"]
COMMANDS = {
    "generate": ["device=cpu", *COMMON],
    "evaluate": ["suite.story_count=1", "device=cpu", *COMMON],
    "train": ["iterations=1", "logger.mode=disabled", *COMMON],
}


@pytest.fixture
def start(run_command):
    """Runs a command with what makes it small."""

    def start(command, *arguments):
        arguments = [*map(str, arguments), *COMMANDS.get(command, [])]
        if command == "generate" and not any(a.startswith("prompts=") for a in arguments):
            arguments.append("prompt=draw a red circle")
        return run_command(command, *(literal(arguments) if command == "generate" else arguments))

    return start


def refused(found, *words, code=2):
    """The one line that a run ended in."""
    assert found[0] == code, found
    assert found[2].startswith("error: ") and found[2].count("\n") == 1, found[2]
    for word in words:
        assert str(word) in found[2], found[2]


@pytest.fixture(scope="module", autouse=True)
def resolvers():
    register_resolvers()


def line_of(model, checkpoint, *overrides):
    """What loading a checkpoint ends in; without the command around it, for speed."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        where = [f"model.checkpoint={checkpoint}", f"paths.assets={ASSETS}"]
        config = compose("evaluate", [f"model={model}", *where, *overrides])
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- which, is what is asked
        instantiate(config.policy, _convert_="all")()
    line, code = explain(caught.value)
    assert isinstance(caught.value, UserError) and code == 2
    assert line is not None and "\n" not in line
    return line


# -- another family's checkpoint -------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each family in each layout, by family."""
    root = tmp_path_factory.mktemp("families")
    showo = official_showo.write_folders(root / "showo")
    vila_u = official_vila_u.write_official(root / "vila_u")
    return {
        "janus": [ASSETS / "micro_janus", official_janus.write_official(root / "janus")],
        "showo": [ASSETS / "micro_showo", showo["checkpoint"], showo["codec"]],
        "vila_u": [ASSETS / "micro_vila_u", vila_u],
    }


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_of_another_family_is_refused_by_name(folders, model):
    target = yaml.safe_load((CONF / f"model/{model}.yaml").read_text())["_target_"]
    own = target.split(".")[2]
    foreign = [folder for family, group in folders.items() if family != own for folder in group]
    assert len(foreign) in (4, 5)
    for folder in foreign:
        line = line_of(model, folder)
        assert str(folder) in line and "or the model= that reads this one" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_another_family(start, command):
    found = start(command, "model=micro_showo", f"model.checkpoint={ASSETS / 'micro_janus'}")
    words = ("micro_janus/config.json is of model_type 'janus', not 'showo'", "the model=")
    refused(found, *words)


def test_a_pipeline_refuses_another_family(start):
    code, _, err = start(
        "pipeline", f"start={ASSETS / 'micro_showo'}", "threads=1", f"paths.assets={ASSETS}"
    )
    said, line, *rest = err.splitlines()
    assert (code, said, rest) == (2, "[1/3] base", [])
    assert line.startswith("error: ") and "is of model_type 'showo', not 'janus'" in line


def test_an_ordinary_model_is_not_merged(start):
    found = start("merge", f"checkpoint={ASSETS / 'micro_janus'}", "output=out")
    refused(found, "micro_janus holds no adapter_config.json", "nothing to merge")


# -- broken files ----------------------------------------------------------------------------------


class Malicious:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch unpickled",)


def lose_a_shard(folder, tensors):
    (folder / "model.safetensors").unlink()
    official_janus.write_shards(folder, tensors, 3)
    (folder / "model-00002-of-00003.safetensors").unlink()


def truncate(folder, tensors):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def empty(folder, tensors):
    (folder / "model.safetensors").write_bytes(b"")


def tie(folder, tensors):
    kept = {name: tensor for name, tensor in tensors.items() if "lm_head" not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def claim_more_rows(folder, tensors):
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["vocab_size"] += 7
    (folder / "config.json").write_text(json.dumps(settings))


def lose_the_tokenizer(folder, tensors):
    (folder / "tokenizer.json").unlink()


def break_the_config(folder, tensors):
    (folder / "config.json").write_text("{")


def lose_the_config(folder, tensors):
    (folder / "config.json").unlink()


def pickle_only(folder, tensors):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Malicious()}, folder / "pytorch_model.bin")


DAMAGES = {
    lose_a_shard: ("model-00002-of-00003.safetensors is missing", "download it"),
    truncate: ("model.safetensors is truncated", "download it again"),
    empty: ("model.safetensors is truncated", "download it again"),
    tie: ("lm_head.weight",),
    claim_more_rows: ("vocabulary mismatch", "rows, but config.json says text_config.vocab_size"),
    lose_the_tokenizer: ("tokenizer.json is missing", "copy it"),
    break_the_config: ("config.json",),
    lose_the_config: ("config.json",),
    pickle_only: ("holds none of model.safetensors",),
}


@pytest.mark.parametrize("model", MICRO)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_is_named_with_its_file(tmp_path, model, damage):
    folder = tmp_path / "model"
    shutil.copytree(ASSETS / model, folder)
    damage(folder, load_file(folder / "model.safetensors"))
    line = line_of(model, folder)
    for words in (str(folder), *DAMAGES[damage]):
        assert words in line, line


@pytest.mark.parametrize("model", MICRO)
def test_a_tokenizer_longer_than_the_embedding_is_refused(tmp_path, start, model):
    shutil.copytree(ASSETS / model, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    known = tokenizer["model"]["vocab"]
    size = len(known)
    known |= {f"word{index}": size + index for index in range(10)}
    path.write_text(json.dumps(tokenizer))
    found = start("evaluate", f"model={model}", "model.checkpoint=model")
    refused(found, "vocabulary mismatch", f"has {size + 10} tokens", "use the tokenizer of this")


@pytest.mark.parametrize("family", ["janus", "showo"])
def test_code_in_a_pickle_is_not_run(start, tmp_path, family):
    if family == "janus":
        folder = official_janus.write_official(tmp_path / "model", layout="bin")
        sizes = official_janus.ARCHITECTURE
        more = ["model=janus_pro_1b"]
    else:
        written = official_showo.write_folders(tmp_path)
        folder, sizes = written["checkpoint"], {"codec": official_showo.CODEC}
        sizes = json.loads(json.dumps(sizes))
        more = ["model=showo_512", *(f"model.{n}={written[n]}" for n in ("codec", "tokenizer"))]
    torch.save({"weight": Malicious()}, folder / "pytorch_model.bin")
    architecture = json.dumps(sizes).replace('"', "")
    more.append(f"+model.architecture={architecture}")
    found = start("evaluate", f"model.checkpoint={folder}", *more)
    refused(found, f"{folder}/pytorch_model.bin was refused", "safetensors if there is a choice")
    assert not (tmp_path / "unpickled").exists()


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", OPEN)
def test_a_checkpoint_that_is_not_given_is_asked_for(start, model):
    comment = (CONF / f"model/{model}.yaml").read_text().partition("checkpoint: ??? # ")[2]
    comment = comment.partition("\n")[0]
    refused(
        start("evaluate", f"model={model}"),
        "model.checkpoint has no value; give model.checkpoint=... ",
        f"(conf/model/{model}.yaml: {comment})",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_asks_for_its_checkpoint(start, command):
    words = "model.checkpoint has no value; give model.checkpoint=... (conf/model/janus_pro_1b.yaml"
    refused(start(command, "model=janus_pro_1b"), words)


@pytest.mark.parametrize("command", ["export", "merge"])
def test_folders_that_are_not_given_are_asked_for(start, command):
    refused(start(command), "have no value; give ", " checkpoint=... (conf/", " output=... (conf/")


def test_a_data_set_that_is_not_given_is_asked_for(start):
    found = start("train", "data=jsonl")
    refused(found, "data.sources.jsonl.path has no value", "(conf/data/jsonl.yaml)")


def test_the_short_name_of_the_checkpoint_counts_as_given(start):
    found = start("generate", "model=janus_pro_1b", "checkpoint=nowhere")
    refused(found, "model.checkpoint=nowhere is not a folder")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dtype_that_is_none_is_refused(start, command):
    found = start(command, "+model.dtype=int8")
    refused(found, "model.dtype='int8' must be one of float32, bfloat16, float16")


@pytest.mark.parametrize("model", MICRO)
@pytest.mark.parametrize("dtype", ["bf16", "16", "null"])
def test_every_family_refuses_what_is_no_dtype(model, dtype):
    line = line_of(model, ASSETS / model, f"+model.dtype={dtype}")
    assert line.startswith("model.dtype=") and "must be one of float32, bfloat16" in line


# -- context ---------------------------------------------------------------------------------------


def long_row(place):
    """A row of 600 words, which a context of 512 tokens cannot hold."""
    words = {"text": " ".join(["red"] * 600)}
    prompt, target = (words, {"text": "red"}) if place == "prompt" else ({"text": "say"}, words)
    return json.dumps({"id": "a7", "task": "text", "prompt": [prompt], "target": [target]})


@pytest.mark.parametrize("model", MICRO)
@pytest.mark.parametrize("place", ["prompt", "target"])
def test_training_refuses_what_is_longer_than_the_context(start, tmp_path, model, place):
    (tmp_path / "data.jsonl").write_text(long_row(place))
    settings = ["data=jsonl", "data.sources.jsonl.path=data.jsonl", "data.batch_size=2"]
    found = start("train", f"model={model}", *settings)
    # <bos> <user> .. <assistant> .. <eos>: 4 tokens about 601 words
    refused(found, "sample 'a7' takes 605 tokens with its target", "context is 512; shorten it")


@pytest.mark.parametrize("model", MICRO)
def test_evaluation_refuses_answers_longer_than_the_context(start, model):
    longest = "suite.behaviour_story.max_text_tokens=600"
    code, _, err = start("evaluate", f"model={model}", longest)
    # 4 texts of 601 and 3 images of 36 + 2
    line = err.splitlines()[-1]
    assert code == 2 and "with an answer of up to 2518 does not fit the model's context of" in line


def test_a_pipeline_asks_for_the_checkpoint_it_starts_from(start):
    found = start("pipeline", "choose.model=janus_pro_1b")
    refused(found, "choose.model=janus_pro_1b has no weights of its own; give start=FOLDER")


# -- images ----------------------------------------------------------------------------------------


def png_of(width, height):
    """A PNG file whose header claims a size that its data are far from."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + parts


def noise(height=20, width=30, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PillowImage.fromarray(pixels).convert(mode)


def animate(path):
    noise().save(path, save_all=True, append_images=[noise().transpose(0)])


def cut_short(path):
    noise().save(path)
    path.write_bytes(path.read_bytes()[:900])


BAD_IMAGES = {
    "folder": (lambda path: path.mkdir(), "is a folder or device"),
    "text.png": (lambda path: path.write_text("no image"), "is unreadable; save it as PNG"),
    "empty.png": (lambda path: path.touch(), "is unreadable; save it as PNG"),
    "animated.gif": (animate, "is unreadable; save it as PNG, JPEG or WebP"),
    "animated.png": (animate, "is an animation of 2 frames; save one of them"),
    "animated.webp": (animate, "is an animation of 2 frames; save one of them"),
    "huge.png": (lambda path: path.write_bytes(png_of(50000, 50000)), "over 64000000 pixels"),
    "large.png": (lambda path: path.write_bytes(png_of(8001, 8000)), "over 64000000 pixels"),
    "float.tiff": (lambda path: noise(mode="F").save(path), "is unreadable; save it as PNG"),
    "cut.png": (cut_short, "is truncated or damaged"),
}
ODD_IMAGES = {
    "palette.png": lambda path: noise(mode="P").save(path),
    "transparent.png": lambda path: noise(mode="RGBA").save(path),
    "grey.png": lambda path: noise(mode="LA").save(path),
    "black_and_white.png": lambda path: noise(mode="1").save(path),
    "cmyk.jpg": lambda path: noise(mode="CMYK").save(path),
    "dot.png": lambda path: noise(1, 1).save(path),
    "wide.png": lambda path: noise(1, 9000).save(path),
    "tall.png": lambda path: noise(9000, 1).save(path),
}
SIXTEEN = np.full((20, 30), 40000, np.uint16)


@pytest.mark.parametrize("name", ["folder", "text.png", "animated.png", "huge.png", "cut.png"])
def test_an_image_that_cannot_be_shown_is_named(start, tmp_path, name):
    write, reason = BAD_IMAGES[name]
    write(tmp_path / name)
    found = start("generate", f"image={name}")
    refused(found, f"image {name!r} ", reason)


def test_images_of_every_mode_and_size_are_shown(start, tmp_path):
    for name, write in ODD_IMAGES.items():
        write(tmp_path / name)
    PillowImage.fromarray(SIXTEEN).save(tmp_path / "sixteen.png")
    asked = [{"prompt": "what is this", "image": n} for n in (*ODD_IMAGES, "sixteen.png")]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    code, _, err = start("generate", "prompts=asked.jsonl", "output=out")
    assert code == 0, err
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == len(asked) == 9


def test_the_previews_in_a_cameras_jpeg_are_no_animation(tmp_path):
    path = tmp_path / "photograph.jpg"
    noise().save(path, format="MPO", save_all=True, append_images=[noise(10, 15)])
    with PillowImage.open(path) as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    assert read_image(path).size == (30, 20)


def rows_about(names):
    question = {"task": "understanding", "target": [{"text": "red"}]}
    shown = [[{"image": name}, {"text": "what is this"}] for name in names]
    return [
        json.dumps({"id": n, "prompt": p, **question}) for n, p in zip(names, shown, strict=True)
    ]


def test_a_data_set_of_bad_images_is_refused(start, tmp_path):
    names = [name for name in BAD_IMAGES if name not in ("folder", "cut.png")]
    for name in names:
        BAD_IMAGES[name][0](tmp_path / name)
    (tmp_path / "data.jsonl").write_text("\n".join(rows_about(names)))
    found = start("train", "data=jsonl", "data.sources.jsonl.path=data.jsonl")
    listed = "data.jsonl: 8 of 8 rows are broken"
    refused(found, listed, "listed in data.jsonl.quarantine.jsonl")
    lines = (tmp_path / "data.jsonl.quarantine.jsonl").read_text().splitlines()
    reasons = list(map(json.loads, lines))
    assert [row["id"] for row in reasons] == names
    assert all(BAD_IMAGES[row["id"]][1] in row["reason"] for row in reasons)


def test_bad_images_of_a_data_set_are_set_aside(tmp_path):
    for name, write in ODD_IMAGES.items():
        write(tmp_path / name)
    BAD_IMAGES["animated.png"][0](tmp_path / "animated.png")
    PillowImage.fromarray(SIXTEEN).save(tmp_path / "sixteen.png")
    names = [*ODD_IMAGES, "animated.png", "sixteen.png"]
    (tmp_path / "data.jsonl").write_text("\n".join(rows_about(names)))
    source = JsonlSource(str(tmp_path / "data.jsonl"), image_size=24)
    assert len(source) == len(ODD_IMAGES) == 8
    for index in range(8):
        assert source.sample(index).prompt[0].pixels.shape == (24, 24, 3)
    reasons = (tmp_path / "data.jsonl.quarantine.jsonl").read_text().splitlines()
    assert len(reasons) == 2 and "has not 8 bits a channel" in reasons[1]
