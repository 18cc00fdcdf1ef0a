"""The verifier against a symbolic oracle, on clean and on imperfect images."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from unified_rl.microworld.facts import Facts, Item, Relation, compose
from unified_rl.microworld.prompts import CATEGORIES, category_facts
from unified_rl.microworld.render import render, shape_mask
from unified_rl.microworld.scene import COLORS, SHAPES, Placed, Scene, relation_holds
from unified_rl.microworld.verify import detect, verify

SAMPLE_COUNT = 150


def satisfies(scene: Scene, facts: Facts) -> bool:
    """Symbolic truth, by trying every order of the objects."""
    owners = [n for n, item in enumerate(facts.items) for _ in range(item.count)]
    if len(owners) != len(scene.objects):
        return False
    for order in itertools.permutations(scene.objects):
        given = list(zip(owners, order, strict=True))
        fits = all(
            facts.items[n].shape in (None, placed.shape)
            and facts.items[n].color in (None, placed.color)
            for n, placed in given
        )
        related = all(
            relation_holds(a, relation.kind, b)
            for relation in facts.relations
            for n, a in given
            for m, b in given
            if (n, m) == (relation.subject, relation.object)
        )
        if fits and related:
            return True
    return False


def variants(facts: Facts, rng: np.random.Generator) -> list[tuple[Scene, bool | None]]:
    """A right scene and wrong ones; None leaves the truth to the oracle."""
    scene = compose(facts, rng)
    first, rest = scene.objects[0], scene.objects[1:]
    recolored = Placed(first.shape, COLORS[COLORS.index(first.color) - 1], first.x, first.y)
    reshaped = Placed(SHAPES[SHAPES.index(first.shape) - 1], first.color, first.x, first.y)
    color_matters = facts.items[0].color is not None
    cases: list[tuple[Scene, bool | None]] = [
        (scene, True),
        (Scene(rest), False),
        (Scene((recolored, *rest)), not color_matters),
        (Scene((reshaped, *rest)), False),
        (compose(category_facts("counting")[rng.integers(12)], rng), None),
        (compose(category_facts("attribution")[rng.integers(144)], rng), None),
    ]
    if len(scene.objects) < 4:
        extra = Facts((*facts.items, Item(None, None)))
        cases.append((compose(extra, rng), False))
    if facts.relations:
        a, b = scene.objects
        swapped = (Placed(a.shape, a.color, b.x, b.y), Placed(b.shape, b.color, a.x, a.y))
        cases.append((Scene(swapped), False))
    return cases


@pytest.mark.parametrize("category", CATEGORIES)
def test_verifier_is_exact_on_clean_scenes(category: str) -> None:
    rng = np.random.default_rng(0)
    choices = category_facts(category)
    checked = 0
    for _ in range(SAMPLE_COUNT):
        facts = choices[rng.integers(len(choices))]
        for scene, expected in variants(facts, rng):
            truth = satisfies(scene, facts)
            assert expected in (None, truth)
            verdict = verify(render(scene), facts)
            assert verdict.correct == truth, (scene, facts)
            assert (verdict.score == 1.0) == truth
            assert set(verdict.detected) == set(scene.objects)
            checked += 1
    assert checked >= 600


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("blur", [0.0, 0.5])
def test_verifier_withstands_mild_damage(category: str, blur: float) -> None:
    rng = np.random.default_rng(1)
    choices = category_facts(category)
    correct = []
    for _ in range(60):
        facts = choices[rng.integers(len(choices))]
        clean = render(compose(facts, rng)).astype(float)
        image = (1 - blur) * clean + blur * ndimage.uniform_filter(clean, (3, 3, 1))
        image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
        correct.append(verify(image, facts).correct)
    assert all(correct)


def test_specks_are_ignored_and_blobs_are_not() -> None:
    scene = Scene((Placed("circle", "red", 0, 0),))
    facts = Facts((Item("circle", None),))
    image = render(scene)
    image[20:23, 20:23] = 0
    assert verify(image, facts).correct
    image[18:23, 16:23] = 0
    verdict = verify(image, facts)
    assert verdict.detected == scene.objects
    # Present, but not alone: 1 of 2 facts.
    assert (verdict.correct, verdict.score) == (False, 0.5)


def test_soft_score_by_hand() -> None:
    facts = Facts((Item("circle", "red"), Item("square", "blue")), (Relation(0, "right of", 1),))
    circle, square = Placed("circle", "red", 12, 0), Placed("square", "blue", 0, 0)

    def score(*objects: Placed) -> float:
        return verify(render(Scene(objects)), facts).score

    # Six facts: two presences, two colours, the relation, nothing else.
    assert score(circle, square) == 1.0
    assert score(Placed("circle", "green", 12, 0), square) == 5 / 6
    assert score(Placed("circle", "red", 0, 12), square) == 5 / 6
    assert score(circle) == 3 / 6  # the square, its colour and the relation are missing
    assert score(circle, square, Placed("cross", "red", 12, 12)) == 5 / 6
    assert score() == 0.0
    assert score(Placed("cross", "red", 12, 12)) == 0.0

    three = Facts((Item("circle", None, 3),))
    image = render(Scene((circle, Placed("circle", "red", 0, 12))))
    assert verify(image, three).score == pytest.approx(2 / 3)  # present, alone, not three


def test_best_assignment_is_found() -> None:
    facts = Facts((Item("circle", "red"), Item("circle", "blue")))
    image = render(Scene((Placed("circle", "blue", 0, 0),)))
    # The second item's presence and colour and "nothing else" hold: 3 of 5.
    assert verify(image, facts).score == 3 / 5
    image = render(Scene((Placed("circle", "blue", 0, 0), Placed("circle", "red", 12, 0))))
    assert verify(image, facts).correct


def test_templates_differ_and_fill_their_box() -> None:
    for a, b in itertools.combinations(SHAPES, 2):
        first, second = shape_mask(a), shape_mask(b)
        assert (first & second).sum() < 0.6 * (first | second).sum(), (a, b)
    for shape in SHAPES:
        mask = shape_mask(shape)
        assert mask[[0, -1]].any(1).all() and mask[:, [0, -1]].any(0).all()


def test_any_position_is_detected() -> None:
    for x, y in itertools.product(range(0, 17, 3), range(0, 17, 5)):
        for shape, color in itertools.product(SHAPES, COLORS):
            placed = Placed(shape, color, x, y)
            assert detect(render(Scene((placed,)))) == (placed,)


def test_noise_images_hold_nothing() -> None:
    rng = np.random.default_rng(2)
    facts = Facts((Item("circle", None),))
    for _ in range(20):
        image = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        assert verify(image, facts).score == 0.0


@pytest.mark.parametrize(
    "image", [np.zeros((8, 24, 3), np.uint8), np.zeros((24, 24), np.uint8), np.zeros((24, 24, 3))]
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape \(\d+, "):
        verify(image, Facts((Item("circle", None),)))
