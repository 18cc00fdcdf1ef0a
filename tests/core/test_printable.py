"""What others wrote steers no terminal."""

from unified_rl.core.errors import DataError
from unified_rl.core.printable import printable
from unified_rl.data.quarantine import ReasonCounts
from unified_rl.runtime.explaining import explain

HOSTILE = "a\x1b[2Jb\nc\u202ed\ud800é猫"
SHOWN = "a [2Jb c d é猫"


def test_controls_line_ends_and_halves_of_pairs_become_spaces():
    assert printable(HOSTILE) == SHOWN


def test_an_error_and_a_reason_show_nothing_else():
    assert explain(DataError(HOSTILE)) == (SHOWN, 2)
    reasons = ReasonCounts()
    reasons.put(f"has no text; known: {HOSTILE}")
    assert reasons.most_common() == [(f"has no text; known: {SHOWN.replace('2', '..')}", 1)]
