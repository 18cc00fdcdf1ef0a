"""What an inspection counts, and that its page takes nothing of the data for markup."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from unified_rl.core.sample import DrawnImage, Image, Sample, Task, Text
from unified_rl.data.contact_sheet import contact_sheet
from unified_rl.data.inspection import inspect_source
from unified_rl.data.ordered_rows import OrderedRows
from unified_rl.data.source_walk import SourceWalk


class Given(OrderedRows):
    """Rows that are given; None is broken."""

    image_size = None

    def __init__(self, *rows):
        self._rows = rows

    def __len__(self):
        return len(self._rows)

    def load(self, index):
        return self._rows[index]

    def take(self, index):
        return self._rows[index]

    def place(self, index):
        return index + 1

    def draw(self, rng):
        return self._rows[0]

    @property
    def broken_count(self):
        return self._rows.count(None)

    @property
    def broken_reasons(self):
        return [("image .. does not exist", self.broken_count)] if self.broken_count else []


def grey(height, width, value=7):
    return Image(np.full((height, width, 3), value, np.uint8))


def text(sample_id, words, *more, task=Task.TEXT, **rest):
    return Sample(sample_id, task, (Text(words), *more), **rest)


def inspected(*rows, **settings):
    source = Given(*rows)
    return inspect_source("given", source, SourceWalk(source), **settings)


def test_figures_are_counted():
    found = inspected(
        text("a", "x" * 10, target=(Text("yes"),)),
        None,
        text("b", "x" * 20, grey(4, 6), grey(4, 6), task=Task.INTERLEAVED),
        text("c", "x" * 60, grey(5, 5)),
        text("c", "x" * 30),
        text("d", "x" * 60, grey(5, 5)),  # as the third
        text("e", "x" * 60, grey(5, 5, 8)),
        token_count=lambda words: len(words) // 10,
    ).as_json()
    # prompts of 10 20 30 60 60 60 characters: mean 240 / 6, the middle of six is the third
    lengths = {"least": 10, "mean": 40.0, "median": 30, "most_of_95%": 60, "most": 60}
    tokens = {"least": 1, "mean": 4.0, "median": 3, "most_of_95%": 6, "most": 6}
    answer = {"least": 3, "mean": 3.0, "median": 3, "most_of_95%": 3, "most": 3}
    short = dict.fromkeys(("least", "median", "most_of_95%", "most"), 0) | {"mean": 0.0}
    assert found == {
        "rows": 7,
        "looked_at": 7,
        "samples": 6,
        "tasks": {"text": 5, "interleaved": 1},
        "lengths": {
            "prompt characters": lengths,
            "prompt tokens": tokens,
            "target characters": answer,
            "target tokens": short,
        },
        "images_a_sample": {0: 2, 1: 3, 2: 1},
        "image_sizes": {"5 x 5": 3, "6 x 4": 2},
        "repeated_ids": 1,
        "duplicates": 1,
        "broken": 1,
        "reasons": [{"reason": "image .. does not exist", "rows": 1}],
    }


def test_places_are_spread_evenly():
    rows = [text(str(number), str(number)) for number in range(100)]
    found = inspected(*rows, count=10, shown=5)
    assert found.looked_at == found.samples == 10
    assert [place for place, _ in found.picked] == [0, 20, 40, 60, 80]


def test_many_sizes_are_counted_as_others(monkeypatch):
    monkeypatch.setattr("unified_rl.data.inspection.SIZES", 2)
    found = inspected(*(text(str(n), "", grey(1, 1 + n)) for n in range(5)))
    assert found.image_sizes == {"1 x 1": 1, "2 x 1": 1, "(further sizes)": 3}


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "</article></main><iframe src=//example.org>",
    "javascript:alert(1)",
    "\u202egnp.exe\x00\x1b[31m",
]


class Tags(HTMLParser):
    """The tags of a page, and what their attributes say."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("words", HOSTILE)
def test_page_escapes_what_data_says(words):
    sample = text(
        f"id {words}",
        words,
        grey(4, 4),
        target=(Text(words), grey(300, 200)),
        facts={words: words},
    )
    plain = text("id", "words", grey(4, 4), target=(Text("words"), grey(300, 200)), facts={"a": 1})
    pages = []
    for each in (sample, plain):
        found = inspected(each)
        found.name = each.id
        found.reasons = [(each.id, 1)]
        pages.append(Tags())
        pages[-1].feed(contact_sheet(each.id, [found], each.id))
    hostile, tame = pages
    assert hostile.tags == tame.tags
    assert [key for key, _ in hostile.attributes] == [key for key, _ in tame.attributes]
    sources = [value for key, value in hostile.attributes if key in ("src", "href")]
    assert len(sources) == 2 and all(re.match(r"data:image/(png|jpeg);", src) for src in sources)
    assert not re.search("[\u202a-\u202e\x00\x1b]", "".join(hostile.texts))
    if words.startswith("{{"):
        assert any("{{ 7 * 7 }}" in shown for shown in hostile.texts)


def test_page_is_small_whatever_is_shown():
    many = [grey(40, 40)] * 30
    large = text("a", "x" * 10**6, grey(3000, 2000), *many)
    page = contact_sheet("t", [inspected(large)], "")
    assert len(page) < 60_000
    assert 'title="2000 x 3000"' in page and 'width="117" height="176"' in page
    assert "(and 23 more pictures)" in page  # 31 of which 8 are shown


def test_drawings_of_codes_are_described():
    page = contact_sheet("t", [inspected(text("a", "x", DrawnImage(np.zeros((9, 2), int))))], "")
    assert "(a drawing of 9 positions)" in page
