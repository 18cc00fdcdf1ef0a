"""Scores of a picture from the answers to its questions."""

from collections.abc import Mapping

from unified_rl.evaluation.drawings.question_graphs import QuestionGraph


def cascading(graph: QuestionGraph, answers: Mapping[int, bool]) -> float:
    """The share of questions answered yes whose parents have not scored 0, in [0, 1].

    Scores are set to 0 one question after another, in the order of the table, so a 0 goes on to
    the questions behind it; to those that stand before their parent it does not.

    Source: DPG-Bench (ELLA, arXiv 2403.05135), compute_dpg_bench.py.

    Args:
        graph: of the picture's prompt, no parents lost.
        answers: to each of its questions.
    """
    scores = {number: float(answers[number]) for number in graph.questions}
    for number, parents in graph.parents.items():
        if any(scores[parent] == 0 for parent in parents):
            scores[number] = 0.0
    return sum(scores.values()) / len(scores)


def filtered(graph: QuestionGraph, answers: Mapping[int, bool]) -> float:
    """The share of questions answered yes whose parents are all answered yes too, in [0, 1].

    A child whose parent only scores 0 because of a grandparent keeps its score.

    Source: DSG (arXiv 2310.18235), vqa_utils.py, `calc_vqa_score`: where a prompt's dependencies
    cannot all be read as numbers, it has none (eight prompts of DSG-1K).
    Departs: the released code fails on a parent that no question has (`tifa160_134`, whose first
    question is missing); here such a parent is passed over.
    """
    if graph.unclear:
        return plain(graph, answers)
    right = sum(
        answers[number] and all(answers.get(parent, True) for parent in parents)
        for number, parents in graph.parents.items()
    )
    return right / len(graph.questions)


def plain(graph: QuestionGraph, answers: Mapping[int, bool]) -> float:
    """The share of questions answered yes, in [0, 1]."""
    return sum(answers[number] for number in graph.questions) / len(graph.questions)
