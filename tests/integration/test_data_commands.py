"""`python -m unified_rl.data.inspect` and `.build` from their command lines."""

import functools
import json
import subprocess
import sys

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from tests.data.published_cases import write_coco, write_llava
from unified_rl.data.webdataset import WebDatasetSource


@pytest.fixture
def inspect(run_command):
    return functools.partial(run_command, "inspect_data")


@pytest.fixture
def build(run_command):
    return functools.partial(run_command, "build_data")


COCO = (
    "data=coco_captions",
    "data.sources.coco_captions.path=captions.json",
    "data.sources.coco_captions.image_root=train2017",
)


def test_data_is_inspected(inspect, tmp_path):
    write_coco(tmp_path)
    (tmp_path / "train2017/000000000002.png").write_bytes(b"no picture")
    code, out, _ = inspect(*COCO, "paths.output=seen")
    assert code == 0
    # annotations 2 * 3 = 6 about image 7 * 6 % 5 = 2, and 1 about 7 % 5 = 2: two are broken
    assert "5 samples, 7 of 7 rows looked at" in out and "broken: 2" in out
    assert "2 x image .. is unreadable; save it as PNG, JPEG or WebP" in out
    report = json.loads((tmp_path / "seen/inspection.json").read_text())
    assert report["coco_captions"]["image_sizes"] == {"9 x 7": 5}
    assert len((tmp_path / "seen/coco_captions.broken.jsonl").read_text().splitlines()) == 2
    assert "data:image/png" in (tmp_path / "seen/index.html").read_text()
    assert not list(tmp_path.glob("*quarantine*"))


def test_tokens_and_every_source_are_counted(inspect, tmp_path):
    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    (tmp_path / "model").mkdir()
    words.save(str(tmp_path / "model/tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(settings))
    code, out, err = inspect("data=warmup", "draws=5", "tokenizer=model", "shown=2")
    assert code == 0, err
    assert out.count("5 samples, 5 draws looked at") == 4 and "prompt tokens: least" in out
    assert (tmp_path / "outputs/inspect/warmup/index.html").is_file()


def test_data_is_built_and_inspected_again(build, inspect, tmp_path):
    write_llava(tmp_path)
    path = "data.sources.llava_conversations.path=chat.json"
    asked = ["data=llava_conversations", path, "format=webdataset", "output=shards"]
    code, out, _ = build(*asked, "samples_per_part=4")
    assert code == 0 and "shards: 9 samples; 0 broken rows" in out
    assert len(list((tmp_path / "shards").glob("*.tar"))) == 3  # 4 + 4 + 1
    assert len(WebDatasetSource(str(tmp_path / "shards"))) == 9
    code, out, _ = inspect("data=webdataset", "data.sources.webdataset.path=shards")
    assert code == 0 and "9 samples, 9 of 9 rows looked at" in out
    code, _, err = build(*asked)
    assert code == 2 and "output=shards exists" in err


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("build", ["data=warmup", "output=x"], "stories, drawings, questions, texts; choose one"),
        ("build", ["data=warmup", "source=story", "output=x"], "did you mean 'stories'?"),
        ("build", ["data=warmup", "source=texts", "output=x", "format=csv"], "format='csv'"),
        ("build", ["data=warmup", "source=texts", "output=x", "count=-1"], "count=-1 must be at"),
        ("build", ["data=warmup", "source=texts", "output=x", "draws=0"], "draws=0 must be at"),
        ("inspect", ["data=warmup", "tokenizer=nowhere"], "tokenizer=nowhere is not a folder"),
        ("inspect", ["data=warmup", "draws=0"], "draws=0 must be at least 1"),
        ("inspect", ["data=jsonl"], "data.sources.jsonl.path has no value"),
        ("inspect", ["data=jsnol"], "did you mean"),
    ],
)
def test_mistakes_are_one_line(request, command, arguments, said):
    code, _, err = request.getfixturevalue(command)(*arguments)
    assert code == 2 and said in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["inspect", "build"])
def test_commands_are_found_where_data_is(name):
    command = [sys.executable, "-m", f"unified_rl.data.{name}", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"python -m unified_rl.data.{name} data=" in shown
