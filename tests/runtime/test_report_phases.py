"""The page of phases that branch shows what the files say, safely, and what is missing."""

import json
import re

import numpy as np
import pytest

from tests.runtime.test_report import HOSTILE, PROVENANCE, Page, write_metrics
from unified_rl.evaluation.estimates import Estimate
from unified_rl.evaluation.record import Evaluation, GalleryEntry
from unified_rl.runtime.report import write_report

HEADLINE = ["generation_accuracy", "choice_accuracy", "reasoning_format"]
ENTRIES = [
    {"name": "base", "experiment": "corl/micro_base"},
    {"name": "left", "experiment": "corl/micro_refined_mc", "from": "base"},
    {"name": "right", "experiment": "corl/micro_refined_oe", "from": "base"},
    {"name": "after", "experiment": "corl/micro_refined_mc", "from": "left"},
    {"name": "merged", "merge": {"rule": "gaussian", "of": ["left", "right"], "base": "base"}},
]
TREE = ["base", "left", "after", "right", "merged"]
SCORES = {"base": 0.5, "left": 0.7, "right": 0.52, "after": 0.4, "merged": 0.75}
PICTURE = np.full((24, 24, 3), 200, np.uint8)
ASKED = np.zeros((24, 24, 3), np.uint8)


def metrics(value):
    around = Estimate(value, value - 0.05, value + 0.05, 504)
    return dict.fromkeys((*HEADLINE, "choice_accuracy/single", "choice_accuracy/two"), around)


def gallery(phase, prompt="a red circle", question="what color", said="red"):
    right = phase != "base"
    form = f"<think> i see <b> </think> <answer> {said} </answer>" if right else said
    return (
        GalleryEntry(prompt, (), (PICTURE,), (right,), True),
        GalleryEntry(prompt, (), (PICTURE,), (not right,), True),  # a prompt may come twice
        GalleryEntry("a blue cross", (), (), (False,), True),
        GalleryEntry(question, (form,), (), (right,), right, (ASKED,)),
    )


def training_rows():
    for step in range(20):
        row = {"step": step, "iteration": step, "reward": 1 + step / 20, "kl": 0.0}
        yield row | {"text_entropy": 1.5 - step / 20, "image_entropy": -0.0}


def write_pipeline(root, names=TREE, entries=ENTRIES, **texts):
    summary = {}
    for name in names:
        evaluation = Evaluation("s", {"split": "test"}, metrics(SCORES[name]), {}, gallery(name))
        if texts:
            hostile = Evaluation("s", {}, evaluation.metrics, {}, gallery(name, **texts))
            evaluation = hostile
        evaluation.write(root / name, PROVENANCE)
        record = {key: m.to_json() for key, m in evaluation.metrics.items() if key in HEADLINE}
        summary[name] = {**record, "wall_s": {"train_s": 61.0}, "checkpoint": None}
        if name != "merged":
            write_metrics(root / name / "metrics" / "metrics.csv", list(training_rows()))
            stage = {"group_size": 8 if name == "right" else 16}
            card = {"config": {"stage": stage, "start": "/somewhere/base/checkpoint"}}
            (root / name / "result.json").write_text(json.dumps({**card, "iterations": 20}))
    write_summary_of(root, summary, entries)


def write_summary_of(root, summary, entries=ENTRIES):
    pipeline = {"name": "corl", "headline": HEADLINE, "phases": entries}
    config = {**PROVENANCE["config"], "pipeline": pipeline}
    summary = {**summary, "scale": "micro", "provenance": {**PROVENANCE, "config": config}}
    (root / "summary.json").write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("corl")
    write_pipeline(root, list(SCORES))
    return write_report(root).read_text()


def test_page_asks_nothing_of_the_network(page):
    assert not re.search(r"https?:", page) and "@import" not in page
    for tag, attributes in Page(page).tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))


def test_table_compares_with_what_a_phase_goes_on_from(page):
    rows = Page(page).rows
    assert [name for name in rows if name in TREE] == TREE
    assert rows["base"] == ["50.0 [45.0, 55.0]"] * 3
    assert rows["left"] == ["70.0 [65.0, 75.0] ▲ +20.0"] * 3
    assert rows["right"] == ["52.0 [47.0, 57.0] ≈ +2.0"] * 3
    assert rows["after"] == ["40.0 [35.0, 45.0] ▼ −30.0"] * 3  # of left, not of base
    assert rows["merged"] == ["75.0 [70.0, 80.0] ▲ +25.0"] * 3


def test_graph_says_what_each_phase_does(page):
    text = Page(page).text
    assert "after trains corl/micro_refined_mc, 20 iterations in 1 min 01 s" in text
    assert "merged gaussian merge of left and right" in text
    depths = re.findall(r'<li style="--depth: (\d)"', page)
    assert depths == ["0", "1", "2", "1", "1"]


def test_dots_have_a_row_for_each_phase(page):
    chart = page[page.index("Dot plot") :]
    chart = chart[: chart.index("</figure>")]
    for name in TREE:
        assert re.search(rf">(\u00a0)*{name}<", chart)
    assert "choice accuracy" in chart
    assert "var(--good)" in chart and "var(--bad)" in chart


def test_drawings_of_the_same_prompt_stand_below_each_other(page):
    assert Page(page).text.count("no image") == 5
    pictures = [a for tag, a in Page(page).tags if tag == "img" and "red circle" in a["alt"]]
    assert [a["alt"].partition(",")[0] for a in pictures] == [n for n in TREE for _ in range(2)]
    drawn = page[page.index("The same prompts") : page.index("The same questions")]
    marks = re.findall(r'aria-label="(right|wrong)"', drawn)
    assert marks == ["wrong", "right"] + 4 * ["right", "wrong"]


def test_questions_show_picture_thought_and_answer(page):
    text = Page(page).text
    assert sum(a.get("alt") == "the picture asked about" for _, a in Page(page).tags) == 1
    assert "✗ base: red out of form" in text
    for name in TREE[1:]:
        assert f"✓ {name}: i see <b> → red" in text


def test_answers_that_a_phase_lacks_are_left_out(tmp_path):
    write_pipeline(tmp_path)
    path = tmp_path / "left" / "gallery.json"
    entries = json.loads(path.read_text())[:3]
    for entry in entries:
        del entry["shown_png"]  # as galleries were written before there were questions
    path.write_text(json.dumps(entries))
    text = Page(write_report(tmp_path).read_text()).text
    assert "✓ after: i see" in text and "✓ right: i see" in text
    assert "left: i see" not in text


def test_text_from_files_is_escaped(tmp_path):
    entries = [{"name": "base", "experiment": HOSTILE, "overrides": [HOSTILE]}]
    write_pipeline(
        tmp_path, ["base"], entries, prompt=HOSTILE, question=HOSTILE + "?", said=HOSTILE
    )
    text = write_report(tmp_path).read_text()
    assert "<script" not in text and "<img src=x" not in text
    assert Page(text).text.count(HOSTILE) >= 5  # experiment, override, prompt, question, answer


def test_names_are_not_read_as_formulas(tmp_path):
    write_summary_of(tmp_path, {r"$\oops$": {HEADLINE[0]: metrics(0.5)[HEADLINE[0]].to_json()}})
    assert r">$\oops$<" in write_report(tmp_path).read_text()


@pytest.mark.parametrize("names", [[], ["base"], ["base", "merged"]])
def test_what_was_not_written_is_left_out(tmp_path, names):
    write_summary_of(tmp_path, {name: {"wall_s": {}} for name in names})
    text = Page(write_report(tmp_path).read_text()).text
    for title in ("Scores", "The same", "By category", "Training"):
        assert title not in text


def test_curves_leave_out_what_a_training_never_does(page):
    text = Page(page).text
    assert "KL to the reference (nats): 0 throughout." in text
    labels = [a.get("aria-label") for _, a in Page(page).tags]
    assert labels.count("Curve: Total reward") == 4  # the merge has none
    entropy = page[page.index("Curve: Entropy by modality") - 400 :][:400]
    assert "</span>text</li>" in entropy and "</span>image</li>" not in entropy


def test_phases_trained_alike_share_a_column_of_settings(page):
    rows = Page(page).rows
    assert rows["setting"] == ["base, left, after", "right"]
    assert rows["completions a prompt (G)"] == ["16", "8"]


def test_categories_have_a_row_for_each_phase(page):
    assert "single" in Page(page).rows["per cent, strict"]
    after = page[page.index("By category") :]
    assert Page(after).rows["after"] == ["40.0 [35.0, 45.0]"] * 2


def test_where_files_lay_is_not_shown(page):
    assert "/somewhere" not in page and "start: base/checkpoint" in page


def test_command_names_the_pipeline(page):
    assert "python -m unified_rl.pipeline pipeline=corl seed=3" in Page(page).text
