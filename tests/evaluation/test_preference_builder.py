"""Best against worst by hand, further rounds, and folders that go on where they were stopped."""

import itertools

import numpy as np
import pytest
import torch

from tests.toys import FAMILIES, build
from unified_rl.core.behaviour import Behaviour, Sampling
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import DrawnImage, Image, Pair, Sample, Task, Text
from unified_rl.core.trajectory import RewardScores
from unified_rl.data.microworld import QuestionSource
from unified_rl.data.mixture import MixtureStream
from unified_rl.data.preferences import PreferenceFolder, PreferenceSource
from unified_rl.data.ranked import Choice, Ranked
from unified_rl.data.self_questions import MicroSelfQuestionSource, ask_about
from unified_rl.evaluation.preference_builder import PreferenceBuilder, distinct
from unified_rl.rewards.hybrid import HybridReward

SHORT = Behaviour(max_text_tokens=4, image_step_count=3)
MANIFEST = {"toy": 1}


class Scripted:
    """Gives the scores that it is told, one after another, and keeps what it scored."""

    weight = 1.0

    def __init__(self, *scores):
        self.scores, self.seen = itertools.chain(scores, itertools.repeat(0.0)), []

    def __call__(self, rollout):
        self.seen.append(rollout)
        return RewardScores(torch.tensor(list(itertools.islice(self.scores, len(rollout.samples)))))

    def self_test(self):
        pass


class Letters(Scripted):
    """Depends on the answer alone."""

    def __call__(self, rollout):
        return RewardScores(torch.tensor([len(c.texts[0]) / 30 for c in rollout.completions]))


def builder(drawings=None, answers=None, **settings):
    rewards = [HybridReward({"toy": reward or Letters()}) for reward in (drawings, answers)]
    settings = {"image_count": 4, "top_ks": (1, 2), "answer_count": 3, "threshold": 0.6, **settings}
    return PreferenceBuilder(*rewards, SHORT, SHORT, SHORT, **settings)


def prompts(count):
    stream = MixtureStream({"own": MicroSelfQuestionSource("train")}, {"own": 1}, seed=3)
    return distinct(stream, count)


(PROMPT,) = prompts(1)


@pytest.fixture(scope="module", params=FAMILIES)
def policy(request):
    return build(request.param)


@pytest.fixture(scope="module")
def toy():
    return build("vila_u")


@pytest.fixture
def drawn(toy, monkeypatch):
    """The codes of all drawings, as they come."""
    found, drawn_images = [], toy.drawn_images

    def keep(trajectory):
        images = drawn_images(trajectory)
        found.extend(images)
        return images

    monkeypatch.setattr(toy, "drawn_images", keep)
    return found


def same(one, other):
    return np.array_equal(one.codes, other.codes)


def test_best_against_worst(toy, drawn):
    reward = Scripted(0.7, 0.9, 0.9, 0.2)
    answers = Scripted(0.5, 0.25, 1.0, 0.5)
    found = builder(reward, answers).rank(toy, PROMPT)
    assert same(found.drawings.win, drawn[1]) and same(found.drawings.lose, drawn[3])
    assert found.drawings.win_score == pytest.approx(0.9)
    assert found.drawings.lose_score == pytest.approx(0.2)
    assert same(found.picture, drawn[1])  # the best one
    said = [c.texts[0] for rollout in answers.seen for c in rollout.completions]
    assert (found.answers.win, found.answers.lose) == (Text(said[2]), Text(said[1]))
    assert (found.answers.win_score, found.answers.lose_score) == (1.0, 0.25)


def test_rewards_judge_the_question_about_each_drawing(toy, drawn):
    reward, answers = Scripted(0.7, 0.9), Scripted(1.0)
    builder(reward, answers, image_count=2).rank(toy, PROMPT)
    (judged,) = reward.seen
    for sample, picture in zip(judged.samples, drawn[:2], strict=True):
        assert sample.task is Task.UNDERSTANDING and sample.facts == PROMPT.facts
        assert same(sample.prompt[0], picture)
        assert sample.prompt[1] == Text(PROMPT.facts["question"])
    assert all(same(s.prompt[0], drawn[1]) for rollout in answers.seen for s in rollout.samples)


@pytest.mark.parametrize(
    ("scores", "drawings", "asked"),
    [
        ([0.61, 0.61, 0.61, 0.61], False, True),  # alike
        ([0.6, 0.1, 0.1, 0.1], False, False),  # no more than the threshold
        ([0.625, 0.1, 0.1, 0.1], True, True),
    ],
)
def test_what_qualifies(toy, scores, drawings, asked):
    answers = Scripted(1.0)
    found = builder(Scripted(*scores), answers).rank(toy, PROMPT)
    assert (found.drawings is not None) is drawings
    assert (len(answers.seen) > 0) is asked
    assert found.halves == (drawings, asked)


def test_answers_that_are_alike_are_no_preference(toy):
    found = builder(Scripted(0.9), Scripted(*[0.5] * 4)).rank(toy, PROMPT)
    assert found.halves == (True, False) and found.picture is None


def test_a_drawing_has_the_mean_of_its_judgements(toy):
    # (1 + 0) / 2, (.25 + 1) / 2, (.5 + .5) / 2, (1 + 1) / 2
    reward = Scripted(1, 0, 0.25, 1, 0.5, 0.5, 1, 1)
    found = builder(reward, judgement_count=2).rank(toy, PROMPT)
    assert (found.drawings.win_score, found.drawings.lose_score) == (1.0, 0.5)


def test_answers_are_drawn_with_each_top_k(toy, monkeypatch):
    used, sample = [], toy.sample

    def keep(samples, behaviour, generator):
        used.append((samples[0].task, len(samples), behaviour.text.top_k))
        return sample(samples, behaviour, generator)

    monkeypatch.setattr(toy, "sample", keep)
    builder(Scripted(0.9), batch_size=3, top_ks=(1, 2, 4), answer_count=5).rank(toy, PROMPT)
    draw, ask = Task.TEXT_TO_IMAGE, Task.UNDERSTANDING
    assert used == [
        *[(draw, 3, 0), (draw, 1, 0), (ask, 3, 0), (ask, 1, 0)],
        *[(ask, 1, 1), (ask, 3, 2), (ask, 2, 2), (ask, 3, 4), (ask, 2, 4)],
    ]


def before(win_score=0.75, drawings=True, answers=True):
    codes = [DrawnImage(np.full((9, 3), number)) for number in (1, 2, 3)]
    return Ranked(
        PROMPT,
        Choice(codes[0], codes[1], win_score, 0.1) if drawings else None,
        codes[2] if answers else None,
        Choice(Text("old win"), Text("old lose"), win_score, 0.1) if answers else None,
    )


def test_a_better_best_is_preferred_to_the_old_one(toy, drawn):
    old, answers = before(), Scripted(0.1, 0.875)
    found = builder(Scripted(0.1, 0.875), answers).rank(toy, PROMPT, old)
    assert same(found.drawings.win, drawn[1]) and same(found.drawings.lose, old.drawings.win)
    assert (found.drawings.win_score, found.drawings.lose_score) == (0.875, 0.75)
    assert same(found.picture, old.picture)  # answers to be compared are about one picture
    assert all(same(s.prompt[0], old.picture) for r in answers.seen for s in r.samples)
    assert found.answers.lose == Text("old win")
    assert (found.answers.win_score, found.answers.lose_score) == (0.875, 0.75)


@pytest.mark.parametrize("best", [0.75, 0.1])
def test_what_is_no_better_leaves_the_old_pair(toy, best):
    old = before()
    found = builder(Scripted(best), Scripted(best)).rank(toy, PROMPT, old)
    assert found.drawings is old.drawings and found.answers is old.answers
    assert found.picture is old.picture


def test_a_half_that_was_not_there_is_made_as_in_the_first_round(toy, drawn):
    old = before(drawings=False, answers=False)
    found = builder(Scripted(0.9, 0.2), Scripted(0.5, 0.25)).rank(toy, PROMPT, old)
    assert same(found.drawings.win, drawn[0])
    assert found.drawings.lose_score == 0.0
    assert same(found.picture, drawn[0])


def test_every_family_prefers_and_is_shown_its_own_way(policy, tmp_path):
    folder = PreferenceFolder(tmp_path)
    folder.begin(MANIFEST)
    scores = [Scripted(0.9, 0.1), Scripted(0.9, 0.1)]
    builder(*scores).build(lambda: policy, [PROMPT], folder)
    preference = PreferenceSource(str(tmp_path)).draw(np.random.default_rng(0))
    kind = DrawnImage if policy.capabilities.shared_image_tokens else Image
    assert isinstance(preference.answer_win.prompt[0], kind)
    for pair in (preference.drawings, preference.answers):
        rows = policy.encode(pair, torch.Generator())
        assert bool(torch.isfinite(policy.logprobs(rows)[rows.action_mask]).all())


def test_a_prompt_owes_nothing_to_the_others(toy):
    one, other = prompts(2)
    first, second = builder().rank(toy, one), builder(seed=1).rank(toy, one)
    maker = builder()
    maker.rank(toy, other)
    torch.manual_seed(99)
    again = maker.rank(toy, one)
    assert first.to_json() == again.to_json()
    assert first.to_json() != second.to_json()


def test_a_further_round_draws_anew(toy, drawn):
    maker, nothing = builder(), Ranked(PROMPT, None, None, None)
    for before in (None, nothing, None, nothing):
        maker.rank(toy, PROMPT, before)
    size = len(drawn) // 4
    first, second, third, fourth = (drawn[n * size : (n + 1) * size] for n in range(4))
    assert all(map(same, first, third)) and all(map(same, second, fourth))
    assert not any(map(same, first, second))


def test_the_policy_keeps_its_mode(toy):
    toy.train()
    builder().rank(toy, PROMPT)
    assert toy.training
    toy.eval()


# -- folders ---------------------------------------------------------------------------------------


class Killed(Exception):
    """The run was."""


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.path.glob("*.json")}


@pytest.fixture
def whole(toy, tmp_path):
    """Four prompts in one go."""
    folder = PreferenceFolder(tmp_path / "whole")
    folder.begin(MANIFEST)
    builder(threshold=0.0).build(lambda: toy, prompts(4), folder)
    return folder


def test_a_killed_run_goes_on(toy, whole, tmp_path):
    folder = PreferenceFolder(tmp_path / "killed")
    folder.begin(MANIFEST)

    def kill(done, total):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        builder(threshold=0.0).build(lambda: toy, prompts(4), folder, progress=kill)
    with pytest.raises(DataError, match="is not finished"):
        PreferenceSource(str(folder.path))
    seen = []
    folder.begin(MANIFEST)
    builder(threshold=0.0).build(
        lambda: toy, prompts(4), folder, progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(1, 2), (2, 2)]
    assert contents(folder) == contents(whole)


def test_nothing_is_done_twice(whole):
    written = contents(whole)
    summary = builder(threshold=0.0).build(pytest.fail, prompts(4), whole)
    assert contents(whole) == written
    assert summary == whole.summary()


def test_more_prompts_are_added(toy, whole):
    seen = []
    summary = builder(threshold=0.0).build(
        lambda: toy, prompts(5), whole, progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(1, 1)] and summary["prompts"] == 5
    assert builder(threshold=0.0).build(pytest.fail, prompts(2), whole)["prompts"] == 2


def test_what_is_damaged_is_made_again(toy, whole):
    written = contents(whole)
    path = next(path for path in whole.path.glob("*.json") if len(path.stem) == 24)
    path.write_bytes(path.read_bytes()[:50])
    builder(threshold=0.0).build(lambda: toy, prompts(4), whole)
    assert contents(whole) == written


def test_a_further_round_meets_the_one_before(toy, whole, tmp_path):
    folder = PreferenceFolder(tmp_path / "next")
    folder.begin(MANIFEST)
    builder(Scripted(*[2.0] * 99), threshold=0.0).build(lambda: toy, prompts(4), folder, whole)
    met = 0
    for sample in prompts(4):
        old, new = whole.read(sample.id), folder.read(sample.id)
        if old.drawings is not None:
            met += 1
            assert same(new.drawings.lose, old.drawings.win)
    assert met


def test_a_round_before_that_is_not_finished_is_refused(toy, tmp_path):
    folders = [PreferenceFolder(tmp_path / name) for name in ("old", "new")]
    for folder in folders:
        folder.begin(MANIFEST)
    with pytest.raises(DataError, match="is not finished"):
        builder().build(pytest.fail, prompts(1), folders[1], folders[0])


# -- bad input -------------------------------------------------------------------------------------


def test_prompts_are_the_first_different_ones():
    a, b, c = prompts(3)
    assert distinct(iter([a, b, a, a, c, b]), 3) == [a, b, c]


def test_too_few_prompts_are_refused():
    with pytest.raises(ConfigError, match="count=3, but the data gave 2 different prompts"):
        distinct(itertools.cycle(prompts(2)), 3)
    with pytest.raises(ConfigError, match="count=0"):
        distinct(prompts(2), 0)


def test_what_is_no_prompt_to_draw_is_refused():
    question = QuestionSource("train").draw(np.random.default_rng(0))
    drawing = PROMPT
    with pytest.raises(ConfigError, match="no prompt to draw; choose data"):
        distinct([question], 1)
    pair = Pair(drawing, ask_about(drawing, Text("")))
    with pytest.raises(ConfigError, match="no prompt to draw; choose data"):
        distinct([pair], 1)


def test_a_prompt_without_a_question_is_refused():
    bare = Sample("bare", Task.TEXT_TO_IMAGE, (Text("a red circle"),))
    with pytest.raises(DataError, match="'bare' has no fact 'question'"):
        distinct([PROMPT, bare], 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_count": 1},
        {"judgement_count": 0},
        {"answer_count": 0},
        {"batch_size": -1},
        {"seed": -1},
        {"top_ks": ()},
        {"top_ks": (1, 1)},
        {"top_ks": (0,)},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"builder.{min(settings)}="):
        builder(**settings)


def test_greedy_judgements_would_all_be_one():
    plain = HybridReward({"toy": Letters()})
    greedy = Behaviour(text=Sampling(temperature=0.0))
    assert PreferenceBuilder(plain, plain, SHORT, greedy, SHORT)
    with pytest.raises(ConfigError, match=r"builder.judgement_count=2 .*temperature above 0"):
        PreferenceBuilder(plain, plain, SHORT, greedy, SHORT, judgement_count=2)


def test_scores_must_not_depend_on_those_beside():
    plain = HybridReward({"toy": Letters()})
    relative = HybridReward({"toy": Letters()}, normalisation="standardise")
    with pytest.raises(ConfigError, match="set it to sum"):
        PreferenceBuilder(plain, relative, SHORT, SHORT, SHORT)
