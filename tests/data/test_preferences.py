"""Folders of preferences: what is written is read back, and what is damaged is told."""

import json
import re

import numpy as np
import pytest

from unified_rl.core.errors import ConfigError, DataError
from unified_rl.core.sample import DrawnImage, Image, Sample, Task, Text
from unified_rl.data.preferences import PreferenceFolder, PreferenceSource
from unified_rl.data.ranked import Choice, Ranked

FACTS = {"category": "colors", "question": "what color", "answer": "red", "include": []}
MANIFEST = {"weights": "abc", "builder": {"image_count": 4, "top_ks": (1, 2)}}
RNG = np.random.default_rng


def prompt(name="a red circle"):
    return Sample(f"drawing/{name}", Task.TEXT_TO_IMAGE, (Text(name),), facts=FACTS)


def drawn(seed):
    return DrawnImage(RNG(seed).integers(16, size=(9, 2)))


def ranked(name="a red circle", drawings=True, answers=True, picture=None):
    return Ranked(
        prompt(name),
        Choice(drawn(1), drawn(2), 0.75, 0.5) if drawings else None,
        (picture or drawn(3)) if answers else None,
        Choice(Text("red"), Text("blue"), 1.0, 0.0) if answers else None,
    )


@pytest.fixture
def folder(tmp_path):
    """Begun."""
    found = PreferenceFolder(tmp_path / "made")
    found.begin(MANIFEST)
    return found


def filled(folder, *items):
    for item in items:
        folder.write(item)
    return folder.finish({item.sample.id: item.halves for item in items})


def test_what_is_written_is_read_back(folder):
    folder.write(ranked())
    found = folder.read("drawing/a red circle")
    assert found.sample.facts == FACTS
    assert (found.sample.id, found.sample.prompt_text) == ("drawing/a red circle", "a red circle")
    assert np.array_equal(found.drawings.win.codes, drawn(1).codes)
    assert np.array_equal(found.drawings.lose.codes, drawn(2).codes)
    assert (found.drawings.win_score, found.drawings.lose_score) == (0.75, 0.5)
    assert np.array_equal(found.picture.codes, drawn(3).codes)
    assert (found.answers.win, found.answers.lose) == (Text("red"), Text("blue"))


def test_pixels_are_kept_as_they_are(folder):
    pixels = RNG(0).integers(256, size=(24, 24, 3), dtype=np.uint8)
    folder.write(ranked(picture=Image(pixels)))
    assert np.array_equal(folder.read(prompt().id).picture.pixels, pixels)


def test_a_preference_has_what_there_is():
    both = ranked().preference
    assert [s.target[0].codes.sum() for s in both.drawings] == [
        drawn(1).codes.sum(),
        drawn(2).codes.sum(),
    ]
    assert [s.prompt_text for s in both.drawings] == ["a red circle"] * 2
    assert [s.target[0].text for s in both.answers] == ["red", "blue"]
    for sample in both.answers:
        assert sample.task is Task.UNDERSTANDING
        assert sample.prompt[0].codes.sum() == drawn(3).codes.sum()
        assert sample.prompt[1] == Text("what color")
    assert ranked(answers=False).preference.answers is None
    assert ranked(drawings=False).preference.drawings is None
    assert ranked(drawings=False, answers=False).preference is None


def test_the_summary_counts_halves_and_tells_folders_apart(folder, tmp_path):
    items = [ranked("a"), ranked("b", answers=False), ranked("c", False), ranked("d", False, False)]
    summary = filled(folder, *items)
    assert [summary[k] for k in ("prompts", "drawing_pairs", "answer_pairs")] == [4, 2, 2]
    assert folder.summary() == summary
    other = PreferenceFolder(tmp_path / "other")
    other.begin(MANIFEST)
    assert filled(other, *items)["digest"] == summary["digest"]
    assert filled(other, *items[:3])["digest"] != summary["digest"]


def test_a_source_draws_what_teaches(folder):
    filled(folder, ranked("a"), ranked("b", answers=False), ranked("d", False, False))
    source = PreferenceSource(str(folder.path))
    assert len(source) == 2
    ids = {source.draw(RNG(seed)).id for seed in range(20)}
    assert ids == {"drawing/a + own/drawing/a", "drawing/b"}
    both = PreferenceSource(str(folder.path), halves="both")
    assert {both.draw(RNG(seed)).id for seed in range(20)} == {"drawing/a + own/drawing/a"}


def test_a_folder_that_was_begun_alike_goes_on(folder):
    folder.write(ranked())
    folder.begin(MANIFEST)
    assert folder.read(prompt().id) is not None


def test_a_folder_that_was_begun_otherwise_is_refused_or_replaced(folder):
    filled(folder, ranked())
    other = {"weights": "abd", "builder": {"image_count": 8, "top_ks": [1, 2]}}
    with pytest.raises(ConfigError, match=r"\(builder.image_count, weights\); give another folder"):
        folder.begin(other)
    assert folder.read(prompt().id) is not None
    folder.begin(other, anew=True)
    assert folder.read(prompt().id) is None
    assert [path.name for path in folder.path.iterdir()] == ["manifest.json"]


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(ConfigError, match="give another folder"):
        PreferenceFolder(tmp_path).begin(MANIFEST, anew=True)
    assert (tmp_path / "notes.json").is_file()


def only_file(folder):
    (path,) = (p for p in folder.path.glob("*.json") if len(p.stem) == 24)
    return path


def rewritten(**changes):
    return lambda text: json.dumps(json.loads(text) | changes)


CODES = {"codes": [[1, 2]]}
SCORES = {"win_score": 1.0, "lose_score": 0.0}
DAMAGES = {
    "cut off": (lambda text: text[:-20], "is not JSON"),
    "not an object": (lambda text: "[1]", "is not a JSON object"),
    "deep": (lambda text: "[" * 100_000, "is not JSON"),
    "long": (lambda text: text + " " * 2**22, "is longer than"),
    "another key": (rewritten(more=1), "has .*, not .*"),
    "a number for a text": (rewritten(prompt=3), "no text"),
    "no facts": (rewritten(facts=[]), "facts that are no object"),
    "no question": (rewritten(facts={}), "has no fact 'question'"),
    "no picture": (rewritten(picture=None), "answers without a picture"),
    "a broken picture": (rewritten(picture={"png": "AAAA"}), "has a picture that is unreadable"),
    "no base64": (rewritten(picture={"png": "é"}), "has a picture that"),
    "a picture of words": (rewritten(picture={"text": "red"}), "'text' where it may not stand"),
    "no choice": (rewritten(drawings=[]), "a choice that is not of"),
    "words for codes": (
        rewritten(drawings={"win": {"text": "a"}, "lose": CODES, **SCORES}),
        "'text' where it may not stand",
    ),
    "ragged codes": (
        rewritten(drawings={"win": {"codes": [[1], [1, 2]]}, "lose": CODES, **SCORES}),
        "codes that form no table",
    ),
    "fractions": (
        rewritten(drawings={"win": {"codes": [[1.5]]}, "lose": CODES, **SCORES}),
        "no table of whole numbers",
    ),
    "huge codes": (
        rewritten(drawings={"win": {"codes": [[10**30]]}, "lose": CODES, **SCORES}),
        "no table of whole numbers",
    ),
    "no codes": (
        rewritten(drawings={"win": {"codes": []}, "lose": CODES, **SCORES}),
        "no table of whole numbers",
    ),
    "equal scores": (
        rewritten(drawings={"win": CODES, "lose": CODES, "win_score": 1, "lose_score": 1}),
        "the first has to be greater",
    ),
    "a huge score": (
        rewritten(drawings={"win": CODES, "lose": CODES, "win_score": 10**400, "lose_score": 0}),
        "the first has to be greater",
    ),
    "a switch for a score": (
        rewritten(drawings={"win": CODES, "lose": CODES, "win_score": True, "lose_score": 0}),
        "the first has to be greater",
    ),
    "no scores": (
        rewritten(drawings={"win": CODES, "lose": CODES, "win_score": "1", "lose_score": 0}),
        "the first has to be greater",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_and_read_as_nothing(folder, name):
    filled(folder, ranked())
    damage, says = DAMAGES[name]
    path = only_file(folder)
    path.write_text(damage(path.read_text()))
    assert folder.read(prompt().id) is None
    with pytest.raises(DataError, match=says) as error:
        PreferenceSource(str(folder.path)).draw(RNG(0))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_a_file_under_another_name_is_nothing(folder):
    folder.write(ranked("a"))
    only_file(folder).rename(folder._place("drawing/b"))
    assert folder.read("drawing/b") is None


def test_an_unfinished_folder_is_not_learnt_from(folder, tmp_path):
    folder.write(ranked())
    with pytest.raises(DataError, match=r"is not finished; make them with python -m unified_rl.pr"):
        PreferenceSource(str(folder.path))
    with pytest.raises(DataError, match="has no preferences"):
        PreferenceSource(str(tmp_path / "nowhere"))


def test_a_source_takes_the_folder_that_is_meant(folder):
    digest = filled(folder, ranked())["digest"]
    assert PreferenceSource(str(folder.path), digest=digest)
    with pytest.raises(DataError, match=f"of digest {digest}, not 0123"):
        PreferenceSource(str(folder.path), digest="0123")


PLACE = f"{'0' * 24}.json"


@pytest.mark.parametrize(
    "files",
    [
        None,
        {"../../x.json": [True, True]},
        {"..": [True, True]},
        {"x\0.json": [True, True]},
        {"manifest.json": [True, True]},
        {PLACE: [1, 1]},
        {PLACE: [True]},
    ],
)
def test_a_summary_that_leads_astray_is_refused(folder, files):
    filled(folder, ranked())
    path = folder.path / "summary.json"
    path.write_text(json.dumps({"digest": "0123", "files": files}))
    with pytest.raises(DataError, match=re.escape(str(path))):
        PreferenceSource(str(folder.path))


def test_nothing_to_learn_is_refused(folder):
    with pytest.raises(DataError, match=r"of 1 prompts none .* builder.threshold"):
        filled(folder, ranked(drawings=False, answers=False))
    filled(folder, ranked(answers=False))
    with pytest.raises(DataError, match="halves=any"):
        PreferenceSource(str(folder.path), halves="both")
    with pytest.raises(ConfigError, match="halves='some'"):
        PreferenceSource(str(folder.path), halves="some")


def test_facts_that_are_no_json_are_refused(folder):
    sample = Sample("x", Task.TEXT_TO_IMAGE, (Text("x"),), facts=FACTS | {"more": {1, 2}})
    with pytest.raises(DataError, match="cannot be written as JSON"):
        folder.write(Ranked(sample, None, None, None))
    assert not list(folder.path.glob("*.tmp"))
