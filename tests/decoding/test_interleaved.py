"""The grammar of a completion, with a script in place of the policy's choice of words."""

import pytest
import torch

from tests.toys import build
from unified_rl.core.behaviour import Behaviour
from unified_rl.decoding.interleaved import columns_needed, interleave
from unified_rl.decoding.session import Session
from unified_rl.decoding.tape import Columns, stack

WORD, END, ASK = 20, 2, 9
BEGIN, CLOSE = 6, 7
CODE = "c"


@pytest.fixture
def policy():
    policy = build("vila_u")
    assert policy.end_of_text_id == END
    assert policy.image_trigger_id == ASK
    assert (policy.begin_of_image_id, policy.end_of_image_id) == (BEGIN, CLOSE)
    return policy


def decode(policy, scripts, starts_with_image=None, may_continue=None, **limits):
    """Each row's columns behind the prompt, its segments, and whether it finished."""
    count = len(scripts)
    behaviour = Behaviour(**{"max_text_tokens": 4, "max_image_count": 2, **limits})
    queues = [list(script) for script in scripts]

    def scripted(hidden, behaviour):
        # All rows that write do so at the same call; the words of the others are not read.
        log_probs = torch.full((count, policy.text_vocabulary_size), -torch.inf)
        for row, queue in enumerate(queues):
            log_probs[row, queue.pop(0) if queue else WORD] = 0.0
        return log_probs

    policy.text_log_distribution = scripted
    prompt = stack(
        [Columns(policy.capabilities.code_depth).text([1])] * count,
        torch.zeros(count, 0, 3, 24, 24),
        left=True,
    )
    columns = columns_needed(policy, behaviour.max_text_tokens, behaviour.max_image_count)
    session = Session(policy, prompt, behaviour, torch.Generator().manual_seed(0), columns)
    no, yes = [False] * count, [True] * count
    with torch.no_grad():
        finished = interleave(
            session, torch.tensor(starts_with_image or no), torch.tensor(may_continue or yes)
        )
    tape = session.trajectory().tape
    rows = []
    for ids, kind, segment in zip(tape["ids"], tape["kind"], tape["segment"], strict=True):
        own = segment >= 0
        tokens = [CODE if k == 2 else int(i) for i, k in zip(ids[own, 0], kind[own], strict=True)]
        rows.append((tokens, segment[own].tolist()))
    return rows, finished.tolist()


IMAGE = [BEGIN, *[CODE] * 9]


def test_text_ends_at_its_end(policy):
    rows, finished = decode(policy, [[WORD, END]])
    assert rows == [([WORD, END], [0, 0])]
    assert finished == [True]


def test_a_story_by_hand(policy):
    rows, finished = decode(policy, [[WORD, ASK, WORD, ASK, END]])
    picture = [*IMAGE, CLOSE]
    expected = [WORD, ASK, *picture, WORD, ASK, *picture, END]
    assert rows == [(expected, [0] * 2 + [1] * 11 + [2] * 2 + [3] * 11 + [4])]
    assert finished == [True]


def test_a_drawing_by_hand(policy):
    rows, finished = decode(policy, [[]], [True], [False])
    assert rows == [(IMAGE, [0] * 10)]
    assert finished == [True]


def test_text_is_cut_at_its_limit(policy):
    rows, finished = decode(policy, [[WORD] * 9], max_text_tokens=3)
    assert rows == [([WORD] * 3, [0] * 3)]
    assert finished == [False]


def test_images_are_cut_at_their_limit(policy):
    rows, finished = decode(policy, [[ASK, ASK]], max_image_count=1)
    assert rows == [([ASK, *IMAGE, CLOSE, ASK], [0] + [1] * 11 + [2])]
    assert finished == [False]


def test_who_may_not_draw_gets_no_image(policy):
    rows, finished = decode(policy, [[WORD, ASK]], may_continue=[False])
    assert rows == [([WORD, ASK], [0, 0])]
    assert finished == [False]


def test_the_longest_completion_fits(policy):
    longest = [WORD, WORD, WORD, ASK] * 2 + [WORD] * 4
    rows, _ = decode(policy, [longest])
    assert len(rows[0][0]) == 3 * 4 + 2 * 11


def test_rows_wait_for_each_other(policy):
    # The second row ends while the first draws, the third only draws.
    scripts = [[WORD, WORD, ASK, END], [END], [WORD] * 4]
    together, finished = decode(policy, scripts, [False, False, True], [True, True, False])
    assert together[0] == ([WORD, WORD, ASK, *IMAGE, CLOSE, END], [0] * 3 + [1] * 11 + [2])
    assert together[1] == ([END], [0])
    assert together[2] == (IMAGE, [0] * 10)
    assert finished == [True, True, True]
