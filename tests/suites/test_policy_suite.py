"""What every policy must keep: exact replay, right borders, rows that owe nothing to a batch."""

from dataclasses import replace

import pytest
import torch

from tests.suites.trajectories import (
    BEHAVIOURS,
    GREEDY,
    PLAIN,
    all_candidates,
    order,
    sampled,
    seeded,
    told,
    trim,
    with_ids,
)
from tests.toys import SPOKEN, build
from tests.toys.samples import drawings, mixed, questions, stories, sums
from unified_rl.core.errors import ConfigError
from unified_rl.core.trajectory import Modality
from unified_rl.decoding.support import unpack
from unified_rl.decoding.tape import Kind

REPLAY_TOLERANCE = 1e-5
"""Nats; a cached and a whole forward pass differ by float32 rounding, about 1e-6."""
CLEAR = 1e-2
"""Nats; what a wrong behaviour or a seen token moves a log-prob by, at least."""


# -- D1, D3, D11: the recorded distribution is the one replayed ------------------------------------


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_replay_equals_recording(policy, name):
    trajectory, _ = sampled(policy, name)
    with torch.no_grad():
        gap = (policy.logprobs(trajectory) - trajectory.logprobs).abs().max()
    assert gap <= REPLAY_TOLERANCE


@pytest.mark.parametrize(
    ("name", "other"),
    [("cool", "plain"), ("guided", "plain"), ("guided", "conditional"), ("plain", "guided")],
)
def test_replay_under_another_behaviour_is_told_apart(policy, name, other):
    trajectory, _ = sampled(policy, name)
    with torch.no_grad():
        replayed = policy.logprobs(trajectory._replace(behaviour=BEHAVIOURS[other]))
    images = trajectory.mask_of(Modality.IMAGE)
    assert (replayed - trajectory.logprobs)[images].abs().mean() > CLEAR


@pytest.mark.parametrize("name", ["cool", "guided", "guided_warm_truncated"])
def test_codes_are_as_frequent_as_recorded(random_policy, name, monkeypatch):
    size = random_policy.capabilities.image_size
    monkeypatch.setattr(
        random_policy, "decode_images", lambda c: torch.zeros(len(c), 3, size, size)
    )
    # All positions in one step: then position 0 has one and the same context in every row.
    behaviour, rows = replace(BEHAVIOURS[name], image_step_count=1), 1000
    trajectory, _ = random_policy.sample(drawings(1) * rows, behaviour, seeded())
    _assert_frequencies(trajectory)


def test_words_are_as_frequent_as_recorded(random_policy):
    rows = 1000
    trajectory, _ = random_policy.sample(sums(1) * rows, BEHAVIOURS["cool"], seeded())
    _assert_frequencies(trajectory)


def _assert_frequencies(trajectory):
    """First actions of equal rows: within four standard deviations of a binomial share."""
    column = int(trajectory.action_mask[0, :, 0].nonzero()[0])
    tokens, logprobs = trajectory.tape["ids"][:, column, 0], trajectory.logprobs[:, column, 0]
    assert len(tokens.unique()) > 1
    for token in tokens.unique():
        probability = float(logprobs[tokens == token][0].exp())
        deviation = (probability * (1 - probability) / len(tokens)) ** 0.5
        frequency = float((tokens == token).float().mean())
        assert abs(frequency - probability) <= 4 * deviation


@pytest.mark.parametrize("modality", list(Modality))
def test_moved_policy_is_renormalised_over_the_recorded_support(family, modality):
    policy = build(family)
    sample = (sums if modality == Modality.TEXT else drawings)(1)
    trajectory, _ = policy.sample(sample, BEHAVIOURS["truncated"], seeded())
    recorded = {Modality.TEXT: "text_support", Modality.IMAGE: "image_support"}[modality]
    column = int(trajectory.mask_of(modality)[0, :, 0].nonzero()[0])
    count = {
        Modality.TEXT: policy.text_vocabulary_size,
        Modality.IMAGE: policy.capabilities.codebook_size,
    }[modality]
    support = unpack(trajectory.tape[recorded][0, column], count)
    support = support[0] if support.ndim == 2 else support  # of depth 0
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=seeded())
        scores = policy.logprobs(all_candidates(trajectory, column, len(support)))[:, column, 0]
    assert torch.equal(torch.isfinite(scores), support)
    assert scores.exp().sum() == pytest.approx(1.0, abs=1e-5)


# -- D5: each head reads the state just before its token -------------------------------------------


def _text(trajectory, segment):
    text = trajectory.action_mask[0, :, 0] & (trajectory.modality[0] == Modality.TEXT)
    return (text & (trajectory.segment[0] == segment)).nonzero().flatten().tolist()


def _codes(trajectory):
    """Columns of the first image."""
    is_code = (trajectory.tape["kind"][0] == Kind.CODE) & (trajectory.segment[0] == 1)
    return is_code.nonzero().flatten().tolist()


BORDERS = {
    "inside_text": lambda t: _text(t, 0)[1],
    "asks_for_image": lambda t: _text(t, 0)[-1],
    "begin_of_image": lambda t: _codes(t)[0] - 1,
    "first_code": lambda t: _codes(t)[0],
    "inside_image": lambda t: _codes(t)[4],
    "last_code": lambda t: _codes(t)[-1],
    "end_of_image": lambda t: _codes(t)[-1] + 1,
    "first_text_behind": lambda t: _text(t, 2)[0],
}
FORCED = ("begin_of_image", "end_of_image")


@pytest.mark.parametrize("border", BORDERS)
def test_a_token_moves_only_what_comes_later(policy, border):
    trajectory = told(policy)
    column, ids = BORDERS[border](trajectory), trajectory.tape["ids"].clone()
    if trajectory.modality[0, column] == Modality.IMAGE:
        ids[0, column, 0] = (ids[0, column, 0] + 1) % policy.capabilities.codebook_size
    else:
        word = policy.tokenize(SPOKEN[0])[0]
        other = policy.tokenize(SPOKEN[1])[0]
        ids[0, column, 0] = other if ids[0, column, 0] == word else word
    with torch.no_grad():
        before = policy.logprobs(trajectory)[0]
        moved = (policy.logprobs(with_ids(trajectory, ids))[0] - before).abs()
    time = order(trajectory)
    others = torch.arange(len(time)) != column
    assert moved[(time <= time[column]) & others].max() <= 1e-6
    exact = next(policy.parameters()).dtype == torch.float64  # of trained weights
    assert moved[time > time[column]].max() > (1e-4 if exact else CLEAR)


@pytest.mark.parametrize("border", [border for border in BORDERS if border not in FORCED])
def test_a_token_is_scored_by_a_state_that_has_not_seen_it(random_policy, border):
    # Else the scores of all candidates would come from different distributions.
    policy, trajectory = random_policy, told(random_policy)
    column = BORDERS[border](trajectory)
    is_image = trajectory.modality[0, column] == Modality.IMAGE
    count = policy.capabilities.codebook_size if is_image else policy.text_vocabulary_size
    with torch.no_grad():
        scores = policy.logprobs(all_candidates(trajectory, column, count))[:, column, 0]
    assert scores.exp().sum() == pytest.approx(1.0, abs=1e-5)


def test_deeper_codes_see_the_codes_above_them(policy):
    if policy.capabilities.code_depth == 1:
        pytest.skip("one code a position")
    trajectory = told(policy)
    columns = _codes(trajectory)  # the first code of another position changes in each row
    rows = trajectory.select(torch.zeros(len(columns), dtype=torch.long))
    ids, row = rows.tape["ids"].clone(), torch.arange(len(columns))
    ids[row, columns, 0] = (ids[row, columns, 0] + 1) % policy.capabilities.codebook_size
    with torch.no_grad():
        moved = (policy.logprobs(with_ids(rows, ids)) - rows.logprobs)[row, columns].abs()
    assert moved[:, 1:].amax(0).min() > CLEAR


# -- D6: images have their exact length ------------------------------------------------------------


def test_images_are_whole_whatever_their_codes(policy):
    # The batch mixes finished text and images, and the end-of-text id is also a code.
    samples = [*mixed(), *drawings(64)]
    trajectory, completions = policy.sample(samples, PLAIN, seeded())
    is_code = trajectory.tape["kind"] == Kind.CODE
    assert bool((trajectory.tape["ids"][is_code] == policy.end_of_text_id).any())
    for row, completion in enumerate(completions):
        for index in trajectory.segment[row][is_code[row]].unique():
            columns = (is_code[row] & (trajectory.segment[row] == index)).nonzero().flatten()
            first = int(columns[0])
            assert columns.tolist() == list(range(first, first + policy.image_positions))
        assert is_code[row].sum() == len(completion.images) * policy.image_positions


def test_only_stories_mix_text_and_images(policy):
    _, completions = sampled(policy)
    images = [len(completion.images) for completion in completions]
    assert images[2:4] == [1, 1]  # drawings
    assert images[4:] == [0, 0]  # a question and a sum


def test_a_reader_that_asks_for_an_image_gets_none(policy):
    trajectory, completions = policy.sample(questions(1) * 32, PLAIN, seeded())
    asked = (trajectory.tape["ids"][..., 0] == policy.image_trigger_id).any(1)
    assert bool(asked.any())
    assert not any(completion.images for completion in completions)
    assert not any(completions[row].finished for row in asked.nonzero().flatten().tolist())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_codes_of_some_steps_are_actions(policy, count):
    behaviour = replace(PLAIN, replayed_step_count=count)  # of four
    trajectory, _ = policy.sample(drawings(24), behaviour, seeded())
    is_code, actions = trajectory.tape["kind"] == Kind.CODE, trajectory.action_mask[..., 0]
    if policy.capabilities.likelihood != "mask_predict":
        assert torch.equal(actions[is_code], is_code[is_code])
        return
    chosen = set()
    for row in range(24):
        steps, acting = (t[row][is_code[row]] for t in (trajectory.tape["reveal"], actions))
        assert set(steps.tolist()) == {0, 1, 2, 3}
        taken = steps[acting].unique()
        assert len(taken) == count
        if count == 2:
            assert int(taken[1] - taken[0]) == 2  # evenly spaced
        assert bool(torch.isin(steps, steps[acting])[acting.logical_not()].logical_not().all())
        chosen |= set(steps[acting].tolist())
    assert chosen == {0, 1, 2, 3}


def test_mask_prediction_keeps_words_out_of_images(policy):
    if policy.capabilities.likelihood == "mask_predict":
        with pytest.raises(ConfigError, match="constrained=false"):
            policy.sample(drawings(1), replace(PLAIN, constrained=False), seeded())


# -- D7: forced tokens are no actions --------------------------------------------------------------


def test_forced_tokens_are_no_actions(policy):
    trajectory, _ = sampled(policy)
    ids, is_text = trajectory.tape["ids"][..., 0], trajectory.tape["kind"] == Kind.TEXT
    borders = torch.tensor([policy.begin_of_image_id, policy.end_of_image_id])
    forced = (trajectory.segment < 0) | (is_text & torch.isin(ids, borders))
    assert not bool(trajectory.action_mask[forced].any())
    assert bool(trajectory.action_mask[~forced].any(-1).all())


def test_states_before_forced_tokens_get_no_gradient(policy, monkeypatch):
    trajectory, states = told(policy), []
    backbone = policy.backbone

    def keep(*arguments):
        states.append(backbone(*arguments))
        states[-1].retain_grad()
        return states[-1]

    monkeypatch.setattr(policy, "backbone", keep)
    policy.logprobs(trajectory).sum().backward()
    policy.zero_grad()
    gradient = states[0].grad[0].abs().sum(-1)  # of the pass that text is scored by
    begin, end = _codes(trajectory)[0] - 1, _codes(trajectory)[-1] + 1
    assert gradient[begin - 1] == 0  # would predict the begin of the image
    assert gradient[end - 1] == 0  # would predict its end
    assert gradient[_text(trajectory, 0)[-1] - 1] > 0


def test_a_drawing_teaches_the_text_head_nothing(family):
    policy = build(family)
    seen = []
    head = policy.text_logits

    def keep(hidden):
        seen.append(head(hidden).detach().requires_grad_())
        return seen[-1]

    policy.text_logits = keep
    policy.logprobs(policy.encode(drawings(2), seeded())).sum().backward()
    assert sum(logits.numel() for logits in seen) == 0


# -- D10, D12: the other rows of a batch do not matter ---------------------------------------------


@pytest.mark.parametrize("name", ["plain", "guided", "truncated"])
def test_a_row_alone_scores_as_in_its_batch(policy, name):
    trajectory, _ = sampled(policy, name)
    with torch.no_grad():
        together = policy.logprobs(trajectory)
        for row in range(trajectory.row_count):
            alone = policy.logprobs(trim(trajectory.select(slice(row, row + 1))))[0]
            assert (alone - together[row, : len(alone)]).abs().max() <= REPLAY_TOLERANCE


@pytest.mark.parametrize("name", ["greedy", "greedy_guided"])
def test_a_row_alone_is_drawn_as_in_its_batch(policy, name):
    together, _ = sampled(policy, name)
    for row, sample in enumerate(mixed()):
        alone, _ = policy.sample([sample], BEHAVIOURS[name], seeded(1))
        width = alone.tape["kind"].shape[1]
        assert torch.equal(alone.tape["ids"][0], together.tape["ids"][row, :width])
        assert torch.equal(alone.tape["kind"][0], together.tape["kind"][row, :width])


def test_two_prompt_lengths_make_one_batch(policy):
    greedy = replace(GREEDY, guidance_scale=3.0)
    pair = sorted(drawings(12), key=lambda sample: len(sample.prompt_text.split()))[::11]
    assert len(policy.tokenize(pair[0].prompt_text)) != len(policy.tokenize(pair[1].prompt_text))
    together, _ = policy.sample(pair, greedy, seeded())
    for row, sample in enumerate(pair):
        alone, _ = policy.sample([sample], greedy, seeded())
        codes = alone.tape["ids"][alone.tape["kind"] == Kind.CODE]
        is_code = together.tape["kind"][row] == Kind.CODE
        assert torch.equal(codes, together.tape["ids"][row][is_code])


def test_rows_are_compact(policy):
    trajectory, _ = sampled(policy)
    valid = trajectory.tape["kind"] != Kind.PAD
    assert bool((valid[:, :-1] >= valid[:, 1:]).all())  # no gap, and padding at the end only
    assert bool(valid[:, -1].any())  # and no more of it than the longest row needs


# -- gradients reach the context -------------------------------------------------------------------


def test_every_trained_tensor_of_the_family_gets_a_gradient(family):
    policy = build(family)
    generator = seeded()
    policy.logprobs(policy.encode([*stories(2), *questions(2)], generator)).sum().backward()
    silent = [
        name
        for name, parameter in policy.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []
