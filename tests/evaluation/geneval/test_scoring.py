"""GenEval's verdict on hand-made detections: every rule and its edges."""

import numpy as np
import pytest

from unified_rl.core.errors import ConfigError
from unified_rl.evaluation.geneval.detections import Found
from unified_rl.evaluation.geneval.metadata import request_of
from unified_rl.evaluation.geneval.scoring import Thresholds, kept, verdict

LEFT, RIGHT, MIDDLE = (0, 40, 20, 60), (80, 40, 100, 60), (40, 40, 60, 60)


def found(score, box=MIDDLE):
    return Found(np.array(box, np.float64), score)


def asked(*include, tag="two_object", exclude=()):
    clauses = [{"count": 1, **clause} for clause in include]
    row = {"tag": tag, "prompt": "p", "include": clauses, "exclude": list(exclude)}
    return request_of(row)


def no_colours(objects, name):
    raise AssertionError("no colour was asked for")


def judged(request, detections, colours=no_colours, thresholds=None):
    thresholds = thresholds or Thresholds()
    return verdict(request, kept(detections, request.tag == "counting", thresholds), colours)


def colours(*names):
    def tell(objects, name):
        assert len(objects) <= len(names)
        return names[: len(objects)]

    return tell


DOG = {"class": "dog"}
CAT = {"class": "cat"}


@pytest.mark.parametrize(
    ("score", "want"), [(0.31, True), (0.3, False), (float(np.float32(0.3)), False), (0.1, False)]
)
def test_an_object_must_be_surer_than_the_threshold(score, want):
    assert judged(asked(DOG, tag="single_object"), {"dog": [found(score)]}).correct is want


@pytest.mark.parametrize(("score", "want"), [(0.91, True), (0.9, False), (0.89, False)])
def test_counting_has_a_threshold_of_its_own(score, want):
    request = asked({**DOG, "count": 2}, tag="counting", exclude=[{**DOG, "count": 3}])
    assert judged(request, {"dog": [found(0.99), found(score)]}).correct is want


@pytest.mark.parametrize(("count", "want"), [(1, False), (2, True), (3, False), (4, False)])
def test_counting_wants_exactly_so_many(count, want):
    request = asked({**DOG, "count": 2}, tag="counting", exclude=[{**DOG, "count": 3}])
    result = judged(request, {"dog": [found(0.95)] * count})
    assert result.correct is want
    assert (
        result.reason
        == {
            1: "expected dog>=2, found 1",
            2: "",
            3: "expected dog<3, found 3",
            4: "expected dog<3, found 4",
        }[count]
    )


def test_an_excluded_class_alone_is_judged_too():
    request = request_of(
        {"tag": "counting", "prompt": "p", "exclude": [{"class": "cat", "count": 1}]}
    )
    assert judged(request, {}).correct
    assert not judged(request, {"cat": [found(0.95)]}).correct
    assert judged(request, {"cat": [found(0.5)]}).correct  # not sure enough to count


def test_all_included_classes_must_be_there():
    request = asked(DOG, CAT)
    assert judged(request, {"dog": [found(0.5)], "cat": [found(0.5)]}).correct
    assert judged(request, {"dog": [found(0.5)]}).reason == "expected cat>=1, found 0"
    both = judged(request, {})
    assert both.reason.splitlines() == ["expected dog>=1, found 0", "expected cat>=1, found 0"]


def test_more_objects_than_asked_for_do_no_harm_where_nothing_is_excluded():
    assert judged(asked(DOG, tag="single_object"), {"dog": [found(0.5)] * 5}).correct


def test_a_class_keeps_its_surest_sixteen():
    many = [found(0.4 + 0.01 * i) for i in range(20)]
    result = kept({"dog": many}, False, Thresholds())["dog"]
    assert [round(o.score, 2) for o in result] == [round(0.59 - 0.01 * i, 2) for i in range(16)]
    assert len(kept({"dog": many}, False, Thresholds(most_objects=3))["dog"]) == 3


def test_equal_scores_keep_the_later_first():
    first, second = found(0.5, LEFT), found(0.5, RIGHT)
    (dogs,) = kept({"dog": [first, second]}, False, Thresholds()).values()
    assert dogs[0] is second
    assert dogs[1] is first


def test_overlapping_objects_all_count_unless_a_limit_is_set():
    same = [found(0.95), found(0.94), found(0.93, (41, 40, 61, 60))]
    assert len(kept({"dog": same}, True, Thresholds())["dog"]) == 3
    # of 21 x 21 pixels, 20 x 21 are shared: 420 of 2 * 441 - 420 = 462, .909
    assert len(kept({"dog": same}, True, Thresholds(max_overlap=0.95))["dog"]) == 2
    assert len(kept({"dog": same}, True, Thresholds(max_overlap=0.9))["dog"]) == 1
    # an overlap of exactly the limit goes too
    assert len(kept({"dog": same}, True, Thresholds(max_overlap=420 / 462))["dog"]) == 1


def test_what_a_dropped_object_covers_stays():
    # the second overlaps the first and is dropped, so the third, which overlaps only it, stays
    chain = [found(0.9, (0, 0, 9, 9)), found(0.8, (5, 0, 14, 9)), found(0.7, (10, 0, 19, 9))]
    boxes = kept({"dog": chain}, False, Thresholds(max_overlap=0.3))["dog"]
    assert [o.score for o in boxes] == [0.9, 0.7]


def test_classes_without_sure_objects_are_left_out():
    assert kept({"dog": [found(0.2)], "cat": []}, False, Thresholds()) == {}


RED_DOGS = {**DOG, "count": 2, "color": "red"}


def test_a_colour_must_be_that_of_as_many_objects_as_asked_for():
    two = {"dog": [found(0.9), found(0.8)]}
    assert judged(asked(RED_DOGS), two, colours("red", "red")).correct
    result = judged(asked(RED_DOGS), two, colours("red", "blue"))
    assert result.reason == "expected red dog>=2, found 1 red, 1 blue"
    assert not judged(asked(RED_DOGS), two, colours("red", None)).correct


def test_only_the_surest_objects_are_asked_for_their_colour():
    seen = []

    def tell(objects, name):
        seen.extend(objects)
        return ["blue"] * len(objects)

    dogs = {"dog": [found(0.5), found(0.9), found(0.7)]}
    assert not judged(asked({**DOG, "color": "red"}, tag="colors"), dogs, tell).correct
    assert [o.score for o in seen] == [0.9]


def test_fewer_objects_than_asked_for_are_not_asked_for_their_colour():
    result = judged(asked(RED_DOGS), {"dog": [found(0.9)]})
    assert result.reason == "expected dog>=2, found 1"


def beside(relation):
    return asked(CAT, {**DOG, "position": [relation, 0]}, tag="position")


@pytest.mark.parametrize(
    ("relation", "want"), [("left of", True), ("right of", False), ("above", False)]
)
def test_where_an_object_stands(relation, want):
    result = judged(beside(relation), {"dog": [found(0.9, LEFT)], "cat": [found(0.9, RIGHT)]})
    assert result.correct is want
    if not want:
        assert result.reason == f"expected dog {relation} target, found left of target"


def test_one_object_on_the_other_stands_nowhere():
    result = judged(beside("left of"), {"dog": [found(0.9)], "cat": [found(0.9)]})
    assert result.reason == "expected dog left of target, found nowhere to target"


def test_the_surest_object_is_the_one_that_must_stand_there():
    dogs = [found(0.8, LEFT), found(0.9, RIGHT)]
    assert not judged(beside("left of"), {"dog": dogs, "cat": [found(0.9)]}).correct


def test_every_object_must_stand_so_to_every_target():
    request = asked(
        {**CAT, "count": 2}, {**DOG, "count": 2, "position": ["left of", 0]}, tag="position"
    )
    near, far = (60, 40, 80, 60), (120, 40, 140, 60)
    dogs = [found(0.9, LEFT), found(0.8, LEFT)]
    cats = [found(0.9, near), found(0.8, far)]
    assert judged(request, {"dog": dogs, "cat": cats}).correct
    # one dog between the two cats
    assert not judged(
        request, {"dog": [dogs[0], found(0.8, (90, 40, 110, 60))], "cat": cats}
    ).correct
    # one cat beyond the dogs
    assert not judged(
        request, {"dog": [found(0.9, near)] * 2, "cat": [cats[1], found(0.8, LEFT)]}
    ).correct


def test_a_target_that_is_missing_fails_what_relates_to_it():
    result = judged(beside("left of"), {"dog": [found(0.9)]})
    assert result.reason.splitlines() == [
        "expected cat>=1, found 0",
        "no target for dog to be left of",
    ]


def test_a_target_of_the_wrong_colour_is_no_target():
    request = asked({**CAT, "color": "red"}, {**DOG, "position": ["left of", 0]}, tag="position")
    both = {"dog": [found(0.9, LEFT)], "cat": [found(0.9, RIGHT)]}
    assert judged(request, both, colours("red")).correct
    result = judged(request, both, colours("blue"))
    assert result.reason.splitlines()[1] == "no target for dog to be left of"


def test_an_object_that_is_missing_is_not_asked_where_it_stands():
    result = judged(beside("left of"), {"cat": [found(0.9)]})
    assert result.reason == "expected dog>=1, found 0"


@pytest.mark.parametrize(
    "setting", [{"score": -0.1}, {"max_overlap": 1.1}, {"most_objects": 0}, {"dead_zone": 2.0}]
)
def test_thresholds_out_of_range_are_refused(setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=name):
        Thresholds(**setting)


def test_only_the_published_thresholds_are_official():
    assert Thresholds().official
    assert not Thresholds(counting_score=0.8).official
