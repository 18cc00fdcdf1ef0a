"""Caption scores by hand."""

import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torchmetrics.functional.text.bert import bert_score

from unified_rl.core.errors import CheckpointError, ConfigError, RewardError
from unified_rl.rewards import caption_scores
from unified_rl.rewards.caption_scores import BertScore, SceneGraphScore, SpiceScore, stated
from unified_rl.rewards.specimens import bert_folder, blip_folder

LEFT = "a red circle left of a blue square"


@pytest.mark.parametrize(
    ("text", "tuples"),
    [
        (
            LEFT,
            {
                ("circle",),
                ("circle", "red"),
                ("square",),
                ("square", "blue"),
                ("circle", "left of", "square"),
            },
        ),
        ("A photo of three circles!", {("circle",), ("circle", "3")}),
        ("a square below a cross", {("square",), ("cross",), ("cross", "above", "square")}),
        ("one circle and zero squares", {("circle",)}),
        ("2 red circles", {("circle",), ("circle", "red"), ("circle", "2")}),
        ("something red", {("object", "red")}),
        ("a dog on a horse", set()),
        ("", set()),
    ],
)
def test_what_a_text_states(text, tuples):
    assert stated(text) == tuples


@pytest.mark.parametrize(
    ("reference", "caption", "score"),
    [
        (LEFT, LEFT, 1),
        (LEFT, "a blue square right of a red circle", 1),
        ("a red circle and a blue square", "a photo of a blue square and a red circle", 1),
        # the relation the wrong way round: 4 of 5 and 5 tuples match, 2 * 4 / 10
        (LEFT, "a red circle right of a blue square", 0.8),
        # no relation: 2 * 4 / (5 + 4)
        (LEFT, "a red circle and a blue square", 8 / 9),
        # colours swapped: the two objects and the relation, 2 * 3 / 10
        (LEFT, "a blue circle left of a red square", 0.6),
        # one object: 2 * 2 / (5 + 2)
        (LEFT, "a red circle", 4 / 7),
        # the wrong number: the object alone, 2 * 1 / (2 + 2)
        ("three circles", "two circles", 0.5),
        # a detail that was not asked for: 2 * 1 / (1 + 2)
        ("a circle", "a red circle", 2 / 3),
        (LEFT, "a green triangle", 0),
        (LEFT, "a dog", 0),
        (LEFT, "", 0),
        ("a dog", "a dog", 0),
    ],
)
def test_scene_graphs(reference, caption, score):
    assert SceneGraphScore()([reference], [caption]) == [pytest.approx(score)]
    assert SceneGraphScore()([caption], [reference]) == [pytest.approx(score)]


@pytest.mark.parametrize(
    "caption",
    [
        "9" * 100_000,
        "a red circle left of " * 5_000,
        "left of " * 12_500,
        "two " * 25_000,
        "é<think>\x00" * 11_000,
    ],
)
def test_long_captions_are_read(caption):
    (score,) = SceneGraphScore()([LEFT], [caption])
    assert 0 <= score <= 1


def test_a_row_does_not_depend_on_the_others():
    captions = [LEFT, "", "three circles", "a blue circle"]
    together = SceneGraphScore()([LEFT] * 4, captions)
    assert together == [SceneGraphScore()([LEFT], [caption])[0] for caption in captions]
    assert len(set(together)) == 3


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert"))


def by_hand(score, reference, caption):
    """F1 of greedy matching, first and last token left out; none matches below 0."""
    vectors = []
    for text in (reference, caption):
        words = score._tokenizer(text, return_tensors="pt")
        hidden = score._model(**words).last_hidden_state[0, 1:-1]
        vectors.append(hidden / hidden.norm(dim=-1, keepdim=True))
    cosines = (vectors[0] @ vectors[1].T).clamp(min=0)
    recall, precision = cosines.max(1).values.mean(), cosines.max(0).values.mean()
    return float(2 * precision * recall / (precision + recall))


def test_bert_score(bert):
    score = BertScore(str(bert))
    references = [LEFT, "a circle", "two circles and a square", "a red", LEFT]
    captions = ["a circle", "two blue circles right of a square", LEFT, "", LEFT]
    found = score(references, captions)
    pairs = list(zip(references, captions, strict=True))
    want = [by_hand(score, a, b) if b else 0.0 for a, b in pairs]
    assert found == pytest.approx(want, abs=1e-5)
    assert found[4] == pytest.approx(1)
    assert all(0 < value < 0.99 for value in found[:3])
    assert found == pytest.approx([score([a], [b])[0] for a, b in pairs], abs=1e-5)
    assert torch.is_grad_enabled()
    halves = BertScore(str(bert), batch_size=2)
    assert halves(references, captions) == pytest.approx(found, abs=1e-5)


def test_bert_score_of_one_pair_is_torchmetrics(bert):
    score = BertScore(str(bert))
    for reference, caption in ((LEFT, "a circle"), ("two circles and a square", LEFT)):
        found = bert_score(
            [caption],
            [reference],
            model=score._model,
            user_tokenizer=score._tokenizer,
            max_length=64,
            truncation=True,
        )
        assert score([reference], [caption]) == pytest.approx([float(found["f1"])], abs=1e-5)


def test_bert_score_that_is_not_finite_is_seen(bert):
    score = BertScore(str(bert))
    with torch.no_grad():
        score._model.encoder.layer[0].output.dense.bias.fill_(math.nan)
    assert math.isnan(score([LEFT], ["a circle"])[0])


def test_bert_score_of_no_tokens_is_0(bert):
    assert BertScore(str(bert))([LEFT, "\x00", LEFT], ["\x00\x01", LEFT, "  "]) == [0, 0, 0]


def test_bert_score_cuts_long_texts(bert):
    (value,) = BertScore(str(bert))(["a red circle"], ["circle " * 15_000])
    assert 0 <= value <= 1


def test_folders_are_checked(bert, tmp_path):
    with pytest.raises(CheckpointError, match="caption_score.checkpoint=.*nowhere is not a folder"):
        BertScore(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="holds no model.safetensors"):
        BertScore(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="no config.json that names a model_type"):
        BertScore(str(tmp_path))
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(CheckpointError, match="no tokenizer"):
        BertScore(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text((bert / "tokenizer.json").read_text())
    with pytest.raises(CheckpointError, match="cannot be read"):
        BertScore(str(tmp_path))
    # a folder with weights of another model, relabelled
    blip = blip_folder(tmp_path / "blip")
    (blip / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"lacks \d+ weights"):
        BertScore(str(blip))


def test_dtype_and_device_are_checked(bert):
    with pytest.raises(ConfigError, match="dtype='int8' is none of float32"):
        BertScore(str(bert), dtype="int8")
    with pytest.raises(ConfigError, match="batch_size=0"):
        BertScore(str(bert), batch_size=0)
    with pytest.raises(ConfigError, match="device='abacus'"):
        BertScore(str(bert), device="abacus")


def test_spice_names_all_that_is_missing(monkeypatch):
    monkeypatch.setattr(caption_scores.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(caption_scores.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="pycocoevalcap.*, and Java.*, and Stanford"):
        SpiceScore()


@pytest.fixture
def pycocoevalcap(monkeypatch, tmp_path):
    """A package of the same form, which scores a caption by its length over ten."""

    class Spice:
        def compute_score(self, gts, res):
            assert all(isinstance(texts, list) and len(texts) == 1 for texts in gts.values())
            if res[0] == ["crash"]:
                raise OSError("java returned 1")
            # the package answers in the order of the sorted names
            scores = [{"All": {"f": len(res[name][0]) / 10}} for name in sorted(gts)]
            return 0.5, scores

    package = ModuleType("pycocoevalcap")
    package.__spec__ = ModuleSpec("pycocoevalcap", None, is_package=True)
    package.__spec__.submodule_search_locations = [str(tmp_path)]
    package.__path__ = []
    modules = {"pycocoevalcap": package}
    for name in ("pycocoevalcap.spice", "pycocoevalcap.spice.spice"):
        modules[name] = ModuleType(name)
        modules[name].__path__ = []
    modules["pycocoevalcap.spice.spice"].Spice = Spice
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(caption_scores.shutil, "which", lambda name: "/bin/java")
    return tmp_path / "spice" / "lib"


def test_spice_downloads_nothing(pycocoevalcap):
    with pytest.raises(ConfigError, match="^SPICE needs Stanford's parser"):
        SpiceScore()


def test_spice_keeps_the_order(pycocoevalcap):
    pycocoevalcap.mkdir(parents=True)
    for jar in caption_scores.SPICE_MODELS:
        (pycocoevalcap / jar).touch()
    score = SpiceScore()
    captions = ["", *("a" * (row % 10 + 1) for row in range(11)), "  "]
    want = [0, *((row % 10 + 1) / 10 for row in range(11)), 0]
    assert score(["x"] * 13, captions) == pytest.approx(want)
    with pytest.raises(RewardError, match="OSError: java returned 1"):
        score(["x"], ["crash"])
