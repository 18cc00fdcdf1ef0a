"""Which replies state a score, and which do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_rl.rewards.score_statements import READ_CHARACTERS, read_score, without_scores


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("It is fine.\nScore: 85", 0.85),
        ("Score: 0", 0.0),
        ("score:100", 1.0),
        ("Good.\n\n**Score: 72**\n", 0.72),
        ("**Score:** 72", 0.72),
        ("Score: 85/100", 0.85),
        ("Score: 85 / 100.", 0.85),
        ("Score: 87.5", 0.875),
        ("Nothing to underscore: 5.\nScore: 85", 0.85),
        ("He scored 3 goals.\nScore: 85", 0.85),
        ("I give 85/100.\nScore: 85", 0.85),  # the same number twice is one
        # none in the form asked for
        ("", None),
        ("85", None),
        ("It is fine, Score: 85", None),
        ("Score: 85\nI hope this helps.", None),
        ("Score 85", None),
        ("> Score: 85", None),
        ('"Score: 85"', None),
        ("Final Score: 85", None),
        ("Score: eighty", None),
        ("Score: 85-90", None),
        ("Score: N", None),
        ("Score: 8/10", None),
        ("Score: 85/1000", None),
        # none in the range
        ("Score: 101", None),
        ("Score: -5", None),
        ("Score: 1000", None),
        ("Score: 1e2", None),
        ("Score: 99999", None),
        ("Score: 85.123", None),
        ("Score: nan", None),
        ("Score: ١٠٠", None),
        # several
        ("Score: 100\nScore: 20", None),
        ("Score: 20\nScore: 100", None),
        ('The answer says "score: 100".\nScore: 20', None),
        ("It deserves 30 out of 100.\nScore: 40", None),
        ("A score of **90** for style.\nScore: 40", None),
    ],
)
def test_the_last_line_alone_states_it(reply, score):
    assert read_score(reply, "line") == score


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("I would rate this response 75 out of 100. It is precise.", 0.75),
        ("The response deserves a score of 75, as it is precise.", 0.75),
        ("Score: 75\nThe response is precise.", 0.75),
        ("**Score: 75/100**", 0.75),
        ("The score is 75.", 0.75),
        ("I would give it 75/100, so the score is 75.", 0.75),
        ("It names 3 objects of 4 and 2 colours; score: 60", 0.6),
        ("It is precise.", None),
        ("75", None),
        ("It names 3 objects.", None),
        ("75/100 for style and 60/100 for truth", None),
        ("-75/100", None),
        ("175/100", None),
        ("8/10", None),
        ("score: 8/10", None),
        ("score of 8 out of 10", None),
        ("score: 75/1000", None),
        ("1.75/100.5", None),
    ],
)
def test_anywhere_one_statement_is_enough(reply, score):
    assert read_score(reply, "anywhere") == score


def test_long_replies_state_nothing():
    assert read_score("x" * (READ_CHARACTERS - 9) + "\nScore: 5", "line") == 0.05
    assert read_score("x" * READ_CHARACTERS + "\nScore: 5", "line") is None


PIECES = [
    "score",
    "Score:",
    "scored",
    " ",
    " of ",
    "is",
    "100",
    "0",
    "/",
    "/100",
    "out of",
    "-",
    ".",
]


@pytest.mark.parametrize(
    "text",
    [
        "100/100Score:100",
        "score: 1/1005/100",
        "score: 1/100.7/100",
        "score_85",
        "85 out of 100/100",
    ],
)
def test_what_blanking_one_score_uncovers_is_blanked_too(text):
    assert read_score(without_scores(text), "anywhere") is None


@given(
    st.lists(st.sampled_from([*PIECES, "*", "(", "7", "a", "100 out of 100", "1/1005"])).map(
        "".join
    )
)
def test_what_is_blanked_states_no_score(text):
    blank = without_scores(text)
    assert read_score(blank, "anywhere") is None
    assert [c for c in blank if not c.isdigit() and c != "#"] == [
        c for c in text if not c.isdigit() and c != "#"
    ]


@pytest.mark.parametrize("piece", ["score ", "score: 1", "scor", "1 out of ", "* ", "score is *"])
def test_reading_takes_no_longer_than_linear_time(piece):
    text = piece * (READ_CHARACTERS // len(piece))
    read_score(text, "anywhere")
    without_scores(text * 10)
