"""Questions reach a policy as they are asked, and its answers do not depend on company."""

import pytest
from PIL import Image as PillowImage

from tests.toys import build
from unified_rl.core.behaviour import Behaviour
from unified_rl.core.errors import ConfigError
from unified_rl.core.sample import Image, Task, Text
from unified_rl.data.images import ImageError
from unified_rl.runtime.answerer import Answerer, cut_at

BEHAVIOUR = Behaviour(max_text_tokens=4)


@pytest.fixture(scope="module")
def answerer():
    return Answerer(build("janus"), BEHAVIOUR, batch_size=3)


def picture(shade, size=(40, 30)):
    return PillowImage.new("RGB", size, (shade, 10, 10))


def layout(sample):
    return [part.text if isinstance(part, Text) else "image" for part in sample.prompt]


def test_pictures_stand_at_their_markers(answerer):
    two = [picture(1), picture(2)]
    sample = answerer.question("q", "see <image> and <image> here", two)
    assert layout(sample) == ["see ", "image", " and ", "image", " here"]
    assert sample.task is Task.UNDERSTANDING
    shades = [part.pixels[12, 12, 0] for part in sample.prompt if isinstance(part, Image)]
    assert shades == [1, 2]
    assert {part.pixels.shape for part in sample.prompt if isinstance(part, Image)} == {(24, 24, 3)}


def test_without_a_marker_each_pictures_stand_first(answerer):
    two = [picture(1), picture(2)]
    assert layout(answerer.question("q", "see", two)) == ["image", "image", "see"]
    assert layout(answerer.question("q", "a <image> b", two)) == ["image", "image", "a  b"]
    none = answerer.question("q", "1 + 1 <image>", [])
    assert (layout(none), none.task) == (["1 + 1"], Task.TEXT)


def test_a_bomb_is_refused(answerer):
    with pytest.raises(ImageError, match="over 64000000 pixels"):
        answerer.question("q", "see", [PillowImage.new("1", (9000, 9000))])


@pytest.mark.parametrize("family", ["janus", "showo", "vila_u"])
def test_answers_do_not_depend_on_company(family):
    policy = build(family)
    texts = ["the red circle", "red", "the", "circle the the red"]
    alone, together = Answerer(policy, BEHAVIOUR, 1), Answerer(policy, BEHAVIOUR, 3)
    samples = [alone.question(str(i), text, [picture(40 * i)]) for i, text in enumerate(texts)]
    first = list(alone.answer(samples, 4))
    assert list(together.answer(samples, 4)) == first
    assert list(together.answer(samples, 4)) == first  # greedy
    assert any(first)


def test_what_does_not_fit_is_answered_by_nothing_and_counted():
    policy = build("janus")
    limit = policy.context_length
    answerer = Answerer(policy, BEHAVIOUR, 2)
    long = answerer.question("long", "red " * limit, [picture(1)])
    short = answerer.question("short", "red", [picture(1)])
    answers = list(answerer.answer([short, long, short], 4))
    assert answers[1] == "" and answers[0] == answers[2]
    assert answerer.unasked_count == 1


def test_an_answer_takes_the_room_that_there_is():
    policy = build("janus")
    answerer = Answerer(policy, BEHAVIOUR)
    (said,) = answerer.answer([answerer.question("q", "red", [picture(1)])], 10**9)
    assert isinstance(said, str)


def test_cutting_takes_the_first_end():
    assert cut_at("one. two\n", ["\n", "."]) == "one"
    assert cut_at("one", ["", "x"]) == "one"
    assert cut_at("", ["x"]) == ""


def test_an_empty_batch_is_refused():
    with pytest.raises(ConfigError, match="batch_size=0"):
        Answerer(build("janus"), BEHAVIOUR, 0)
