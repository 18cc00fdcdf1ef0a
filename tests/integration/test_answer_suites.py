"""MMIE and InterleavedBench from the command line, on the policy that comes with the code."""

import json
from pathlib import Path

import pytest
from PIL import Image as PillowImage

ROOT = Path(__file__).parents[2]
BEHAVIOUR = [
    "suite.behaviour.guidance_scale=1",
    "suite.behaviour.max_text_tokens=20",
    "suite.behaviour.max_image_count=2",
]
HOSTILE = "<script>alert(1)</script> draw a red circle"


@pytest.fixture
def data(tmp_path):
    PillowImage.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / "a.png")
    mmie = [
        {
            "id": f"{kind}-{place}",
            "question": [{"text": text, "image": image}],
            "answer": [],
            "model": "gt",
            "gt_answer": [{"text": "5", "image": None}],
        }
        for place, (kind, text, image) in enumerate(
            [("SA", HOSTILE, "a.png"), ("PBL", "draw a blue square", None), ("MSR", "2 + 3", None)]
        )
    ]
    bench = [
        {
            "id": "a",
            "task_name": "storytelling_generation",
            "image": ["a.png"],
            "conversations": [{"from": "human", "value": f"<image> {HOSTILE}"}],
        }
    ]
    for name, rows in (("mmie", mmie), ("interleavedbench", bench)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.mark.parametrize("name", ["mmie", "interleavedbench"])
def test_a_suite_runs_from_the_command_line(run_command, monkeypatch, data, name):
    monkeypatch.setenv("UNIFIED_RL_ASSETS", str(ROOT / "assets"))
    asked = [f"suite={name}", f"suite.path={data / name}.json", *BEHAVIOUR, "paths.output=out"]
    code, out, err = run_command("evaluate", *asked)
    assert code == 0, err
    written = json.loads((data / "out" / "evaluation.json").read_text())
    assert written["suite"] == name
    assert written["metrics"]["with_image"]["n"] == (3 if name == "mmie" else 1)
    assert written["provenance"]["config"]["suite"]["path"] == f"{data / name}.json"
    page = (data / "out" / "evaluation.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    before = (data / "out" / name / "answers.jsonl").read_bytes()
    assert run_command("evaluate", *asked)[0] == 0
    assert (data / "out" / name / "answers.jsonl").read_bytes() == before
    code, _, err = run_command("evaluate", *asked, "seed=1")
    assert code == 2
    assert "answers of other weights, questions or settings" in err


def test_a_missing_path_is_one_line(run_command):
    code, _, err = run_command("evaluate", "suite=mmie")
    assert code == 2
    assert "suite.path" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["evaluate", "prefer"])
def test_a_device_that_is_not_there_is_one_line(run_command, command):
    code, _, err = run_command(command, "device=nonsense")
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert "device=nonsense is not to be had here" in err
