"""Results beside each other and beside papers."""

import json
import re

import pytest

from unified_rl.compare import main
from unified_rl.core.errors import DataError
from unified_rl.runtime.comparison import markdown, read_result, tables
from unified_rl.runtime.published_numbers import published_tables


def score(value, spread=0.01):
    return {"value": value, "low": value - spread, "high": value + spread, "n": 9}


def written(tmp_path, name, metrics, suite="geneval", labels=None, settings=None):
    folder = tmp_path / name
    folder.mkdir()
    content = {
        "suite": suite,
        "metrics": metrics,
        "labels": labels or {},
        "settings": settings or {},
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    return folder


OURS = {"geneval": score(0.731), "geneval/two_object": score(0.82), "images_correct": score(0.7)}


def rows(table):
    return {row[0]: row[1:] for row in table.rows}


def test_ours_stands_beside_the_papers(tmp_path):
    made = tables([read_result(str(written(tmp_path, "run", OURS)))])
    assert [t.title for t in made] == [
        "GenEval beside CoRL (arXiv 2505.17534), Table 1",
        "GenEval beside UniRL (arXiv 2505.23380), Table 4",
        "GenEval beside UniRL (arXiv 2505.23380), Table 7",
        "GenEval beside UnifiedGRPO (arXiv 2603.09538), Table 5",
        "GenEval beside CoRL (arXiv 2505.17534), Tables 3 and 4",
    ]
    assert made[0].header == ("model", "two", "counting", "position", "color attr", "overall")
    assert rows(made[0])["ULM-R1 1.5B"] == ("0.85", "0.71", "0.68", "0.80", "0.77")
    assert rows(made[0])["Emu3 8B"] == ("-", "-", "-", "-", "0.66")
    assert rows(made[0])["ours: run"] == (
        *("0.820 [0.810 0.830]", "-", "-", "-"),
        "0.731 [0.721 0.741]",
    )
    assert rows(made[4])["ours: run"] == ("73.10 [72.10 74.10]",)  # that paper has percent


def test_differences_of_detectors_and_protocols_are_marked(tmp_path):
    """One note of both, one of each alone: letters tell them apart."""
    label = {"geneval": "not comparable with published numbers: 3 prompts, published 553"}
    drawing = {"behaviour": {"guidance_scale": 5.0, "image_step_count": 16}, "seed": 3}

    def settings(detector):
        return {"scorer": {"detector": {"detector": detector, "model": "m"}}, "drawing": drawing}

    results = [
        read_result(f"{name}={written(tmp_path, name, OURS, 'geneval', label, settings(name))}")
        for name in ("clay", "glass")
    ]
    table = tables(results)[0]
    assert table.notes == (
        ("a", label["geneval"]),
        ("b", "scorer: m, clay"),
        ("c", "drawn with guidance 5.0, image steps 16, seed 3"),
        ("d", "scorer: m, glass"),
    )
    assert {"ours: clay (a,b,c)", "ours: glass (a,d,c)"} <= rows(table).keys()


def test_suites_without_published_numbers_have_a_table_of_their_own(tmp_path):
    micro = {"generation_accuracy": score(0.8), "generation_accuracy/two": score(0.5)}
    first = written(tmp_path, "a", micro, "micro_world")
    second = written(tmp_path, "b", {"mmie_like": score(50)}, "micro_world")
    (table,) = tables([read_result(str(first)), read_result(str(second / "evaluation.json"))])
    assert table.header == ("results", "generation accuracy", "mmie like")
    assert rows(table) == {
        "a (a)": ("0.800 [0.790 0.810]", "-"),
        "b (a)": ("-", "50.00 [49.99 50.01]"),
    }
    assert "not comparable" in table.notes[0][1]


def test_the_command_prints(tmp_path, capsys):
    folder = written(tmp_path, "run", OURS)
    assert main([f"mine={folder}"]) == 0
    printed = capsys.readouterr().out
    assert "ours: mine" in printed
    assert "0.731 [0.721 0.741]" in printed
    assert main([f"mine={folder}", "--markdown"]) == 0
    assert "| ours: mine | 0.820 \\[0.810 0.830\\] |" in capsys.readouterr().out


def test_hostile_names_stay_text(tmp_path, capsys):
    name = "<script>\x1b[31m|[bold]\n"
    folder = written(tmp_path, "run", {f"m{name}": score(0.5)}, f"s{name}", {}, {"judge": name})
    assert main([f"{name}={folder}"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    page = markdown(tables([read_result(f"{name}={folder}")])[0])
    assert not re.search(r"(?<!\\)<script", page)
    assert "\n[bold]" not in page


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"suite": "a", "metrics": {"m": 1}}',
        '{"suite": "a", "metrics": {"m": {"value": NaN, "low": 0, "high": 1}}}',
        '{"suite": "a", "metrics": {"m": {"value": "x", "low": 0, "high": 1}}}',
    ],
)
def test_files_of_something_else_are_refused(tmp_path, capsys, content):
    path = tmp_path / "evaluation.json"
    path.write_text(content)
    with pytest.raises(DataError):
        read_result(str(path))
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} ")


def test_a_missing_file_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert "does not exist; give an evaluation.json" in capsys.readouterr().err


@pytest.mark.parametrize("table", published_tables(), ids=lambda t: f"{t.suite}, {t.source}")
def test_published_tables_are_whole(table):
    assert re.search(r"\(arXiv \d{4}\.\d{5}\), Tables? \d", table.source)
    for name, values in table.rows.items():
        assert len(values) == len(table.columns), name
        for value in values:
            assert value is None or 0 <= value <= 100


@pytest.mark.parametrize(
    "table",
    [t for t in published_tables() if t.suite == "geneval" and "single" in t.columns],
    ids=lambda t: t.source,
)
def test_overall_is_the_mean_of_the_six_where_all_are_printed(table):
    """A check of the transcription. UniRL's own overall numbers are off by up to .017."""
    for name, (*six, overall) in table.rows.items():
        assert sum(six) / 6 == pytest.approx(overall, abs=0.02), name
