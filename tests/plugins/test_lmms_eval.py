"""lmms-eval finds our model by its entry point and runs it offline, on tasks made here."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Image, Sample, Task, Text
from unified_rl.data.microworld import question_sample
from unified_rl.microworld.facts import compose
from unified_rl.microworld.prompts import CATEGORIES, prompts
from unified_rl.microworld.questions import ask

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("lmms_eval") is None
        or not entry_points(group="lmms_eval.models", name="unified_rl"),
        reason="needs the extra: pip install -e '.[lmms]'",
    ),
    pytest.mark.filterwarnings("ignore"),  # lmms-eval's own
]
ASSETS = Path(__file__).parents[2] / "assets"
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
doc_to_visual: !function shapes.visual
doc_to_text: !function shapes.text
"""
GENERATE = """
output_type: generate_until
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 16
  until: ["."]
process_results: !function shapes.judge
metric_list:
  - metric: exact
    aggregation: mean
    higher_is_better: true
"""
CHOOSE = """
output_type: multiple_choice
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
FUNCTIONS = """
from PIL import Image

def visual(doc):
    return [Image.open(doc["image"])]

def text(doc, lmms_eval_specific_kwargs=None):
    return "<image>" + doc["question"]

def judge(doc, results):
    return {"exact": float(results[0] == doc["answer"])}
"""


def questions(folder):
    """Twelve of the micro-world's, two a category."""
    rng, rows = np.random.default_rng(0), []
    for category in CATEGORIES:
        for prompt in prompts(category, "test")[:2]:
            sample = question_sample(ask(category, compose(prompt.facts, rng), rng))
            (shown,) = (part for part in sample.prompt if isinstance(part, Image))
            file = folder / f"{len(rows)}.png"
            PillowImage.fromarray(shown.pixels).save(file)
            gold = sample.target[0].text
            row = {"image": str(file), "question": sample.prompt_text, "answer": gold}
            rows.append(row | {"choices": [gold, "blue purple circle"], "gold": 0})
    return rows


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What lmms-eval wrote of two tasks, and their rows."""
    folder = tmp_path_factory.mktemp("lmms")
    rows = questions(folder)
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "shapes.py").write_text(FUNCTIONS)
    for name, kind in (("shapes", GENERATE), ("shapes_choice", CHOOSE)):
        head = TASK.format(name=name, rows=folder / "rows.json")
        (folder / f"{name}.yaml").write_text(head + kind)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "UNIFIED_RL_ASSETS": str(ASSETS),
    }
    command = [sys.executable, "-m", "lmms_eval", "--model", "unified_rl"]
    command += ["--model_args", "model=micro_janus", "--tasks", "shapes,shapes_choice"]
    command += ["--include_path", str(folder), "--batch_size", "5", "--device", "cpu"]
    command += ["--output_path", str(folder / "out"), "--log_samples"]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = folder.glob("out/**/*results.json")
    samples = {
        name: [json.loads(line) for line in next(folder.glob(f"out/**/*_{name}.jsonl")).open()]
        for name in ("shapes", "shapes_choice")
    }
    return json.loads(results.read_text())["results"], samples, rows


@pytest.fixture(scope="module")
def model():
    from unified_rl.plugins.lmms_eval import UnifiedModel

    os.environ["UNIFIED_RL_ASSETS"] = str(ASSETS)
    return UnifiedModel(batch_size=3, device="cpu")


def shown(row):
    with PillowImage.open(row["image"]) as image:
        return np.asarray(image.convert("RGB"))


def test_answers_are_those_of_the_policy_itself(ran, model):
    results, samples, rows = ran
    policy, greedy = model._answerer.policy, model._answerer.greedy
    asked = [
        Sample(str(place), Task.UNDERSTANDING, (Image(shown(row)), Text(row["question"])))
        for place, row in enumerate(rows)
    ]
    _, completions = policy.sample(asked, greedy, torch.Generator())
    own = [completion.texts[0] for completion in completions]
    by_doc = {line["doc_id"]: line["filtered_resps"] for line in samples["shapes"]}
    assert [by_doc[place] for place in range(len(rows))] == own
    right = np.mean([said == row["answer"] for said, row in zip(own, rows, strict=True)])
    assert results["shapes"]["exact,none"] == pytest.approx(right)
    assert right > 0.4  # it has learnt the micro-world, so nothing is lost on the way


def test_the_likeliest_answer_is_chosen(ran):
    results, _, _ = ran
    assert results["shapes_choice"]["acc,none"] > 0.6


def request(doc, kind, *settings, text="<image>what is the color of the object"):
    visual = (lambda doc: [PillowImage.fromarray(doc["pixels"])]) if "pixels" in doc else None
    before = (text, settings[0], visual or (lambda doc: []))
    return SimpleNamespace(args=(*before, *settings[1:], 0, "task", "test"), kind=kind)


def put(model, **doc):
    model.task_dict = {"task": {"test": [doc]}}
    return doc


def test_a_loss_is_the_mean_over_its_tokens(model):
    pixels = np.full((24, 24, 3), 255, np.uint8)
    doc = put(model, pixels=pixels)
    results = {}
    for target in ("red", "red circle"):
        (result,) = model.loglikelihood([request(doc, "loglikelihood", target)])
        results[target] = result.text
    policy = model._answerer.policy
    asked = model._answerer.question(
        "q", "<image>what is the color of the object", [PillowImage.fromarray(pixels)]
    )
    sample = Sample("q", asked.task, asked.prompt, target=(Text("red"),))
    trajectory = policy.encode([sample], torch.Generator())
    assert trajectory.action_mask.sum() == 2  # the word and the end
    first = float(policy.logprobs(trajectory)[trajectory.action_mask][0])
    assert results["red"][0] == pytest.approx(-first, abs=1e-4)
    assert results["red circle"][0] > -first / 2  # the second word has a loss of its own


def test_the_greedy_answer_is_recognised(model):
    doc = put(model, pixels=shown_red())
    (said,) = model.generate_until([request(doc, "generate_until", {"max_new_tokens": 8})])
    (likely, other) = (
        model.loglikelihood([request(doc, "loglikelihood", text)])[0].text
        for text in (said, said + " circle")
    )
    assert likely[1] is True
    assert other[1] is False


def shown_red():
    pixels = np.full((24, 24, 3), 255, np.uint8)
    pixels[6:18, 6:18] = (220, 30, 30)
    return pixels


def test_until_cuts_and_max_new_tokens_limits(model):
    doc = put(model, pixels=shown_red())
    question = "<image>what is the main object of the image"

    def said(**settings):
        return model.generate_until([request(doc, "g", settings, text=question)])[0]

    whole = said(max_new_tokens=8)
    assert len(whole.split()) == 2  # such as "a square"
    assert said(max_new_tokens=1) == whole.split()[0]
    assert said(max_new_tokens=8, until=[whole.split()[1]]).strip() == whole.split()[0]
    assert said(max_new_tokens=8, until=whole.split()[0]) == ""


def test_rounds_end_where_the_task_says(model):
    doc = put(model, pixels=shown_red())
    heard = []

    def next_round(doc, previous_output, round_idx, previous_round_info):
        heard.append((list(previous_output), round_idx, previous_round_info))
        visuals = [PillowImage.fromarray(doc["pixels"])]
        return visuals, "what is the color of the object", round_idx == 2, previous_output, "kept"

    settings = {"max_new_tokens": 8}
    asked = request(doc, "m", settings, next_round)
    (answers,) = model.generate_until_multi_round([asked])
    assert len(answers) == 2
    assert [(index, info) for _, index, info in heard] == [(1, None), (2, "kept")]
    assert heard[1][0] == answers


def test_a_picture_out_of_bounds_costs_its_own_question_alone(model):
    good = request(put(model, pixels=shown_red()), "g", {"max_new_tokens": 8})
    bad = request({}, "g", {"max_new_tokens": 8})
    bad.args = (*bad.args[:2], lambda doc: [PillowImage.new("1", (9000, 9000))], *bad.args[3:])
    first, nothing, again = model.generate_until([good, bad, good])
    assert first == again != ""
    assert nothing == ""


def test_settings_that_cannot_be_kept_are_refused(model):
    from unified_rl.plugins.lmms_eval import UnifiedModel

    with pytest.raises(ConfigError, match="batch_size=auto"):
        UnifiedModel(batch_size="auto")
    with pytest.raises(ConfigError, match="cannot be composed"):
        UnifiedModel(model="micro_janos", device="cpu")
    doc = put(model, other=1)
    odd = request(doc, "g", {})
    odd.args = (odd.args[0], {}, lambda doc: ["video.mp4"], *odd.args[3:])
    with pytest.raises(ConfigError, match="shows a str"):
        model.generate_until([odd])
