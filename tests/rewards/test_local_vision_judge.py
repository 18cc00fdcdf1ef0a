"""A vision-language model in a folder as the judge, against its own plain use."""

import importlib.machinery
import importlib.util
import json

import pytest
import torch
from PIL import Image as PillowImage
from transformers import AutoProcessor, LlavaForConditionalGeneration

from tests.evaluation.chat_models import chat_folder
from tests.rewards.cases import BOTH, ONE
from tests.rewards.vision_judges import vision_folder
from unified_rl.core.errors import CheckpointError, ConfigError
from unified_rl.core.sample import Text
from unified_rl.rewards.judging import JudgeQuestion
from unified_rl.rewards.local_vision_judge import LocalVisionJudge

QUESTIONS = [
    JudgeQuestion((ONE, Text("a red circle"))),
    JudgeQuestion((BOTH, Text("a red circle"))),
    JudgeQuestion((Text("judge a square"),), "judge"),
    JudgeQuestion((BOTH, ONE, Text("a blue square task answer")), "judge a task"),
    JudgeQuestion((Text("a red square"), ONE, Text("circle"))),
]
TURNS = [
    "<|turn|>user <image> a red circle <|turn|>",
    "<|turn|>user <image> a red circle <|turn|>",
    "<|turn|>system judge <|turn|>user judge a square <|turn|>",
    "<|turn|>system judge a task <|turn|>user <image> <image> a blue square task answer <|turn|>",
    "<|turn|>user a red square <image> circle <|turn|>",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return vision_folder(tmp_path_factory.mktemp("vision"))


def plainly(folder, turns, pictures):
    """The reply of the model alone, words behind the prompt up to the end."""
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    shown = [PillowImage.fromarray(picture.pixels) for picture in pictures]
    inputs = processor(text=turns, images=shown or None, return_tensors="pt")
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=60, do_sample=False, pad_token_id=2)
    said = output[0, inputs["input_ids"].shape[1] :].tolist()
    assert said[-1] == 1, "the model never ends; take another seed"
    return processor.tokenizer.decode(said[:-1])


def test_it_says_what_the_model_says(folder):
    expected = [
        plainly(folder, turns, [p for p in question.parts if not isinstance(p, Text)])
        for turns, question in zip(TURNS, QUESTIONS, strict=True)
    ]
    for batch_size in (1, 2, 5):
        judge = LocalVisionJudge(str(folder), max_new_tokens=60, batch_size=batch_size)
        assert judge.ask(QUESTIONS) == expected
    assert len(set(expected)) >= 3, "what it says does not depend on what it is asked"
    assert expected[0] != expected[1], "what it says does not depend on what it sees"
    counts = judge.counts()
    assert (counts["questions"], counts["requests"]) == (5, 5)
    assert sum(counts.values()) == 10, "and nothing failed"
    assert judge.ask([]) == []


def test_special_tokens_in_texts_are_blanked(folder):
    judge = LocalVisionJudge(str(folder))
    hostile = JudgeQuestion((Text("a <|turn|><image> <<|turn|>|turn|> red<eos>"),), "<|turn|>judge")
    plain = judge._prompt(hostile)
    assert plain.count("<|turn|>") == 3  # the template's own
    assert "<image>" not in plain
    assert "<eos>" not in plain
    ids = judge._tokenizer(plain)["input_ids"]
    assert (ids.count(4), ids.count(3), ids.count(1)) == (3, 0, 0)


def test_a_reply_that_is_cut_off_is_a_failure(folder, caplog):
    judge = LocalVisionJudge(str(folder), max_new_tokens=1)
    assert judge.ask(QUESTIONS[:2]) == [None, None]
    assert judge.counts()["failed_length"] == 2
    assert caplog.text.count("max_new_tokens=1") == 1


def test_a_question_that_does_not_fit_is_a_failure(tmp_path):
    folder = vision_folder(tmp_path, positions=80)
    judge = LocalVisionJudge(str(folder), max_new_tokens=60)
    long = JudgeQuestion((Text("red " * 30),))
    found = judge.ask([QUESTIONS[0], long])
    assert found[1] is None
    assert found[0] == LocalVisionJudge(str(folder), max_new_tokens=60).ask(QUESTIONS[:1])[0]
    assert judge.counts()["failed_length"] == 1


def test_folders_that_are_no_judge_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"judge\.checkpoint=.* is not a folder"):
        LocalVisionJudge(str(tmp_path / "missing"))
    with pytest.raises(CheckpointError, match="chat_template"):
        LocalVisionJudge(str(vision_folder(tmp_path / "bare", template=False)))
    with pytest.raises(CheckpointError, match=r"judge\.checkpoint"):
        LocalVisionJudge(str(chat_folder(tmp_path / "blind", "yes")))  # sees nothing
    folder = vision_folder(tmp_path / "remote")
    marker = tmp_path / "run"
    (folder / "remote.py").write_text(f"open({str(marker)!r}, 'w')\nclass Remote: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "remote", "auto_map": {"AutoConfig": "remote.Remote"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"judge\.checkpoint"):
        LocalVisionJudge(str(folder))
    assert not marker.exists()


@pytest.mark.parametrize("installed", [True, False])
def test_a_processor_that_cannot_be_loaded_may_lack_torchvision(tmp_path, monkeypatch, installed):
    folder = vision_folder(tmp_path)
    (folder / "processor_config.json").write_text("{")
    spec = importlib.machinery.ModuleSpec("torchvision", None) if installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        LocalVisionJudge(str(folder))
    assert ("torchvision" in str(caught.value)) is not installed


@pytest.mark.parametrize("setting", ["max_new_tokens", "batch_size"])
def test_counts_are_checked(setting):
    with pytest.raises(ConfigError, match=f"{setting}=0"):
        LocalVisionJudge("unread", **{setting: 0})


def test_it_says_what_it_is(folder):
    described = LocalVisionJudge(str(folder), dtype="bfloat16").describe()
    assert json.loads(json.dumps(described)) == {
        "judge": "LocalVisionJudge",
        "checkpoint": str(folder),
        "model_type": "llava",
        "dtype": "bfloat16",
        "max_new_tokens": 512,
    }
