"""`python -m unified_rl.generate` from its command line, with the model that is shipped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image as PillowImage

from unified_rl import generate
from unified_rl.models.janus.policy import JanusPolicy

ROOT = Path(__file__).parents[2]
BASE = [f"paths.assets={ROOT / 'assets'}", "threads=1", "device=cpu"]


@pytest.fixture
def start(run_command, tmp_path):
    """Runs the command beside two pictures."""
    for name, colour in (("red.png", "red"), ("wide.png", "blue")):
        PillowImage.new("RGB", (40, 20), colour).save(tmp_path / name)
    return lambda *arguments: run_command("generate", *generate.literal(arguments), *BASE)


def rows(folder):
    return [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]


def size_of(path):
    with PillowImage.open(path) as image:
        image.load()
        return image.size


def test_a_prompt_is_drawn_out_of_the_box(start):
    code, out, err = start("prompt=draw a red circle", "count=2")
    assert code == 0, err
    folder = Path("outputs/generate/draw_a_red_circle")
    first, second = rows(folder)
    for row in (first, second):
        (segment,) = row["segments"]
        assert segment["image"] in out
        assert size_of(folder / segment["image"]) == (24, 24)
    assert (first["task"], first["sample"], second["sample"]) == ("text_to_image", 1, 2)
    assert first["settings"]["checkpoint"].endswith("assets/micro_janus")
    assert f"page:    {folder}/index.html" in out
    assert (folder / "index.html").read_text().count("data:image/png;base64,") == 2
    assert json.loads((folder / "provenance.json").read_text())["seed"] == 0


def test_the_same_command_gives_the_same_in_a_folder_of_its_own(start):
    for _ in range(2):
        assert start("prompt=a photo of a circle", "seed=5")[0] == 0
    assert start("prompt=a photo of a circle", "seed=6", "output=other")[0] == 0
    folders = [Path("outputs/generate/a_photo_of_a_circle"), Path("other")]
    folders.insert(1, Path(f"{folders[0]}-2"))
    first, again, other = (next((f / "images").iterdir()).read_bytes() for f in folders)
    assert first == again != other
    assert not list(Path("outputs/generate").rglob(".hydra"))


def test_an_earlier_run_is_not_overwritten(start):
    assert start("prompt=a photo of a circle", "output=mine")[0] == 0
    code, _, err = start("prompt=a photo of a square", "output=mine")
    assert code == 2 and err.startswith("error: output=mine holds results.jsonl of an earlier run")
    assert [row["prompt"] for row in rows("mine")] == ["a photo of a circle"]


def test_a_question_about_images_of_any_size(start):
    asked = "what is the color of the object"
    code, out, err = start(
        f"prompt={asked}", "image=red.png,wide.png", "output=o", "behaviour.text.temperature=0"
    )
    assert code == 0, err
    (row,) = rows("o")
    assert (row["task"], row["prompt_images"]) == ("question", ["red.png", "wide.png"])
    assert row["segments"][0]["text"] in out
    assert start(f"prompt={asked}", "image=[red.png,wide.png]", "output=p")[0] == 0
    assert rows("p")[0]["prompt_images"] == ["red.png", "wide.png"]


def test_a_file_of_prompts_of_every_task(start):
    asked = [
        {"prompt": "a photo of two squares", "id": "squares"},
        {"prompt": "what is the main object of the image", "image": "red.png"},
        {"prompt": "draw a red circle then add a green circle right of it", "task": "story"},
        {"prompt": "one plus two", "task": "text"},
        {"promt": "x"},
    ]
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    code, out, err = start("prompts=asked.jsonl", "count=2", "batch_size=3", "output=o")
    assert code == 0, err
    found = [(row["id"], row["task"], row["sample"]) for row in rows("o")]
    tasks = [("squares", "text_to_image"), ("line-2", "question"), ("line-3", "story")]
    tasks.append(("line-4", "text"))
    assert found == [(*task, turn) for task in tasks for turn in (1, 2)]
    assert "1 rows were not asked, listed in o/skipped.jsonl; line 5: 'promt' is none of" in out
    assert "8/8" in err


def test_prompt_longer_than_the_context(start, monkeypatch):
    # <bos> <user> and words and <assistant>; the answer is 36 codes and 2 borders
    monkeypatch.setattr(JanusPolicy, "context_length", 44)
    assert start("prompt=draw a circle", "output=a")[0] == 0  # 3 + 3 + 38 = 44
    code, _, err = start("prompt=draw a red circle", "output=b")
    assert code == 2 and err.endswith(
        "error: the prompt is 7 tokens long, but a context of 44 with answers of up to 38 leaves "
        "6; shorten it by 1 tokens\n"
    )
    Path("asked.txt").write_text("draw a red circle\ndraw a circle\n")
    assert start("prompts=asked.txt", "output=c")[0] == 0
    assert [row["id"] for row in rows("c")] == ["line-2"]
    (listed,) = Path("c/skipped.jsonl").read_text().splitlines()
    assert json.loads(listed)["line"] == 1 and "is 7 tokens long" in listed
    Path("asked.txt").write_text("draw a red circle\n")
    assert start("prompts=asked.txt", "output=d")[0] == 2
    assert not Path("b").exists() and not Path("d").exists()


MISTAKES = {
    "nothing": ([], "neither given: ask with prompt="),
    "both": (["prompt=a", "prompts=b"], "both given"),
    "empty": (["prompt=' '"], "the prompt is empty"),
    "image": (["prompt=a", "image=blue.png"], "image 'blue.png' does not exist"),
    "task": (["prompt=a", "task=stori"], "did you mean 'story'?"),
    "count": (["prompt=a", "count=0"], "count=0 must be a whole number from 1 on"),
    "batch": (["prompt=a", "batch_size=1.5"], "batch_size=1.5 must be a whole number"),
    "seed": (["prompt=a", "seed=-1"], "seed=-1 must be a whole number from 0 on"),
    "temperature": (["prompt=a", "behaviour.image.temperature=-1"], "temperature=-1 is negative"),
    "checkpoint": (["prompt=a", "checkpoint=nowhere"], "model.checkpoint=nowhere is not a folder"),
    "device": (["prompt=a", "++device=cdua"], "device=cdua is not to be had here"),
    "file": (["prompts=red.pn"], "there is no file red.pn; did you mean 'red.png'?"),
    "output": (["prompt=a", "output=red.png"], "output=red.png is not a folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_ends_in_one_line_and_code_2(start, monkeypatch, name):
    arguments, expected = MISTAKES[name]
    if name == "device":
        monkeypatch.setattr(sys.modules[__name__], "BASE", BASE[:-1])
    code, out, err = start(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and expected in err


def test_words_that_the_model_does_not_know_are_told(start):
    _, _, err = start("prompt=draw a zebra", "output=o")
    assert "warning: 1 of 1 prompts ('prompt' for one) hold words that this model" in err


def test_terminal_is_not_steered_by_what_is_said(start):
    _, out, _ = start("prompt=draw [bold]a\x1b[2J circle", "output=o")
    assert "draw [bold]a [2J circle" in out and "\x1b" not in out


@pytest.mark.parametrize(
    "prompt", ["a cat, on a mat", "what's it?", "a\\", "x=y", "5", "null ", "${seed}", "[a, b]"]
)
def test_prompt_is_taken_as_it_is(start, prompt):
    code, _, err = start(f"prompt={prompt}", "output=o")
    assert code == 0, err
    assert rows("o")[0]["prompt"] == prompt


def test_quoted_values_lists_and_sweeps_stay_as_they_are():
    for arguments in (["prompt='a, b'"], ["image=[a,b]"], ["seed=1,2"], ["-m", "prompt=a,b"]):
        assert generate.literal(arguments) == arguments


def test_a_prompt_may_begin_and_end_with_quotations():
    (argument,) = generate.literal(["prompt='a' beside 'b'"])
    assert argument == r"prompt='\'a\' beside \'b\''"


def test_interrupt_keeps_what_is_finished(start, monkeypatch):
    calls = []

    def sample(self, samples, *rest):
        calls.append(len(samples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, samples, *rest)

    original = JanusPolicy.sample
    monkeypatch.setattr(JanusPolicy, "sample", sample)
    code, out, err = start("prompt=draw a circle", "count=8", "batch_size=2", "output=o")
    assert code == 130 and "interrupted: 4 of 8 answers are there" in err
    assert len(rows("o")) == 4 and "page:    o/index.html" in out
    assert Path("o/index.html").read_text().count("data:image/png;base64,") == 4


def test_a_kill_keeps_finished_batches(tmp_path):
    command = [sys.executable, "-m", "unified_rl.generate", "prompt=draw a circle", *BASE]
    command += ["count=4000", "batch_size=1", f"output={tmp_path / 'o'}"]
    process = subprocess.Popen(
        [*command, f"paths.outputs={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    results = tmp_path / "o" / "results.jsonl"
    try:
        while not results.is_file() or results.read_bytes().count(b"\n") < 3:
            if process.poll() is not None:
                pytest.fail(process.stderr.read().decode())
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    found = rows(tmp_path / "o")  # every line is whole
    assert 3 <= len(found) < 4000
    for row in found:
        assert size_of(tmp_path / "o" / row["segments"][0]["image"]) == (24, 24)
    assert (tmp_path / "o" / "index.html").read_text().rstrip().endswith("</html>")
