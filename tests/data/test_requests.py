"""What is asked: prompts of the command line and of files; what is set aside."""

import json

import numpy as np
import pytest
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Image, Task, Text
from unified_rl.data.jsonl import BrokenRowError
from unified_rl.data.requests import check_length, read_requests, request_of


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("cat.png", "red"), ("dog.png", "blue")):
        PillowImage.new("RGB", (8, 4), colour).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def rows(folder):
    def read(*rows, **settings):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        return read_requests(folder / "rows.jsonl", **settings)

    return read


def test_a_prompt_without_an_image_is_drawn():
    request = request_of("a cat")
    assert (request.task, request.prompt) == (Task.TEXT_TO_IMAGE, ("a cat",))
    assert (request.number, request.line) == (1, None)


def test_a_prompt_with_images_is_a_question_about_them(folder):
    paths = [str(folder / "cat.png"), str(folder / "dog.png")]
    request = request_of("what is this", images=paths)
    assert request.task == Task.UNDERSTANDING
    sample = request.sample(4, "stretch")
    red, blue, text = sample.prompt
    assert (red.pixels == (255, 0, 0)).all() and (blue.pixels == (0, 0, 255)).all()
    assert red.pixels.shape == (4, 4, 3) and text == Text("what is this")
    # the outline has the same segments, without their pixels
    kinds = [type(segment) for segment in request.outline().prompt]
    assert kinds == [Image, Image, Text]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("text_to_image", Task.TEXT_TO_IMAGE),
        ("story", Task.INTERLEAVED),
        ("text", Task.TEXT),
        ("interleaved", Task.INTERLEAVED),
    ],
)
def test_tasks_by_name(name, task):
    assert request_of("a cat", name).task == task


def test_mistakes_of_the_command_line(folder):
    cat = str(folder / "cat.png")
    with pytest.raises(ConfigError, match="task=stori is not a task; did you mean 'story'"):
        request_of("a cat", "stori")
    with pytest.raises(DataError, match="the prompt is empty"):
        request_of("  ")
    with pytest.raises(DataError, match="the prompt holds text that is not Unicode"):
        request_of("\udcff")
    with pytest.raises(DataError, match="the prompt asks a question of no image"):
        request_of("what is this", "question")
    with pytest.raises(DataError, match="has an image, which text_to_image is not shown"):
        request_of("a cat", "text_to_image", [cat])
    with pytest.raises(DataError, match=r"image 'nowhere\.png' does not exist"):
        request_of("a cat", images=["nowhere.png"])


def test_text_file_has_one_prompt_a_line(folder):
    (folder / "prompts.txt").write_bytes("\ufeffa cat\r\n\n  ein Hündchen \n{}\n".encode())
    (folder / "latin.txt").write_bytes(b"a cat\n\xff\n")
    requests, broken = read_requests(folder / "prompts.txt")
    assert [request.prompt for request in requests] == [("a cat",), ("ein Hündchen",), ("{}",)]
    assert [request.id for request in requests] == ["line-1", "line-3", "line-4"]
    assert [request.number for request in requests] == [1, 2, 3] and not broken
    ((line, row_id, reason),) = read_requests(folder / "latin.txt")[1]
    assert (line, row_id) == (2, None) and reason.startswith("is not UTF-8")


def test_rows_name_task_images_and_id(rows):
    requests, broken = rows(
        {"prompt": "a cat", "id": "one"},
        {"prompt": "what", "image": "cat.png"},
        {"prompt": "tell", "image": ["cat.png", "dog.png"], "task": "story"},
        {"prompt": [{"text": "is"}, {"image": "dog.png"}, {"text": "this"}], "facts": {}},
    )
    assert not broken
    assert [request.id for request in requests] == ["one", "line-2", "line-3", "line-4"]
    assert [request.task.value for request in requests] == [
        "text_to_image",
        "understanding",
        "interleaved",
        "understanding",
    ]
    shown = [[path.name for path in request.images] for request in requests]
    assert shown == [[], ["cat.png"], ["cat.png", "dog.png"], ["dog.png"]]
    assert [requests[3].prompt[place] for place in (0, 2)] == ["is", "this"]


def test_command_line_fills_in_for_rows(rows, folder):
    cat, dog = str(folder / "cat.png"), "dog.png"
    requests, _ = rows({"prompt": "what"}, {"prompt": "what", "image": dog}, images=[cat])
    assert [request.images[0].name for request in requests] == ["cat.png", "dog.png"]
    requests, _ = rows({"prompt": "tell"}, {"prompt": "draw", "task": "auto"}, task="story")
    assert [request.task for request in requests] == [Task.INTERLEAVED, Task.TEXT_TO_IMAGE]


GOOD = {"prompt": "a cat", "id": "good"}
BROKEN = {
    "json": (b'{"prompt": ', "is not JSON"),
    "key": ({"promt": "a"}, "did you mean 'prompt'?"),
    "no_prompt": ({"id": "x"}, "prompt is neither a text nor"),
    "number": ({"prompt": 3}, "prompt is neither a text nor"),
    "empty": ({"prompt": " "}, "is empty"),
    "id": ({"prompt": "a", "id": 3}, "id 3 is not a text"),
    "same_id": (GOOD, "id 'good' is taken by line 1"),
    "task": ({"prompt": "a", "task": "stori"}, "did you mean 'story'?"),
    "task_kind": ({"prompt": "a", "task": ["story"]}, "task ['story'] is not a text"),
    "images": ({"prompt": "a", "image": [3]}, "image is neither a path nor a list of paths"),
    "both": ({"prompt": [{"text": "a"}], "image": "cat.png"}, "prompt is neither"),
    "segment": ({"prompt": [{"txt": "a"}]}, "prompt[0] is neither"),
    "missing": ({"prompt": "a", "image": "mouse.png"}, "image 'mouse.png' does not exist"),
    "outside": ({"prompt": "a", "image": "../cat.png"}, "is not a path inside image_root"),
    "no_image": ({"prompt": "a", "task": "question"}, "asks a question of no image"),
    "spare_image": ({"prompt": "a", "task": "text", "image": "cat.png"}, "text is not shown"),
    "half": (rb'{"prompt": "\ud800"}', "not Unicode"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_row_is_set_aside(rows, name):
    row, reason = BROKEN[name]
    requests, broken = rows(GOOD, row)
    assert [request.id for request in requests] == ["good"]
    assert broken[0].line == 2 and reason in broken[0].reason


def test_file_without_a_good_row(rows, folder):
    with pytest.raises(DataError, match="all 2 rows are broken; line 1: is not JSON"):
        rows(b"{", {"promt": "a"})
    (folder / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty\.txt holds no prompts"):
        read_requests(folder / "empty.txt")
    with pytest.raises(DataError, match=r"there is no file .*; did you mean 'empty\.txt'"):
        read_requests(folder / "emty.txt")
    with pytest.raises(DataError, match=r"image_root=.*nowhere is not a folder"):
        read_requests(folder / "empty.txt", image_root=folder / "nowhere")


def test_image_damaged_behind_its_header(rows, folder):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(folder / "cat.png")
    (folder / "cat.png").write_bytes((folder / "cat.png").read_bytes()[:-300])
    requests, broken = rows({"prompt": "what", "image": "cat.png"})
    assert not broken
    with pytest.raises(BrokenRowError, match=r"cat\.png', which is truncated or damaged"):
        requests[0].sample(4, "crop")


def test_length_is_bounded_by_the_context():
    check_length(70, 30, 100)  # fills it
    check_length(10**6, 30, None)
    # 100 - 30 = 70 are left, one too few
    with pytest.raises(BrokenRowError, match=r"is 71 tokens long.* leaves 70; shorten it by 1 "):
        check_length(71, 30, 100)
    with pytest.raises(ConfigError, match="an answer of up to 100 tokens does not fit"):
        check_length(1, 100, 100)
