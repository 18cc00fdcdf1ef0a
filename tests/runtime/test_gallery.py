"""The folder of answers: complete after every batch, never overwritten, safe to open."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from unified_rl.core.errors import ConfigError, UserError
from unified_rl.core.sample import Completion, Image, Sample, Task, Text
from unified_rl.data.requests import BrokenRow
from unified_rl.runtime import gallery
from unified_rl.runtime.gallery import Answer, Gallery, check_free, next_free

HOSTILE = '<script>alert("1")</script><img src=x onerror=1>'
SETTINGS = {"model": "micro", "behaviour": {"guidance_scale": 5.0}}
PROVENANCE = {"commit": "0123456789abcdef", "dirty": True, "versions": {"torch": "2.13.0"}}


def picture(colour, size=24):
    return Image(np.full((size, size, 3), colour, np.uint8))


def drawing(number=1, turn=1, colour=50, size=24):
    sample = Sample(f"line-{number}", Task.TEXT_TO_IMAGE, (Text(f"prompt {number}"),))
    return Answer(number, turn, sample, (), Completion((picture(colour, size),), True))


def question(answer="a cat", number=1, finished=True):
    sample = Sample("q", Task.UNDERSTANDING, (picture(9), Text("what")))
    completion = Completion((Text(answer),), finished)
    return Answer(number, 1, sample, ("some/where/cat.jpg",), completion)


def story(number=1):
    sample = Sample("s", Task.INTERLEAVED, (Text("tell"),))
    segments = (Text("<think> one <vis>"), picture(1), Text("<think> two <vis>"), picture(2))
    return Answer(number, 1, sample, (), Completion((*segments, Text("")), True))


def opened(folder, skipped=()):
    return Gallery(folder, "a title", 3, SETTINGS, PROVENANCE, skipped)


def rows(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


class Page(HTMLParser):
    """Tags, and what a reader sees in order: words, and the value of each picture's first pixel."""

    def __init__(self, folder):
        super().__init__()
        self.source = (folder / "index.html").read_text()
        self.tags, self.seen = [], []
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "img":
            content = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
            self.seen.append(int(np.array(PillowImage.open(io.BytesIO(content)))[0, 0, 0]))

    def handle_data(self, data):
        if data.strip():
            self.seen.append(" ".join(data.split()))

    @property
    def text(self):
        return " ".join(map(str, self.seen))


def test_every_answer_has_its_files_and_its_line(tmp_path):
    with opened(tmp_path / "new") as folder:
        folder.add([drawing(colour=50), drawing(turn=2, colour=60), story(2)])
    names = [row["image"] for row in rows(tmp_path / "new")[2]["segments"] if "image" in row]
    assert names == ["images/prompt0002-sample1-image1.png", "images/prompt0002-sample1-image2.png"]
    found = {
        path.name: int(np.array(PillowImage.open(path))[0, 0, 0])
        for path in (tmp_path / "new/images").iterdir()
    }
    assert found == {
        "prompt0001-sample1-image1.png": 50,
        "prompt0001-sample2-image1.png": 60,
        "prompt0002-sample1-image1.png": 1,
        "prompt0002-sample1-image2.png": 2,
    }
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "images",
        "index.html",
        "provenance.json",
        "results.jsonl",
    }


def test_line_says_what_was_asked_and_how(tmp_path):
    with opened(tmp_path) as folder:
        folder.add([question("a \u732b", finished=False)])
    assert rows(tmp_path) == [
        {
            "id": "q",
            "number": 1,
            "sample": 1,
            "task": "question",
            "prompt": "what",
            "prompt_images": ["some/where/cat.jpg"],
            "segments": [{"text": "a \u732b"}],
            "finished": False,
            "seed": 3,
            "settings": SETTINGS,
        }
    ]
    assert json.loads((tmp_path / "provenance.json").read_text()) == PROVENANCE


def test_interleaved_answer_is_shown_in_order_without_its_tags(tmp_path):
    with opened(tmp_path) as folder:
        folder.add([story()])
    # the pictures are of value 1 and 2; the empty text that ends a story is not shown
    assert "tell sample 1 one 1 two 2 How it was made" in Page(tmp_path).text
    assert rows(tmp_path)[0]["segments"][0] == {"text": "<think> one <vis>"}


def test_answers_to_one_prompt_stand_together_over_batches(tmp_path):
    with opened(tmp_path) as folder:
        folder.add([drawing(1, 1, 50), drawing(1, 2, 60)])
        folder.add([drawing(1, 3, 70), drawing(2, 1, 80)])
    page = Page(tmp_path)
    assert "prompt 1 sample 1 50 sample 2 60 sample 3 70" in page.text
    assert "prompt 2 sample 1 80" in page.text
    assert [tag for tag, _ in page.tags].count("article") == 2


def test_image_of_the_prompt_is_shown_without_its_folder(tmp_path):
    with opened(tmp_path) as folder:
        folder.add([question()])
    page = Page(tmp_path)
    assert "9 what sample 1 a cat" in page.text
    assert [a["title"] for tag, a in page.tags if tag == "img"] == ["cat.jpg"]


def test_answer_that_was_cut_off_is_marked(tmp_path):
    with opened(tmp_path) as folder:
        folder.add([question(finished=True), question(number=2, finished=False)])
    assert Page(tmp_path).text.count("unfinished") == 1


@pytest.mark.parametrize(
    ("size", "side", "enlarged"),
    # 144 / 24 = 6; 144 / 200 is under 1; 512 goes down to 288
    [(24, "144", True), (200, "200", False), (512, "288", False)],
)
def test_pictures_have_a_size_to_look_at(tmp_path, size, side, enlarged):
    with opened(tmp_path) as folder:
        folder.add([drawing(size=size)])
    (attributes,) = [a for tag, a in Page(tmp_path).tags if tag == "img"]
    assert (attributes["width"], attributes["height"]) == (side, side)
    assert (attributes.get("class") == "small") == enlarged


def test_page_asks_nothing_of_the_network(tmp_path):
    with opened(tmp_path) as folder:
        folder.add([drawing(), question(number=2), story(3)])
    page = Page(tmp_path)
    assert not re.search(r"https?:|@import|url\(", page.source)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    for _, attributes in page.tags:
        assert "href" not in attributes
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")


def test_text_is_escaped(tmp_path):
    sample = Sample(HOSTILE, Task.TEXT, (Text(HOSTILE),))
    answer = Answer(1, 1, sample, (), Completion((Text(HOSTILE),), True))
    skipped = [BrokenRow(4, HOSTILE, HOSTILE)]
    with Gallery(tmp_path, HOSTILE, 0, {"x": HOSTILE}, {"commit": HOSTILE}, skipped) as folder:
        folder.add([answer])
    page = Page(tmp_path)
    assert "<script" not in page.source and "<img" not in page.source
    # title twice, id, prompt, answer, id and reason of the row, settings
    assert page.text.count(HOSTILE) == 8


def test_rows_that_are_not_asked_are_listed(tmp_path):
    with opened(tmp_path, [BrokenRow(2, None, "is empty")]) as folder:
        folder.add([drawing()])
        folder.skip(BrokenRow(7, "x", "is damaged"))
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"line": 2, "id": None, "reason": "is empty"},
        {"line": 7, "id": "x", "reason": "is damaged"},
    ]
    assert "Not asked line 2: is empty line 7 (x): is damaged" in Page(tmp_path).text


def test_a_batch_is_on_the_disk_before_the_next(tmp_path):
    with opened(tmp_path) as folder:
        folder.add([drawing()])
        # before anything is closed, as after a kill
        assert len(rows(tmp_path)) == 1 and Page(tmp_path).seen.count(50) == 1
        assert (tmp_path / "images/prompt0001-sample1-image1.png").is_file()


def test_page_is_written_rarely_where_it_takes_long_and_always_at_the_end(tmp_path, monkeypatch):
    now = iter([0.0, 2.0, 2.0, 19.0, 20.0, 21.0, 21.0])
    monkeypatch.setattr(gallery.time, "monotonic", lambda: next(now))
    with opened(tmp_path) as folder:
        folder.add([drawing(1)])  # takes 2 s, so a tenth of the time is kept if 18 s go by
        folder.add([drawing(2)])  # at 19 s
        assert "prompt 2" not in Page(tmp_path).text
        folder.add([drawing(3)])  # at 20 s
        assert "prompt 3" in Page(tmp_path).text
    assert "3 answers" in Page(tmp_path).text


def test_page_is_complete_after_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "RENDER_SHARE", 1e-9)
    with pytest.raises(ValueError), opened(tmp_path) as folder:  # noqa: PT011, PT012
        folder.add([drawing(1)])
        folder.add([drawing(2)])
        raise ValueError
    assert "prompt 2" in Page(tmp_path).text


def test_page_is_bounded(tmp_path, monkeypatch):
    shown = len(base64.b64encode(gallery.png(picture(50).pixels))) + len("data:image/png;base64,")
    monkeypatch.setattr(gallery, "PAGE_BYTES", 2 * shown)
    with opened(tmp_path) as folder:
        folder.add([drawing(number) for number in (1, 2, 3, 4)])
    page = Page(tmp_path)
    assert page.seen.count(50) == 2 and "The last 2 are too much for one page" in page.text
    assert len(rows(tmp_path)) == 4


def test_an_earlier_run_is_never_overwritten(tmp_path):
    with opened(tmp_path) as folder:
        folder.add([drawing()])
    before = (tmp_path / "results.jsonl").read_bytes()
    for attempt in (check_free, opened):
        with pytest.raises(ConfigError, match=r"holds results\.jsonl of an earlier run"):
            attempt(tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_a_folder_with_other_files_will_do(tmp_path):
    (tmp_path / "prompts.txt").touch()
    check_free(tmp_path)
    with pytest.raises(ConfigError, match=r"prompts\.txt is not a folder"):
        check_free(tmp_path / "prompts.txt")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        opened(tmp_path / "prompts.txt" / "below")


def test_next_folder_is_the_first_that_is_free(tmp_path):
    assert next_free(tmp_path / "a") == tmp_path / "a"
    for name in ("a", "a-2"):
        (tmp_path / name).mkdir()
    assert next_free(tmp_path / "a") == tmp_path / "a-3"


def test_full_disk_is_told_and_what_is_there_is_kept(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(UserError, match="No space left on device; 1 answers are kept there"),
        opened(tmp_path) as folder,
    ):
        folder.add([drawing(1)])
        monkeypatch.setattr(Path, "write_bytes", full)
        folder.add([drawing(2)])
    assert len(rows(tmp_path)) == 1 and "prompt 1" in Page(tmp_path).text
    assert not list(tmp_path.rglob("*.tmp"))
