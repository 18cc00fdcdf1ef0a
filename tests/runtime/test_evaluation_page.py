"""The page of an evaluation shows what was said, as text."""

import re
from html.parser import HTMLParser

import numpy as np

from unified_rl.evaluation.estimates import estimate
from unified_rl.evaluation.record import Evaluation, GalleryEntry
from unified_rl.runtime import evaluation_page
from unified_rl.runtime.evaluation_page import write_page

HOSTILE = "<script>alert('1')</script><img src=x onerror=1></p>\"&"


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.source = path.read_text()
        self.tags, self.words = [], []
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.words.append(text)


def evaluation(prompt, texts, count=1, shown=0):
    pixels = np.full((24, 24, 3), 7, np.uint8)
    entry = GalleryEntry(prompt, texts, (pixels,), (), True, (pixels,) * shown)
    metrics = {prompt: estimate([1.0, 0.0])}
    return Evaluation(prompt, {}, metrics, {prompt: prompt}, (entry,) * count)


def test_hostile_prompts_and_answers_are_escaped(tmp_path):
    path = write_page(evaluation(HOSTILE, (HOSTILE, HOSTILE)), tmp_path, HOSTILE)
    page = Page(path)
    assert "<script" not in page.source and "<img src=x" not in page.source
    # title twice, suite, metric, label, prompt, two texts
    assert "".join(page.words).count(HOSTILE) == 8
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a", "form"}


def test_page_asks_nothing_of_the_network(tmp_path):
    page = Page(write_page(evaluation("p", ("t",), shown=2), tmp_path, "title"))
    assert not re.search(r"https?:|@import|url\(", page.source)
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)


def test_a_page_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation_page, "PAGE_BYTES", 250)  # a picture takes about a hundred
    page = Page(write_page(evaluation("p", ("t",), count=9), tmp_path, "title"))
    assert 1 <= page.source.count("<article>") < 9
    assert re.search(r"and \d more in gallery.json", page.source)


def test_nothing_to_show_makes_no_page(tmp_path):
    assert write_page(Evaluation("s", {}, {}), tmp_path, "title") is None
    assert list(tmp_path.iterdir()) == []


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path):
    assert "t?" in write_page(evaluation("p", ("t\ud800",)), tmp_path, "title").read_text()
