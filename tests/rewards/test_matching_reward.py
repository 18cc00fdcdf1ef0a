"""R_TIM: by hand on small integers, then on policies whose states are read column by column."""

import copy
from dataclasses import replace

import pytest
import torch

from tests.rewards.cases import (
    BLUE_SQUARE,
    DRAWING_SAMPLE,
    GOLD,
    GREEN_CIRCLE,
    ONE,
    QUESTION_SAMPLE,
    RED_CIRCLE,
    STORY_SAMPLE,
    image,
    rollout,
    told,
)
from tests.toys import FAMILIES, SHIPPED, build
from unified_rl.core.errors import CapabilityError, ConfigError, RewardError
from unified_rl.core.sample import Sample, Task, Text
from unified_rl.models.pictures import shown_images
from unified_rl.rewards.matching import MatchingReward, match

SHORT = Sample("short", Task.TEXT_TO_IMAGE, (Text("a red circle"),))
LONG = Sample("long", Task.TEXT_TO_IMAGE, (Text("a red circle left of the"),))
OTHER = image(GREEN_CIRCLE, BLUE_SQUARE)
PICTURES = (ONE, OTHER, image(BLUE_SQUARE), image(RED_CIRCLE, BLUE_SQUARE), image(GREEN_CIRCLE))


def bound(policy, **settings):
    reward = MatchingReward(**settings)
    reward.bind(policy, lambda: copy.deepcopy(policy))
    return reward


def drawn(*pictures, samples=None):
    """A rollout of one picture a completion."""
    given = rollout([told(picture) for picture in pictures], SHORT)
    return given if samples is None else replace(given, samples=tuple(samples))


@pytest.fixture(scope="module")
def policy():
    """Shared; no test leaves it changed."""
    return build("janus")


# -- eq. 4 -----------------------------------------------------------------------------------------


def test_the_formula_by_hand():
    text = torch.tensor([[1, 0], [0, 2]])
    shown = torch.tensor([[3, 4], [1, 0], [0, -1]])
    # cosines:      word 1  word 2   greatest
    # (3, 4) / 5     3/5     4/5       4/5
    # (1, 0)          1       0         1
    # (0, -1)         0      -1         0       mean of the positions: (4/5 + 1 + 0) / 3 = 3/5
    # greatest        1      4/5                mean of the words:     (1 + 4/5) / 2 = 9/10
    assert match(text, shown).item() == pytest.approx((0.6 + 0.9) / 2, abs=1e-12)
    assert match(shown, text).item() == pytest.approx((0.6 + 0.9) / 2, abs=1e-12)


def test_only_directions_count_and_the_ends_are_reached():
    text, shown = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 4.0], [3.0, 6.0]])
    assert match(text, shown).item() == pytest.approx(1, abs=1e-12)
    assert match(text, -shown).item() == pytest.approx(-1, abs=1e-12)
    assert match(text * 100, shown / 7).item() == pytest.approx(1, abs=1e-12)


def test_mixed_precision_does_not_round_it():
    text, shown = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    expected = match(text, shown).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (text @ shown.mT).dtype == torch.bfloat16
        assert match(text, shown).item() == expected


# -- which states ----------------------------------------------------------------------------------


def columns(policy, sample, picture):
    """(C, width): the last states of the prompt, column by column."""
    asked = Sample("0", Task.UNDERSTANDING, (picture, *sample.prompt))
    rows = [policy._prompt_columns(asked)]
    with torch.no_grad():
        return policy.read(policy._tape(rows, shown_images(policy, [asked])))[0]


def test_words_and_picture_by_hand(policy):
    # 0 <bos>, 1 <user>, 2 begin of image, 3 to 11 the picture, 12 its end, 13 to 15 "a red circle",
    # 16 <assistant>
    hidden = columns(policy, SHORT, ONE)
    assert len(hidden) == 17
    expected = match(hidden[13:16], hidden[3:12]).item()
    assert bound(policy)(drawn(ONE)).outcome.item() == pytest.approx(expected, abs=1e-6)


def test_released_text_by_hand(policy):
    # "a red circle left of the" is 13 to 18, <assistant> 19; behind the picture, whose last
    # position is 11, five are left out: 12 (its end) and 13 to 16. So the text is 17 to 19.
    hidden = columns(policy, LONG, ONE)
    assert len(hidden) == 20
    expected = match(hidden[17:20], hidden[3:12]).item()
    scores = bound(policy, text="released")(drawn(ONE, samples=[LONG]))
    assert scores.outcome.item() == pytest.approx(expected, abs=1e-6)
    assert abs(expected - bound(policy)(drawn(ONE, samples=[LONG])).outcome.item()) > 1e-3


def test_released_text_of_a_short_prompt_is_refused(policy):
    # behind the picture: its end, three words and <assistant>, of which five are left out
    with pytest.raises(
        RewardError, match="'short' has 5 positions behind its image, .* text=words"
    ):
        bound(policy, text="released")(drawn(ONE))


def test_a_prompt_without_words_is_refused(policy):
    wordless = replace(SHORT, id="wordless", prompt=(Text(""),))
    with pytest.raises(RewardError, match="'wordless' has no words"):
        bound(policy)(drawn(ONE, samples=[wordless]))


def test_layers_differ(policy):
    layers = (-1, 1, "embeddings")  # 2 is -1 but for a norm without weights, which keeps directions
    scores = [bound(policy, layer=layer)(drawn(ONE)).outcome.item() for layer in layers]
    assert len({round(score, 4) for score in scores}) == len(layers)


# -- a rollout -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_owes_nothing_to_its_batch(family):
    policy = build(family)
    samples = (SHORT, LONG, SHORT, LONG, SHORT)
    together = bound(policy)(drawn(*PICTURES, samples=samples))
    assert together.outcome.abs().max() <= 1
    for row, (sample, picture) in enumerate(zip(samples, PICTURES, strict=True)):
        alone = bound(policy)(drawn(picture, samples=[sample])).outcome.item()
        assert together.outcome[row].item() == pytest.approx(alone, abs=1e-6)


def test_so_many_are_looked_at_in_one_pass(policy, monkeypatch):
    sizes, states = [], policy.states

    def counted(samples, layer):
        sizes.append(len(samples))
        return states(samples, layer)

    whole = bound(policy)(drawn(*PICTURES)).outcome
    monkeypatch.setattr(policy, "states", counted)
    parts = bound(policy, batch_size=2)(drawn(*PICTURES)).outcome
    assert sizes == [2, 2, 1]
    assert torch.allclose(parts, whole, atol=1e-6, rtol=0)


def test_other_tasks_are_passed_over_in_silence(policy):
    given = rollout([told(*GOLD), told(ONE), told(Text("red"))])
    given = replace(given, samples=(STORY_SAMPLE, DRAWING_SAMPLE, QUESTION_SAMPLE))
    scores = bound(policy)(given)
    assert scores.outcome[0] == scores.outcome[2] == 0
    assert scores.steps.shape == (3, 4)
    assert scores.steps[1, 0] == scores.outcome[1] != 0
    assert scores.steps.isnan().sum() == 11


def test_without_drawings_no_policy_is_asked(policy, monkeypatch):
    monkeypatch.setattr(policy, "states", None)
    assert bound(policy)(rollout([told(*GOLD)])).outcome.tolist() == [0]


def test_a_drawing_without_a_picture_has_the_least(policy):
    scores = bound(policy)(rollout([told(), told(Text("no")), told(ONE)], SHORT))
    assert scores.outcome[:2].tolist() == [-1, -1]
    assert scores.outcome[2] > -1
    assert scores.steps.isnan().tolist() == [[True], [True], [False]]


def test_of_two_pictures_the_mean_counts(policy):
    scores = bound(policy)(rollout([told(ONE, OTHER), told(ONE), told(OTHER)], SHORT))
    one, other = scores.outcome[1:].tolist()
    assert scores.steps[0].tolist() == pytest.approx([one, other], abs=1e-6)
    assert scores.outcome[0].item() == pytest.approx((one + other) / 2, abs=1e-6)


# -- the judge -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("judge", "drifts"), [("live", True), ("frozen", False)])
def test_a_live_judge_drifts_and_a_frozen_one_does_not(judge, drifts):
    policy = build("janus")
    reward = bound(policy, judge=judge)
    before = reward(drawn(ONE, OTHER)).outcome
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1)
            )
    after = reward(drawn(ONE, OTHER)).outcome
    assert bool((after - before).abs().max() > 1e-3) == drifts
    assert torch.equal(after, before) != drifts


def test_the_policy_is_left_as_it_was(policy, monkeypatch):
    seen, states = [], policy.states

    def watched(samples, layer):
        seen.append((any(m.training for m in policy.modules()), torch.is_grad_enabled()))
        return states(samples, layer)

    monkeypatch.setattr(policy, "states", watched)
    policy.train()
    frozen_part = policy.janus.model.vision_model.eval()
    modes = [module.training for module in policy.modules()]
    scores = bound(policy)(drawn(ONE))
    assert seen == [(False, False)]
    assert [module.training for module in policy.modules()] == modes
    assert policy.training and not frozen_part.training
    assert torch.is_grad_enabled() and not scores.outcome.requires_grad
    monkeypatch.setattr(policy, "states", None)
    with pytest.raises(TypeError):
        bound(policy)(drawn(ONE))
    assert [module.training for module in policy.modules()] == modes
    policy.eval()


# -- settings and self-test ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": -1.0}, "weight=-1.0 must be"),
        ({"weight": float("nan")}, "weight=nan must be"),
        ({"judge": "first"}, "judge='first' is none of live, frozen"),
        ({"text": "all"}, "text='all' is none of words, released"),
        ({"batch_size": 0}, "batch_size=0 must be"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        MatchingReward(**settings)


def test_a_policy_without_states_is_refused():
    with pytest.raises(CapabilityError, match="object does not tell its hidden states"):
        MatchingReward().bind(object(), object)


def test_a_layer_that_is_not_there_fails_before_training(policy):
    with pytest.raises(ConfigError, match="layer=3 is none of this policy's"):
        bound(policy, layer=3).self_test()


@pytest.mark.parametrize("text", ["words", "released"])
@pytest.mark.parametrize("family", [*FAMILIES, *SHIPPED])
def test_every_family_passes_the_self_test(family, text):
    policy = build(family)
    for layer in (-1, 1, "embeddings"):
        bound(policy, text=text, layer=layer).self_test()


def test_unbound_it_cannot_test_itself():
    with pytest.raises(RewardError, match="no policy is bound"):
        MatchingReward().self_test()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda features: features * 0, "a picture and its negative match .* both"),
        (lambda features: features + torch.randn_like(features), "not deterministic"),
        (lambda features: features * float("nan"), r"outside \[-1, 1\]"),
    ],
    ids=["blind", "restless", "broken"],
)
def test_a_broken_judge_fails_the_self_test(policy, monkeypatch, change, words):
    look = policy.embed_pixels
    monkeypatch.setattr(policy, "embed_pixels", lambda pixels: change(look(pixels)))
    with pytest.raises(RewardError, match=words):
        bound(policy).self_test()
