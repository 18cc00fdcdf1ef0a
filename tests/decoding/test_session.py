"""One session: cached states equal whole passes, gaps leave no trace, a peek keeps nothing."""

import dataclasses

import pytest
import torch

from tests.toys import FAMILIES, build
from tests.toys.samples import drawings, questions
from tests.toys.watching import rows_read
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import TrainingError
from unified_rl.decoding.session import Session
from unified_rl.decoding.tape import Columns, Kind, Tape

TOLERANCE = 1e-5


@pytest.fixture(params=FAMILIES)
def policy(request):
    return build(request.param)


def begin(policy, prompts, columns=12, **behaviour):
    rows = [Columns(policy.capabilities.code_depth).text(prompt) for prompt in prompts]
    return start(policy, rows, columns, **behaviour)


def start(policy, rows, columns=12, draws=None, **behaviour):
    size = policy.capabilities.image_size
    tape = policy._tape(rows, torch.zeros(len(rows), 0, 3, size, size), left=True)
    return Session(policy, tape, Behaviour(**behaviour), torch.Generator(), columns, draws)


def say(session, tokens, rows=None):
    """Pushes one word a row."""
    ids = torch.zeros(session.rows, 1, session.depth, dtype=torch.long)
    ids[:, 0, 0] = torch.tensor(tokens)
    rows = torch.tensor(rows or [True] * session.rows)
    session.push(ids, torch.tensor([Kind.TEXT]), rows, torch.zeros(session.rows, dtype=torch.long))


@torch.no_grad()
def whole(policy, session):
    """The last state of each row in a pass without cache."""
    tape = Tape(*(session.trajectory().tape[name] for name in Tape._fields))
    last = tape.valid.sum(1) - 1
    return policy.read(tape)[torch.arange(session.rows), last]


@torch.no_grad()
def test_cached_states_equal_a_whole_pass(policy):
    session = begin(policy, [[1, 20, 21, 22], [1, 30]])
    for tokens in ([23, 24], [25, 26], [27, 28]):
        say(session, tokens)
    assert (session.conditional - whole(policy, session)).abs().max() <= TOLERANCE


@torch.no_grad()
def test_gaps_leave_no_trace(policy):
    session = begin(policy, [[1, 20, 21], [1, 30]])
    for tokens, rows in (([23, 24], None), ([25, 9], [True, False]), ([27, 28], None)):
        say(session, tokens, rows)
    alone = begin(policy, [[1, 30]])
    say(alone, [24])
    say(alone, [28])
    assert (session.conditional[1] - alone.conditional[0]).abs().max() <= TOLERANCE
    assert session.trajectory().tape["ids"][1, :4, 0].tolist() == [1, 30, 24, 28]


@torch.no_grad()
def test_a_row_in_a_gap_keeps_its_state(policy):
    session = begin(policy, [[1, 20], [1, 30]])
    before = session.conditional.clone()
    say(session, [23, 24], [True, False])
    assert torch.equal(session.conditional[1], before[1])
    assert not torch.equal(session.conditional[0], before[0])


@torch.no_grad()
def test_twins_do_not_know_the_prompt(policy):
    if policy.template.unconditional is None:  # as long as the prompt
        one = begin(policy, [[1, 20, 21], [1, 30, 31]], guidance_scale=2.0)
    else:
        rows = [policy._prompt_columns(sample) for sample in drawings(2)]
        one = start(policy, rows, guidance_scale=2.0)
    assert (one.unconditional[0] - one.unconditional[1]).abs().max() <= TOLERANCE
    assert (one.conditional[0] - one.conditional[1]).abs().max() > 1e-2


@torch.no_grad()
def test_no_twins_without_guidance(policy):
    assert begin(policy, [[1, 20]]).unconditional is None


@torch.no_grad()
def test_a_session_that_draws_nothing_may_do_without_twins(policy):
    rows = [Columns(policy.capabilities.code_depth).text([1, 20, 21])]
    twice = start(policy, rows, guidance_scale=2.0)
    alone = start(policy, rows, draws=torch.tensor([False]), guidance_scale=2.0)
    assert twice.unconditional is not None
    assert alone.unconditional is None
    for session in (twice, alone):
        say(session, [23])
    assert (alone.conditional - twice.conditional).abs().max() <= TOLERANCE
    assert alone.trajectory().behaviour == Behaviour(guidance_scale=2.0)


def peek(session, codes):
    """Hidden states of a block of codes in an image's place."""
    ids = torch.tensor(codes)[None, :, None].expand(1, -1, session.depth)
    kind = torch.full((len(codes),), int(Kind.CODE))
    return session.peek(ids, kind, torch.tensor([True]), torch.tensor([0]))


@torch.no_grad()
def test_a_peek_keeps_nothing(policy):
    peeked, plain = begin(policy, [[1, 20]]), begin(policy, [[1, 20]])
    peek(peeked, [1, 2, 3, 4])
    for session in (peeked, plain):
        say(session, [23])
        say(session, [24])
    assert torch.equal(peeked.conditional, plain.conditional)
    assert torch.equal(peeked.trajectory().tape["kind"], plain.trajectory().tape["kind"])


@torch.no_grad()
def test_who_sees_an_image_whole(policy):
    first, second = (peek(begin(policy, [[1, 20]]), [1, 2, 3, last])[:, 0] for last in (4, 5))
    moved = (first - second).abs().max()
    if policy.capabilities.likelihood == "mask_predict":
        assert moved > 1e-3
    else:
        assert moved == 0


@torch.no_grad()
def test_running_past_the_columns_is_an_error(policy):
    session = begin(policy, [[1, 20]], columns=1)
    say(session, [23])
    with pytest.raises(RuntimeError, match="3 columns"):
        say(session, [24])


@torch.no_grad()
def test_a_group_reads_its_prompt_once(policy, monkeypatch):
    shown = [questions(1)[0]] * 3 + [drawings(1)[0]] * 2
    copies = [dataclasses.replace(sample) for sample in shown]  # equal, but not the same
    read = rows_read(policy, monkeypatch)
    behaviour = Behaviour(max_text_tokens=3, guidance_scale=2.0)
    found = []
    for samples in (shown, copies):
        read.clear()
        trajectory, _ = policy.sample(samples, behaviour, torch.Generator().manual_seed(0))
        found.append((read[0], trajectory))
    (once, group), (each, alone) = found
    assert (once, each) == (2 + 1, 5 + 1)  # and the twin of the drawings
    assert torch.equal(group.tape["ids"], alone.tape["ids"])
    assert (group.logprobs - alone.logprobs).abs().max() <= TOLERANCE


@torch.no_grad()
def test_rows_that_retire_are_read_no_more(policy, monkeypatch):
    read = rows_read(policy, monkeypatch)
    prompts = [[1, 20, 21], [1, 30], [1, 31, 32], [1, 33]]
    words = [[23, 24, 25, 26], [27, 28, 29, 23], [24, 25, 26, 27]]
    some, all_of_them = begin(policy, prompts), begin(policy, prompts)
    going_on = [False, True, False, False]
    say(some, words[0])
    say(all_of_them, words[0])
    some.retire(torch.tensor([False, False, True, False]))  # a quarter is not worth a move
    some.retire(~torch.tensor(going_on))
    read.clear()
    for tokens in words[1:]:
        say(some, tokens, going_on)
    assert read == [1, 1]
    for tokens in words[1:]:
        say(all_of_them, tokens, going_on)
    assert read == [1, 1, 4, 4]
    assert (some.conditional[1] - all_of_them.conditional[1]).abs().max() <= TOLERANCE
    for name, field in all_of_them.trajectory().tape.items():
        assert torch.equal(some.trajectory().tape[name], field), name


@torch.no_grad()
def test_answers_that_end_leave_the_batch(policy, monkeypatch):
    read = rows_read(policy, monkeypatch)
    samples = questions(8)
    behaviour = Behaviour(max_text_tokens=12)
    lean, _ = policy.sample(samples, behaviour, torch.Generator().manual_seed(0))
    assert read[0] == 8 and min(read) <= 4
    monkeypatch.setattr(Session, "retire", lambda *given: None)
    whole, _ = policy.sample(samples, behaviour, torch.Generator().manual_seed(0))
    assert read[-1] == 8
    assert torch.equal(lean.tape["ids"], whole.tape["ids"])
    assert (lean.logprobs - whole.logprobs).abs().max() <= TOLERANCE


@pytest.mark.parametrize("ask", [drawings, questions])
def test_probabilities_that_are_no_numbers_are_told(policy, ask):
    generator = torch.Generator()
    drawn, _ = policy.sample(ask(2), Behaviour(), generator)
    for part in policy.parameter_groups()["language_model"]:
        for parameter in part.parameters():
            parameter.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not numbers"):
        policy.sample(ask(2), Behaviour(), generator)
    if ask is drawings:
        with pytest.raises(TrainingError, match="not numbers"):
            policy.redraw(drawn, torch.arange(2))
