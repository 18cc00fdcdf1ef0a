"""The table of scores in the terminal: which scores it shows."""

from unified_rl.runtime.summary import HEADLINE
from unified_rl.runtime.tables import print_scores

SCORE = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}


def shown(capsys, metrics, headline=None):
    print_scores({"checkpoint": {"metrics": dict.fromkeys(metrics, SCORE)}}, headline)
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    return {row[1].strip(): row[2].strip() for row in rows}


def test_stories_show_their_headline(capsys):
    found = shown(capsys, [*HEADLINE, "coherence", "visual_correctness/step_1"])
    assert list(found) == [name.replace("_", " ") for name in HEADLINE]
    assert set(found.values()) == {"0.500 [.25 .75]"}


def test_another_suite_shows_all_that_is_no_part_of_another(capsys):
    metrics = ["generation_accuracy", "generation_accuracy/position", "open_accuracy"]
    assert list(shown(capsys, metrics)) == ["generation accuracy", "open accuracy"]


def test_a_pipeline_names_what_it_shows(capsys):
    found = shown(capsys, HEADLINE, ["generation_accuracy", "open_accuracy"])
    assert found == {"generation accuracy": "0.500 [.25 .75]", "open accuracy": "-"}


def test_a_benchmark_is_not_called_the_micro_world(capsys):
    print_scores({"checkpoint": {"suite": "geneval", "metrics": {"geneval": SCORE}}})
    printed = capsys.readouterr().out
    assert "geneval (95% interval)" in printed
    assert "micro-world" not in printed
