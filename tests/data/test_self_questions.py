"""Prompts to draw with a question about the drawing, as samples of both worlds."""

import collections
import itertools
import json

import numpy as np
import pytest

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import DrawnImage, Image, Sample, Task, Text
from unified_rl.data.mixture import MixtureStream
from unified_rl.data.self_questions import (
    MicroSelfQuestionSource,
    SelfQuestionSource,
    ask_about,
)
from unified_rl.microworld import prompts as micro
from unified_rl.microworld.facts import Facts, compose
from unified_rl.microworld.questions import ask, judge_answer
from unified_rl.microworld.render import render
from unified_rl.microworld.scene import SHAPES
from unified_rl.microworld.splits import SPLITS
from unified_rl.microworld.verify import verify
from unified_rl.microworld.words import vocabulary
from unified_rl.prompting.categories import CATEGORIES


def drawn(source, count, seed=0):
    rng = np.random.default_rng(seed)
    return [source.draw(rng) for _ in range(count)]


# -- the question about the drawing ----------------------------------------------------------------

PROMPT = Sample(
    "drawing/a photo of a vase",
    Task.TEXT_TO_IMAGE,
    (Text("a photo of a vase"),),
    facts={"category": "single", "question": "What is it?", "answer": "Vase", "include": []},
)
PIXELS = Image(np.zeros((24, 24, 3), np.uint8))
CODES = DrawnImage(np.zeros((16, 1), np.int64))


@pytest.mark.parametrize("picture", [PIXELS, CODES], ids=["pixels", "codes"])
def test_a_question_shows_the_drawing(picture):
    question = ask_about(PROMPT, picture)
    assert question.id == "own/drawing/a photo of a vase"
    assert question.task == Task.UNDERSTANDING
    assert question.prompt[0] is picture
    assert question.prompt[1:] == (Text("What is it?"),)
    assert question.target == (Text("Vase"),)
    assert question.facts == PROMPT.facts


@pytest.mark.parametrize("missing", ["question", "answer"])
def test_a_sample_without_a_question_is_refused(missing):
    facts = {key: value for key, value in PROMPT.facts.items() if key != missing}
    sample = Sample(PROMPT.id, PROMPT.task, PROMPT.prompt, facts=facts)
    with pytest.raises(DataError, match=f"no fact '{missing}' to ask about its drawing"):
        ask_about(sample, PIXELS)


# -- both worlds -----------------------------------------------------------------------------------

SOURCES = {
    "everyday": SelfQuestionSource,
    "micro": lambda **settings: MicroSelfQuestionSource("train", **settings),
}


@pytest.mark.parametrize("world", SOURCES)
def test_samples_say_what_to_draw_and_what_to_ask(world):
    for sample in drawn(SOURCES[world](), 100):
        assert (sample.task, sample.target) == (Task.TEXT_TO_IMAGE, ())
        assert sample.id == f"drawing/{sample.prompt_text}"
        assert sample.facts["category"] in CATEGORIES
        assert json.loads(json.dumps(sample.facts)) == sample.facts
        assert ask_about(sample, PIXELS).target == (Text(sample.facts["answer"]),)


@pytest.mark.parametrize("world", SOURCES)
def test_weights_are_met(world):
    source = SOURCES[world](categories=["single", "color_attr", "two"], weights=[3, 1, 0])
    found = collections.Counter(sample.facts["category"] for sample in drawn(source, 1000))
    # 750 expected, one deviation is (1000 * 3/4 * 1/4) ** 0.5 = 13.7
    assert set(found) == {"single", "attribution"}
    assert abs(found["single"] - 750) < 4 * 13.7


@pytest.mark.parametrize("world", SOURCES)
def test_a_stream_is_resumed(world):
    sources, ratios = {"own": SOURCES[world]()}, {"own": 1.0}
    whole = list(itertools.islice(MixtureStream(sources, ratios, seed=5), 12))
    rest = list(itertools.islice(MixtureStream(sources, ratios, seed=5, start=8), 4))
    assert [sample.id for sample in rest] == [sample.id for sample in whole[8:]]


@pytest.mark.parametrize("world", SOURCES)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"categories": ["colour"]}, "category 'colour' does not exist; did you mean 'color"),
        ({"categories": []}, r"categories=\[\] must name some of single"),
        ({"weights": [1]}, "must give each of the 6 categories a weight"),
        ({"weights": [0] * 6}, "not all of them 0"),
        ({"weights": [1, 1, 1, 1, 1, -1]}, "a weight >= 0"),
        ({"weights": [1, 1, 1, 1, 1, float("nan")]}, "a weight >= 0"),
        ({"held_out": ["crosss"]}, "held_out='crosss' is no object"),
    ],
)
def test_settings_that_do_not_fit_are_refused(world, settings, message):
    with pytest.raises(ConfigError, match=message):
        SOURCES[world](**settings)


# -- everyday objects ------------------------------------------------------------------------------


def test_everyday_settings_reach_the_prompts(tmp_path):
    (tmp_path / "mine.txt").write_text("\n".join(f"two {name}s" for name in ("lamp", "crown")))
    source = SelfQuestionSource(
        ["counting"], wording="released", held_out=["zebra"], exclude=str(tmp_path / "mine.txt")
    )
    samples = drawn(source, 3000)
    prompts = {sample.prompt_text for sample in samples}
    # 400 without GenEval's; zebras lose the one of three that is not GenEval's, 2 are excluded
    assert len(prompts) == 400 - 1 - 2
    assert not any("zebra" in prompt for prompt in prompts)
    assert "a photo of two lamps" not in prompts
    assert samples[0].facts["answer"][0].islower()


def test_seeds_have_prompts_of_their_own():
    ids = [[s.id for s in drawn(SelfQuestionSource(seed=seed), 20)] for seed in (0, 1)]
    assert ids[0] != ids[1]


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"nowhere\.jsonl cannot be read"):
        SelfQuestionSource(exclude="nowhere.jsonl")


def test_weight_zero_needs_no_prompts(tmp_path):
    held_out = [thing for thing in SHAPES if thing != "circle"]
    with pytest.raises(ConfigError, match="nothing remains of category 'two'"):
        MicroSelfQuestionSource("train", held_out=held_out)
    MicroSelfQuestionSource("train", ["single", "two"], [1, 0], held_out)


# -- the micro-world -------------------------------------------------------------------------------


def every_micro_sample(category, split, **settings):
    """Each prompt's sample once; 40 draws a prompt leave none out."""
    texts = [prompt.text for prompt in micro.prompts(category, split)]
    source = MicroSelfQuestionSource(split, [category], **settings)
    return {sample.prompt_text: sample for sample in drawn(source, 40 * len(texts))}


def test_categories_are_those_of_the_micro_world():
    assert CATEGORIES == micro.CATEGORIES


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("category", ["single", "two", "counting", "colors", "position"])
def test_only_and_all_prompts_of_the_split_are_drawn(category, split):
    prompts = {prompt.text: prompt for prompt in micro.prompts(category, split)}
    samples = every_micro_sample(category, split)
    assert set(samples) == set(prompts)
    for text, sample in samples.items():
        assert Facts.from_json(sample.facts["facts"]) == prompts[text].facts


def test_attribution_keeps_to_the_facts_of_its_split():
    keys = {prompt.facts.key() for prompt in micro.prompts("attribution", "train")}
    for sample in drawn(MicroSelfQuestionSource("train", ["attribution"]), 500):
        assert Facts.from_json(sample.facts["facts"]).key() in keys


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_judge_of_the_micro_world_takes_the_gold_answer(category):
    rng = np.random.default_rng(0)
    for sample in drawn(MicroSelfQuestionSource("train", [category]), 60):
        facts = Facts.from_json(sample.facts["facts"])
        scene = compose(facts, rng)
        assert verify(render(scene), facts).correct
        question = ask(category, scene)
        assert question.question == sample.facts["question"]
        assert judge_answer(question, sample.facts["answer"])
        # word for word what the world would have said, the order of the prompt kept
        assert sample.facts["answer"] == question.answer
        assert not judge_answer(question, "a black dog")


def test_every_word_is_in_the_vocabulary():
    words = set(vocabulary())
    for sample in drawn(MicroSelfQuestionSource("train"), 500):
        for text in (sample.prompt_text, sample.facts["question"], sample.facts["answer"]):
            assert set(text.split()) <= words


@pytest.mark.parametrize("category", CATEGORIES)
def test_include_says_what_the_facts_say(category):
    for sample in drawn(MicroSelfQuestionSource("train", [category]), 60):
        items, include = sample.facts["facts"]["items"], sample.facts["include"]
        if category == "position":  # the second entry relates to the first
            (relation,) = sample.facts["facts"]["relations"]
            assert include[1]["position"] == [relation["kind"], 0]
            include = include[::-1]
        told = [{k: e.get(k) for k in ("class", "color", "count")} for e in include]
        assert told == [
            {"class": item["shape"], "color": item["color"], "count": item["count"]}
            for item in items
        ]


def test_held_out_shapes_never_appear():
    for sample in drawn(MicroSelfQuestionSource("train", held_out=["cross"]), 500):
        assert "cross" not in json.dumps([sample.prompt_text, sample.facts])


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="split='dev' is none of train, validation, test"):
        MicroSelfQuestionSource("dev")
