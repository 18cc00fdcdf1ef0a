"""Graphs of questions: how they are read and what answers are worth, by hand."""

import csv

import pytest

from unified_rl.core.errors import DataError
from unified_rl.evaluation.drawings.graph_scores import cascading, filtered, plain
from unified_rl.evaluation.drawings.question_graphs import COLUMNS, read_graphs


def table(tmp_path, rows, columns=COLUMNS):
    """Rows (item, number, dependency) or (item, number, dependency, tuple)."""
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for item, number, dependency, *kind in rows:
            writer.writerow(
                {
                    "item_id": item,
                    "text": f"prompt {item}",
                    "proposition_id": number,
                    "dependency": dependency,
                    "tuple": kind[0] if kind else "entity - whole (dog)",
                    "question_natural_language": f"{item}, {number}?",
                }
            )
    return path


CHAIN = [("a", "1", "0"), ("a", "2", "1"), ("a", "3", "2"), ("a", "4", "1, 3")]


def test_a_table_is_read(tmp_path):
    rows = [*CHAIN, ("b", 7, "0", "attribute - color (dog, red)")]
    graphs = read_graphs(table(tmp_path, rows))
    assert list(graphs) == ["a", "b"]
    assert graphs["a"].text == "prompt a"
    assert graphs["a"].questions == {1: "a, 1?", 2: "a, 2?", 3: "a, 3?", 4: "a, 4?"}
    assert graphs["a"].parents == {1: (), 2: (1,), 3: (2,), 4: (1, 3)}
    assert graphs["b"].categories == {7: "attribute - color"}


def test_scores_by_hand(tmp_path):
    graph = read_graphs(table(tmp_path, CHAIN))["a"]
    # 1 no, the rest yes. DPG: 2 falls with 1, 3 with 2, 4 with 1: nothing is left.
    answers = {1: False, 2: True, 3: True, 4: True}
    assert cascading(graph, answers) == 0
    # DSG: 2 and 4 fall with 1; 3 stays, as 2 was answered yes.
    assert filtered(graph, answers) == 1 / 4
    assert plain(graph, answers) == 3 / 4
    everything = dict.fromkeys(answers, True)
    assert cascading(graph, everything) == filtered(graph, everything) == 1


def test_a_zero_does_not_run_back_to_questions_before(tmp_path):
    # 1 depends on 2, which depends on 3: when 1 is looked at, 2 still has its 1
    graph = read_graphs(table(tmp_path, [("a", 1, "2"), ("a", 2, "3"), ("a", 3, "0")]))["a"]
    assert cascading(graph, {1: True, 2: True, 3: False}) == 1 / 3


def test_dependencies_that_are_no_numbers_leave_a_prompt_without_any(tmp_path):
    """As in DSG-1K, where a keyword has slipped into the numbers of ten questions."""
    graph = read_graphs(table(tmp_path, [("a", 1, "0"), ("a", 2, "1, right")]))["a"]
    assert graph.unclear
    assert filtered(graph, {1: False, 2: True}) == 1 / 2


def test_a_parent_that_no_question_has_is_passed_over_and_known(tmp_path):
    graph = read_graphs(table(tmp_path, [("a", 2, "1"), ("a", 3, "2")]))["a"]
    assert graph.lost_parents == {1}
    assert filtered(graph, {2: True, 3: True}) == 1


def test_the_first_row_can_be_skipped_as_the_official_loader_does(tmp_path):
    graphs = read_graphs(table(tmp_path, [*CHAIN, ("b", 1, "0")]), skip_first_row=True)
    assert list(graphs["a"].questions) == [2, 3, 4]
    assert graphs["a"].lost_parents == {1}
    assert list(graphs["b"].questions) == [1]


def test_a_prompt_that_comes_again_takes_the_place_of_the_first(tmp_path):
    rows = [("a", 1, "0"), ("b", 1, "0"), ("a", 5, "0")]
    assert list(read_graphs(table(tmp_path, rows))["a"].questions) == [5]


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([], COLUMNS, "no questions"),
        ([("a", "x", "0")], COLUMNS, "row 1 lacks a number"),
        (CHAIN, COLUMNS[:-1], "lacks the columns question_natural_language"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, rows, columns, said):
    with pytest.raises(DataError, match=said):
        read_graphs(table(tmp_path, rows, columns))


def test_hostile_tables_are_refused(tmp_path):
    path = table(tmp_path, CHAIN)
    path.write_bytes(path.read_bytes() + b"a,\xff\xfe\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_graphs(path)
    path.write_text(",".join(COLUMNS) + "\na,b\n")
    with pytest.raises(DataError, match="too few cells"):
        read_graphs(path)
    path.write_text(",".join(COLUMNS) + '\na,"' + "x" * 200_000 + '"\n')
    with pytest.raises(DataError, match="field larger"):
        read_graphs(path)
