"""The report shows what the files say, alone, safely, and whatever is missing."""

import csv
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from unified_rl.core.errors import UserError
from unified_rl.evaluation.estimates import Estimate
from unified_rl.evaluation.micro_suite import LABELS
from unified_rl.evaluation.record import Evaluation, GalleryEntry
from unified_rl.evaluation.story_judge import ASPECTS
from unified_rl.microworld.prompts import CATEGORIES
from unified_rl.microworld.render import render
from unified_rl.microworld.stories import paint, stories
from unified_rl.runtime.report import write_report
from unified_rl.runtime.report_figures import smoothed
from unified_rl.runtime.report_inputs import read_curves
from unified_rl.runtime.report_wording import change, duration
from unified_rl.runtime.summary import HEADLINE

HOSTILE = '<script>alert("1")</script><img src=x onerror=1>'
SKILL = {"base": 0.0, "warmup": 0.55, "grpo": 0.8}
SETTINGS = {"story_count": 512, "story_steps": 2, "split": "test", "seed": 0}
PROVENANCE = {
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "seed": 3,
    "config": {"pipeline": {"name": "demo"}, "seed": 3, "paths": {"output": "/somewhere"}},
    "config_hash": "a1b2c3d4e5f6",
    "hardware": {"machine": "x86_64", "processor": "a processor", "cpus": 16, "gpu": None},
    "versions": {"python": "3.11.0", "torch": "2.13.0"},
}
STAGES = {
    "warmup": {"iterations": 200, "optimisation": {"learning_rate": 1e-3, "schedule": "cosine"}},
    "grpo": {
        "iterations": 120,
        "group_size": 4,
        "level": "outcome",
        "optimisation": {"learning_rate": 1.5e-4, "schedule": "constant"},
        "objective": {"beta": 0.02, "clip_low": 0.2, "clip_high": 0.2},
        "reward": {
            "components": {
                "format": {"weight": 1.0},
                "textual": {"weight": 1.0},
                "visual": {"weight": 1.0},
                "coherence": {"weight": 0.0},
            }
        },
    },
}


def evaluation(phase, prompts=None):
    skill, rng = SKILL[phase], np.random.default_rng(list(phase.encode()))

    def score(mean, scale=1.0, n=512):
        value = float(np.clip(mean + rng.normal(0, 0.01), 0, 1))
        half = 1.96 * (value * (1 - value) / n) ** 0.5 + 0.004
        return Estimate(value, max(0, value - half), min(1, value + half), n).scaled(scale)

    metrics = {
        "format_validity": score(min(1, skill * 1.7)),
        "text_relevance": score(skill + 0.15),
        "visual_correctness": score(skill),
        "visual_correctness/step_1": score(min(1, skill * 1.15)),
        "visual_correctness/step_2": score(skill * 0.85),
        "joint_correctness": score(skill * 0.8),
        "consistency": score(skill * 0.9),
        "coherence": score(skill * 0.95),
    }
    metrics |= {f"interleavedbench_like/{aspect}": score(skill, 5) for aspect in ASPECTS}
    metrics["interleavedbench_like/average"] = score(skill, 5)
    metrics["mmie_like"] = score(skill, 100)
    for name, level in (("generation_accuracy", 0.6), ("understanding_accuracy", 0.82)):
        metrics[name] = score(level + 0.05 * skill, n=600)
        metrics |= {f"{name}/{c}": score(rng.uniform(0.3, 0.95), n=100) for c in CATEGORIES}
    gallery = []
    for story in stories("test")[:12]:
        pixels = [render(scene) for scene in paint(story, rng)]
        right = tuple(bool(rng.random() < skill) for _ in pixels)
        wrong = [np.ascontiguousarray(p[::-1, :, ::-1]) for p in pixels]
        texts = tuple(f"<think> {step.text} <vis>" for step in story.steps)
        if phase == "base":
            texts, pixels, right = ("a red circle and a red circle",), [], (False, False)
        shown = tuple(p if ok else w for p, w, ok in zip(pixels, wrong, right, strict=False))
        gallery.append(GalleryEntry(story.prompt, texts, shown, right, phase != "base"))
    if phase == "grpo":  # one picture too many in the second, one too few in the third
        gallery[1] = dataclasses.replace(gallery[1], images=(*gallery[1].images, pixels[0]))
        gallery[2] = dataclasses.replace(gallery[2], images=gallery[2].images[:1])
    for number, prompt in enumerate(prompts or ()):
        gallery[number] = dataclasses.replace(gallery[number], prompt=prompt, texts=(prompt,))
    return Evaluation("micro_world", SETTINGS, metrics, LABELS, tuple(gallery))


def training_rows(phase):
    rng = np.random.default_rng(1)
    for step in range(STAGES[phase]["iterations"]):
        t = step / STAGES[phase]["iterations"]
        noise = rng.normal(0, 1, 12)
        row = {"step": step, "iteration": step, "epoch": 0, "skipped_steps": 0.0}
        row["gradient_norm"] = 0.4 + 4 * np.exp(-8 * t) + 0.1 * abs(noise[0])
        if phase == "warmup":
            row["text_nll"] = 0.1 + 3 * np.exp(-9 * t) + 0.03 * abs(noise[1])
            row["image_nll"] = 0.9 + 2 * np.exp(-4 * t) + 0.05 * noise[2]
            row["loss"] = row["text_nll"] + row["image_nll"]
            yield row
            continue
        parts = {"format": 0.95 + 0.04 * t, "textual": 0.7 + 0.25 * t, "visual": 0.5 + 0.3 * t}
        for n, (name, level) in enumerate({**parts, "coherence": 0.6 + 0.2 * t}.items()):
            row[name] = min(1, level + 0.04 * noise[n])
            row[f"{name}_share"] = 0.3
        row["reward"] = sum(row[name] for name in parts)
        row |= {"kl": 0.3 * t + 0.02 * abs(noise[4]), "ratio_mean": 1.0, "clip_fraction": 0.0}
        row |= {"text_entropy": 0.2 - 0.1 * t + 0.01 * noise[5]}
        row |= {"image_entropy": 0.8 - 0.4 * t + 0.03 * noise[6]}
        row |= {"frac_reward_zero_std": float(np.clip(0.2 + 0.3 * t + 0.1 * noise[7], 0, 1))}
        row |= {"rollout_s": 0.8 + 0.05 * noise[8], "reward_s": 0.1, "update_s": 0.9}
        yield {key: value for key, value in row.items() if key != "reward"}
        yield {"step": step, "epoch": 0, "reward": row["reward"]}  # Lightning may split a step


def write_metrics(path, rows):
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)


def write_summary_of(root, phases, config=PROVENANCE["config"]):
    summary = {}
    for phase in phases:
        scores = evaluation(phase).to_json()["metrics"]
        summary[phase] = {key: scores[key] for key in HEADLINE}
        summary[phase] |= {"wall_s": {"train_s": 185.2, "evaluate_s": 42.0}, "checkpoint": None}
    summary["scale"] = "micro-world; not comparable with the papers' numbers"
    summary["provenance"] = {**PROVENANCE, "config": config}
    (root / "summary.json").write_text(json.dumps(summary))


def write_pipeline(root, phases=tuple(SKILL), prompts=None, config=PROVENANCE["config"]):
    for phase in phases:
        evaluation(phase, prompts).write(root / phase, PROVENANCE)
        if phase in STAGES:
            write_metrics(root / phase / "metrics" / "metrics.csv", list(training_rows(phase)))
            card = {**PROVENANCE, "config": {"stage": STAGES[phase]}, "iterations": 120}
            (root / phase / "result.json").write_text(json.dumps(card))
    write_summary_of(root, phases, config)


class Page(HTMLParser):
    """Tags with their attributes, and cells of table rows by the row's first line."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.words, self.cells = [], {}, [], None
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.cells = []
        elif tag in ("td", "th") and self.cells is not None:
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag == "tr" and self.cells:
            head, *rest = [" ".join(cell.split()) for cell in self.cells]
            self.rows.setdefault(head, rest)

    def handle_data(self, data):
        self.words.append(data)
        if self.cells:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    write_pipeline(root)
    return root, write_report(root).read_text()


def test_report_lies_in_the_pipelines_folder_alone(demo):
    root, _ = demo
    assert {p.name for p in root.iterdir()} == {*SKILL, "summary.json", "report.html"}


def test_page_asks_nothing_of_the_network(demo):
    text = demo[1]
    assert not re.search(r"https?:", text) and "@import" not in text
    assert not {tag for tag, _ in Page(text).tags} & {"script", "link", "iframe", "object"}
    for _, attributes in Page(text).tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_table_shows_the_numbers_of_the_files(demo):
    root, text = demo
    rows = Page(text).rows
    for name in HEADLINE:
        (key,) = [k for k in rows if k.startswith(name.replace("_", " "))]
        for cell, phase in zip(rows[key], SKILL, strict=False):
            scores = json.loads((root / phase / "evaluation.json").read_text())["metrics"][name]
            value, low, high = (f"{100 * scores[end]:.1f}" for end in ("value", "low", "high"))
            assert cell.startswith(f"{value} [{low}, {high}]"), (name, phase)


def test_gain_of_the_last_phase_is_relative_to_the_one_before(demo):
    root, text = demo
    old, new = (
        json.loads((root / p / "evaluation.json").read_text())["metrics"]["joint_correctness"]
        for p in ("warmup", "grpo")
    )
    assert f"{100 * (new['value'] / old['value'] - 1):+.0f}%" in Page(text).text


def test_stories_are_the_first_prompts_of_the_gallery(demo):
    root, text = demo
    prompts = [e["prompt"] for e in json.loads((root / "base" / "gallery.json").read_text())]
    page = Page(text)
    assert all(prompt in page.text for prompt in prompts[:8])
    assert prompts[8] not in page.text
    assert "unselected" in page.text
    assert page.text.count("no image") == 8 * 2 + 1  # the base's, and one that GRPO left out


def test_pictures_say_whether_they_are_right(demo):
    pictures = [a for tag, a in Page(demo[1]).tags if tag == "img"]
    assert len(pictures) == 2 * 8 * 2 + 1 - 1  # one too many, one missing
    assert all("right" in a["alt"] or "wrong" in a["alt"] for a in pictures)


@pytest.mark.parametrize("title", ["Loss by modality", "Total reward", "Reward: coherence"])
def test_curves_are_drawn(demo, title):
    assert ("div", {"role": "img", "aria-label": f"Curve: {title}"}) in Page(demo[1]).tags


def test_metrics_that_never_move_are_told_not_drawn(demo):
    text = Page(demo[1]).text
    assert "Importance ratio (mean): 1 throughout." in text
    assert not any("Importance" in a.get("aria-label", "") for _, a in Page(demo[1]).tags)


def test_where_files_lay_is_not_shown(demo):
    assert "/somewhere" not in demo[1] and str(demo[0]) not in demo[1]


def test_command_repeats_the_seed(demo):
    assert 'make demo ARGS="seed=3"' in Page(demo[1]).text


def test_command_repeats_what_hydra_wrote_down(tmp_path):
    write_summary_of(tmp_path, ["base"])
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- pipeline=demo\n- threads=4\n- seed=5\n")
    assert 'make demo ARGS="threads=4 seed=5"' in Page(write_report(tmp_path).read_text()).text


def test_text_from_files_is_escaped(tmp_path):
    write_pipeline(tmp_path, ["base"], prompts=[HOSTILE], config={"note": HOSTILE})
    text = write_report(tmp_path).read_text()
    assert "<script" not in text and "<img src=x" not in text
    assert Page(text).text.count(HOSTILE) == 3  # prompt, thought, configuration


@pytest.mark.parametrize("phases", [[], ["base"], ["warmup", "grpo"], list(SKILL)])
def test_what_was_not_written_is_left_out(tmp_path: Path, phases):
    write_summary_of(tmp_path, phases)
    text = write_report(tmp_path).read_text()
    for title in ("Before and after", "Training:", "By category", "Stand-ins"):
        assert title not in text
    assert "Joint correctness" in text or not phases


def test_phase_that_only_trained_has_its_curves(tmp_path):
    write_metrics(tmp_path / "codec" / "metrics" / "metrics.csv", list(training_rows("warmup")))
    (tmp_path / "summary.json").write_text(json.dumps({"codec": {"wall_s": {}}}))
    assert "Training: codec" in write_report(tmp_path).read_text()


def test_missing_summary_is_told():
    with pytest.raises(UserError, match="summary.json is missing"):
        write_report(Path("nowhere"))


def test_a_failed_write_leaves_the_old_report(tmp_path, monkeypatch):
    write_summary_of(tmp_path, ["base"])
    (tmp_path / "report.html").write_text("old")

    def fail(self, target):
        assert Path(target).read_text() == "old" and self.read_text().endswith("</html>")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"


def test_rows_of_one_step_belong_together(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("iteration,kl,reward,step\n0,0.5,,0\n,,1.5,0\n1,,nan,3\n1,0.7,2.5,3\n2,x")
    curves = read_curves(path)
    assert [part.tolist() for part in curves["kl"]] == [[0, 1], [0.5, 0.7]]
    assert [part.tolist() for part in curves["reward"]] == [[0, 1], [1.5, 2.5]]


def test_running_mean_takes_what_there_is_at_the_ends():
    values = np.zeros(48)  # half a window is 48 // 24 = 2
    values[1] = 30.0
    assert smoothed(values)[:5].tolist() == [30 / 3, 30 / 4, 30 / 5, 30 / 5, 0.0]


@pytest.mark.parametrize(
    ("new", "verdict"), [((0.3, 0.25, 0.35), "up"), ((0.25, 0.2, 0.3), "same"), ((0, 0, 0), "down")]
)
def test_change_counts_where_intervals_lie_apart(new, verdict):
    old = {"value": 0.2, "low": 0.16, "high": 0.24}
    found = change(dict(zip(("value", "low", "high"), new, strict=True)), old)
    assert found["verdict"] == verdict
    assert found["points"] == pytest.approx(100 * (new[0] - 0.2))


def test_change_from_nothing_has_no_ratio():
    nothing = {"value": 0.0, "low": 0.0, "high": 0.01}
    assert change(nothing, nothing)["relative"] is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(44.6, "45 s"), (185.2, "3 min 05 s"), (7440, "2 h 04 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
