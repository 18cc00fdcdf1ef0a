"""Requests put to a policy: in what batches, how long, and what is passed over."""

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from tests.toys import FAMILIES, build
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Task
from unified_rl.data.requests import request_of
from unified_rl.runtime.asking import ask, unknown_count


@pytest.fixture(scope="module")
def policy():
    return build("janus")


def asked(policy, requests, count=1, batch_size=2):
    behaviour, skipped = Behaviour(max_text_tokens=3), []
    batches = ask(policy, requests, behaviour, count, batch_size, 0, skipped.append)
    return [[(a.number, a.turn) for a in batch] for batch in batches], skipped


def numbered(request, number, line=None):
    return type(request)(number, f"line-{number}", line, request.task, request.prompt)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_asked_every_task(family, tmp_path):
    PillowImage.new("RGB", (50, 20), "red").save(tmp_path / "x.png")
    tasks = [("text_to_image", []), ("story", []), ("text", []), ("question", ["x.png"])]
    requests = [
        numbered(request_of("draw a circle", task, [str(tmp_path / name) for name in names]), place)
        for place, (task, names) in enumerate(tasks, start=1)
    ]
    found, skipped = asked(build(family), requests)
    assert found == [[(1, 1), (2, 1)], [(3, 1), (4, 1)]] and not skipped


def test_words_that_the_tokenizer_lacks_are_counted(policy):
    assert unknown_count(policy, request_of("draw a zebra and a Circle")) == 2
    assert unknown_count(policy, request_of("draw a circle")) == 0


def test_batches_go_prompt_by_prompt(policy):
    requests = [numbered(request_of("draw a circle"), number) for number in (1, 2)]
    found, _ = asked(policy, requests, count=3, batch_size=4)
    assert found == [[(1, 1), (1, 2), (1, 3), (2, 1)], [(2, 2), (2, 3)]]


def test_damaged_images_are_told_once_and_passed_over(policy, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(tmp_path / "x.png")
    request = request_of("what is it", images=[str(tmp_path / "x.png")])
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:-300])
    with pytest.raises(DataError, match=r"the prompt shows image '.*x\.png', which is truncated"):
        asked(policy, [request])
    rows = [numbered(request, 1, line=4), numbered(request_of("draw"), 2, line=5)]
    found, skipped = asked(policy, rows, count=3)  # its turns lie in two batches
    assert found == [[], [(2, 1)], [(2, 2), (2, 3)]]
    assert [row.line for row in skipped] == [4]


def test_batch_that_is_too_large_for_the_gpu(policy, monkeypatch):
    def sample(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(policy, "sample", sample)
    with pytest.raises(ConfigError, match="batch_size=2 does not fit the GPU's memory; halve it"):
        asked(policy, [request_of("draw a circle")])


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        # 9 positions and 2 borders an image; 5 words and the token that ends them a text
        (Task.TEXT_TO_IMAGE, 11),
        (Task.UNDERSTANDING, 6),
        (Task.TEXT, 6),
        (Task.INTERLEAVED, 3 * 6 + 2 * 11),
    ],
)
def test_longest_answer(policy, task, expected):
    assert policy.longest_answer(task, Behaviour(max_text_tokens=5, max_image_count=2)) == expected
