"""Facts, scenes and prompts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unified_rl.microworld.facts import Facts, Item, Relation, compose
from unified_rl.microworld.prompts import CATEGORIES, category_facts, prompts
from unified_rl.microworld.scene import RELATIONS, Placed, Scene, apart, relation_holds
from unified_rl.microworld.splits import SPLITS, cut, stable_hash

PAIR = Facts((Item("circle", "red"), Item("square", None)), (Relation(1, "below", 0),))


@pytest.mark.parametrize("category", CATEGORIES)
def test_json_round_trip(category: str) -> None:
    for facts in category_facts(category):
        assert Facts.from_json(facts.to_json()) == facts


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"items": [{"shape": "star", "color": None}]}, "star"),
        ({"items": [{"shape": None, "color": "pink"}]}, "pink"),
        ({"items": [{"shape": None, "color": None, "count": 0}]}, "count=0"),
        ({"items": [], "relations": [{"subject": 0, "kind": "above", "object": 1}]}, "0 items"),
        ({"things": []}, "things"),
        ({"items": [{"form": "circle"}]}, "form"),
    ],
)
def test_bad_json_is_named(value: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Facts.from_json(value)


@given(st.sampled_from(CATEGORIES), st.data(), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_composed_scenes_keep_the_rules(category: str, data: st.DataObject, seed: int) -> None:
    facts = data.draw(st.sampled_from(category_facts(category)))
    objects = compose(facts, np.random.default_rng(seed)).objects
    assert len(objects) == sum(item.count for item in facts.items)
    for placed in objects:
        assert placed.x in range(0, 17, 4) and placed.y in range(0, 17, 4)
    for a, b in itertools.combinations(objects, 2):
        assert apart(a.x - b.x, a.y - b.y)
    for relation in facts.relations:
        assert relation_holds(objects[relation.subject], relation.kind, objects[relation.object])


def test_compose_keeps_earlier_objects() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        # Odd positions as a detector may report them; room is left below.
        kept = Scene((Placed("circle", "red", int(rng.integers(17)), int(rng.integers(5))),))
        scene = compose(PAIR, rng, keep=kept)
        assert scene.objects[:1] == kept.objects
        assert relation_holds(scene.objects[1], "below", scene.objects[0])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (Placed("circle", "red", 8, 16), "no arrangement"),  # nothing fits below
        (Placed("circle", "blue", 0, 0), "contradicts"),
    ],
)
def test_compose_refuses_impossible_keeps(kept: Placed, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compose(PAIR, np.random.default_rng(0), keep=Scene((kept,)))


def test_compose_refuses_impossible_facts() -> None:
    with pytest.raises(ValueError, match="no arrangement of 5 objects"):
        compose(Facts((Item("circle", None, 5),)), np.random.default_rng(0))


def test_compose_is_deterministic() -> None:
    first, second = (compose(PAIR, np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_relations_by_hand() -> None:
    origin = Placed("circle", "red", 4, 4)
    expected = {(14, 4): "right of", (0, 5): "left of", (6, 16): "below", (4, 0): "above"}
    for (x, y), kind in expected.items():
        other = Placed("square", "red", x, y)
        assert [k for k in RELATIONS if relation_holds(other, k, origin)] == [kind]
    # Too near, and an exact diagonal.
    for x, y in [(6, 4), (16, 16)]:
        other = Placed("square", "red", x, y)
        assert not any(relation_holds(other, kind, origin) for kind in RELATIONS)


@pytest.mark.parametrize("category", CATEGORIES)
def test_prompt_splits_are_disjoint_and_filled(category: str) -> None:
    texts = {split: {prompt.text for prompt in prompts(category, split)} for split in SPLITS}
    assert all(texts.values())
    for a, b in itertools.combinations(SPLITS, 2):
        assert not texts[a] & texts[b]
        if category == "attribution":
            keys = [{prompt.facts.key() for prompt in prompts(category, s)} for s in (a, b)]
            assert not keys[0] & keys[1]
    total = sum(map(len, texts.values()))
    assert total == 4 * len(category_facts(category))
    assert 0.45 <= len(texts["train"]) / total <= 0.65


def test_prompts_read_as_expected() -> None:
    texts = {p.text for c in CATEGORIES for s in SPLITS for p in prompts(c, s)}
    assert {
        "a photo of a circle",
        "a picture of a circle and a square",
        "an image of three crosses",
        "a drawing of a red circle",
        "a photo of a circle right of a square",
        "a photo of a red circle and a blue square",
    } <= texts
    assert all(" ".join(text.lower().split()) == text for text in texts)


def test_key_ignores_order_and_direction() -> None:
    mirrored = Facts((Item("square", None), Item("circle", "red")), (Relation(1, "above", 0),))
    turned = Facts((Item("square", None), Item("circle", "red")), (Relation(0, "above", 1),))
    assert mirrored.key() == PAIR.key() != turned.key()


def test_splits_are_the_same_everywhere() -> None:
    # blake2b of "circle", 8 bytes, big-endian: any other value would move published splits.
    assert stable_hash("circle") == 13655808398803460480
    assert sorted(cut("abc", 0.1, 0.3).values()) == sorted(SPLITS)
    with pytest.raises(ValueError, match="2 keys"):
        cut("ab", 0.1, 0.3)
