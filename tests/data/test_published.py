"""What rows of COCO, of LLaVA's layout and of GenEval become, and what is wrong with some."""

import json

import pytest

from tests.data.adapter_cases import picture
from tests.data.published_cases import open_coco, write_coco, write_geneval
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import Image, Task, Text
from unified_rl.data.coco_captions import CocoCaptions
from unified_rl.data.geneval_prompts import GenevalPrompts
from unified_rl.data.llava_conversations import LlavaConversations
from unified_rl.data.quarantine import BrokenRowError
from unified_rl.data.self_questions import ask_about


def kinds(sample):
    return [s.text if isinstance(s, Text) else "(image)" for s in sample.prompt]


def test_caption_is_drawn_and_described(tmp_path):
    write_coco(tmp_path)
    drawing, description = (open_coco(tmp_path).load(index) for index in (6, 7))
    # annotation 3 is about image 7 * 3 % 5 = 1
    assert (drawing.task, description.task) == (Task.TEXT_TO_IMAGE, Task.UNDERSTANDING)
    assert drawing.prompt == (Text("A caption été 3."),)
    assert drawing.facts == {"image_id": 1, "caption": "A caption été 3."}
    assert kinds(description) == ["(image)", "Describe the picture in one sentence."]
    assert description.target == drawing.prompt
    assert description.facts["answer"] == "A caption été 3."
    assert (drawing.target[0].pixels == description.prompt[0].pixels).all()
    assert open_coco(tmp_path).place(7) == "annotations[3] as description"


def test_picture_that_nothing_compares_with_is_not_read(tmp_path):
    write_coco(tmp_path)
    rows = CocoCaptions(str(tmp_path / "captions.json"), read_target=False)  # no train2017 here
    assert len(rows) == 7 and rows.load(0).target == ()


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"image_id": 1}, "has no 'caption'"),
        ({"caption": "a", "image_id": [1]}, "has no 'image_id'"),
        ({"caption": "a", "image_id": 77}, "image_id 77 is not among the images"),
        ({"caption": " ", "image_id": 1}, "'caption' is empty"),
        ([1], "is not a JSON object"),
    ],
)
def test_caption_that_is_broken(tmp_path, annotation, reason):
    write_coco(tmp_path)
    file = json.loads((tmp_path / "captions.json").read_text())
    file["annotations"][2] = annotation
    (tmp_path / "captions.json").write_text(json.dumps(file))
    with pytest.raises(BrokenRowError, match=reason.replace("[", r"\[")):
        open_coco(tmp_path).load(4)


def test_file_that_is_not_captions(tmp_path):
    (tmp_path / "x.json").write_text('{"images": [], "categories": [{}]}')
    with pytest.raises(DataError, match="it has categories"):
        CocoCaptions(str(tmp_path / "x.json"))
    with pytest.raises(ConfigError, match="ask='caption' is none of"):
        CocoCaptions(str(tmp_path / "x.json"), ask="caption")
    with pytest.raises(DataError, match="there is no file"):
        CocoCaptions(str(tmp_path))


def said(*texts):
    return [
        {"from": "gpt" if number % 2 else "human", "value": text}
        for number, text in enumerate(texts)
    ]


@pytest.fixture
def llava(tmp_path):
    """Opens records; good ones stand around them, so that a broken one does not end the file."""
    for name in "ab":
        picture(tmp_path / f"{name}.png", ord(name))

    def llava(*records, name="chat.json", **settings):
        plain = {"id": "plain", "conversations": said("hello", "hi")}
        records = [*records, plain, plain]
        text = json.dumps(records)
        if name.endswith("jsonl"):
            text = "\n".join(map(json.dumps, records))
        (tmp_path / name).write_text(text)
        return LlavaConversations(str(tmp_path / name), **settings)

    return llava


TALK = {"id": 5, "image": "a.png", "conversations": said("<image>\nWhat?", "A.", "Why?", "So.")}


def test_history_stands_before_the_question(llava):
    rows = llava(TALK)
    assert len(rows) == 4  # two answers, and one of each plain record
    first, second = rows.load(0), rows.load(1)
    assert kinds(first) == ["(image)", "What?"] and first.target == (Text("A."),)
    expected = ["User:", "(image)", "What?", "\nAssistant: A.\n", "User: Why?", "\nAssistant:"]
    assert kinds(second) == expected
    assert second.facts == {"answer": "So.", "record": 5}
    assert (first.id, second.id) == ("chat/1/1", "chat/1/2")
    assert (second.task, rows.load(2).task) == (Task.UNDERSTANDING, Task.TEXT)
    assert rows.place(1) == "record 1 answer 2"


def test_turns_alone_show_the_image_again(llava):
    rows = llava(TALK, turns="alone")
    assert [kinds(rows.load(i)) for i in range(2)] == [["(image)", "What?"], ["(image)", "Why?"]]


def test_first_turn_only(llava):
    rows = llava(TALK, turns="first")
    assert len(rows) == 3 and kinds(rows.load(0)) == ["(image)", "What?"]


def test_images_stand_where_they_are_marked(llava, tmp_path):
    several = {
        "image": ["a.png", "b.png"],
        "conversations": said("Is <image> or <image> red?", "b"),
    }
    later = {"image": "b.png", "conversations": said("Hello?", "Hi.", "And <image>", "Red.")}
    unmarked = {"image": "b.png", "conversations": said("Which?", "This.")}
    rows = llava(several, later, unmarked)
    assert kinds(rows.load(0)) == ["Is", "(image)", "or", "(image)", "red?"]
    assert (rows.load(0).prompt[1].pixels != rows.load(0).prompt[3].pixels).any()
    assert kinds(rows.load(1)) == ["Hello?"] and rows.load(1).task == Task.TEXT
    assert kinds(rows.load(2))[-3:] == ["User: And", "(image)", "\nAssistant:"]
    assert kinds(rows.load(3)) == ["(image)", "Which?"]


def test_system_turn_and_last_question(llava):
    talk = said("What?", "A.", "Why?")  # a last question without its answer is left out
    system = {"conversations": [{"from": "system", "value": "Be brief."}, *talk]}
    rows = llava(system, name="chat.jsonl")
    assert len(rows) == 3 and kinds(rows.load(0)) == ["Be brief.\nWhat?"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "has no 'conversations'"),
        ([1], "is not a JSON object"),
        ({"conversations": said("What?")}, "has no answer"),
        ({"conversations": said("a", "b", "c", "d")[1:]}, "question and an answer in turn"),
        ({"conversations": [{"from": "gtp", "value": "a"}]}, "is from 'gtp'"),
        (
            {"conversations": [{"from": "human"}, {"from": "gpt"}]},
            "has no 'conversations.0..value'",
        ),
        ({"conversations": said("<image> <image>", "a"), "image": "a.png"}, "marks 2 images"),
        ({"conversations": said("<image>", "a"), "image": {"x": 1}}, "'image' is neither"),
        ({"conversations": said("<image>", "a"), "image": ["a.png", "b.png"]}, "and names 2"),
        ({"conversations": said(*"ab" * 300)}, "has 600 messages, over 512"),
    ],
)
def test_record_that_is_broken(llava, record, reason):
    rows = llava(record)
    assert len(rows) == 3
    with pytest.raises(BrokenRowError, match=reason):
        rows.load(0)


def test_many_names_of_one_large_image(llava, tmp_path, monkeypatch):
    picture(tmp_path / "a.png", width=100, height=100)
    monkeypatch.setattr("unified_rl.data.adapter.ROW_PIXELS", 25_000)
    many = {"image": ["a.png"] * 3, "conversations": said("all?", "yes")}
    with pytest.raises(BrokenRowError, match="shows over 25000 pixels"):
        llava(many).load(0)


def test_geneval_prompt_has_its_facts(tmp_path):
    write_geneval(tmp_path)
    rows = GenevalPrompts(str(tmp_path / "metadata.jsonl"))
    plain, asked = rows.load(0), rows.load(1)
    assert plain.prompt == (Text("a photo of a bench"),) and plain.task == Task.TEXT_TO_IMAGE
    include = [{"class": "bench", "count": 1}]
    assert plain.facts == {"category": "single", "tag": "single_object", "include": include}
    question = ask_about(asked, Image(picture_of()))
    assert question.target == (Text("cow"),) and question.task == Task.UNDERSTANDING


def picture_of():
    import numpy as np

    return np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tag": "singel_object"}, "did you mean 'single_object'"),
        ({"include": []}, "'include' is not a list of things"),
        ({"include": [{"count": 1}]}, "a thing without a class"),
        ({"exclude": [{"class": "cow", "count": "2"}]}, "a 'cow' without a count"),
        ({"prompt": None}, "has no 'prompt'"),
        ({"answer": 3}, "'answer' is a int"),
    ],
)
def test_geneval_line_that_is_broken(tmp_path, change, reason):
    write_geneval(tmp_path)
    path = tmp_path / "metadata.jsonl"
    lines = path.read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), **change})
    path.write_text("\n".join(lines))
    with pytest.raises(BrokenRowError, match=reason):
        GenevalPrompts(str(path)).load(0)
