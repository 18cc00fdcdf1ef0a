"""Detections and verdicts out of files, and what is wrong with them."""

import io
import zipfile

import numpy as np
import pytest

from tests.evaluation.drawers import lines
from unified_rl.core.errors import ConfigError, DataError
from unified_rl.evaluation.geneval.detection_files import FILE_BYTES, DetectionFiles
from unified_rl.evaluation.geneval.metadata import CLASSES, request_of
from unified_rl.evaluation.geneval.scorer import DetectionScorer, OfficialResults, place_of
from unified_rl.evaluation.geneval.scoring import Thresholds

NAME = "00003/samples/00001.png"
PIXELS = np.zeros((6, 5, 3), np.uint8)  # 30 pixels: masks of 4 bytes
DOG, CAT = CLASSES.index("dog"), CLASSES.index("cat")
MASKS = np.random.default_rng(0).random((2, 6, 5)) < 0.5
TWO = {
    "boxes": np.array([[0, 1, 2, 3], [1, 1, 4, 5]], np.float32),
    "scores": np.array([0.5, 0.95], np.float32),
    "classes": np.array([CAT, DOG]),
    "masks": np.packbits(MASKS.reshape(2, -1), axis=1),
}


def request(tag="single_object", **clause):
    include = [{"class": "dog", "count": 1, **clause}]
    return request_of({"tag": tag, "prompt": "a photo of a dog", "include": include})


def written(tmp_path, **arrays):
    place = tmp_path / "00003"
    place.mkdir(exist_ok=True)
    np.savez_compressed(place / "00001.npz", **arrays)
    return DetectionFiles(str(tmp_path), "mmdet", official=True)


def test_detections_are_read(tmp_path):
    objects = written(tmp_path, **TWO).detect(NAME, PIXELS)
    assert set(objects) == {"dog", "cat"}
    (dog,) = objects["dog"]
    assert dog.box.tolist() == [1, 1, 4, 5]
    assert dog.score == pytest.approx(0.95)
    assert (dog.mask == MASKS[1]).all()


def test_masks_may_be_left_out(tmp_path):
    arrays = {name: TWO[name] for name in ("boxes", "scores", "classes")}
    assert written(tmp_path, **arrays).detect(NAME, PIXELS)["cat"][0].mask is None


def test_a_picture_without_objects_is_fine(tmp_path):
    empty = {name: array[:0] for name, array in TWO.items()}
    assert written(tmp_path, **empty).detect(NAME, PIXELS) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": np.array([80, 0])}, "class indices outside"),
        ({"classes": np.array([0.5, 1.0])}, "other kinds"),
        ({"scores": np.array([np.nan, 0.5])}, "not finite"),
        ({"boxes": TWO["boxes"][:1]}, "has boxes"),
        ({"masks": TWO["masks"][:, :3]}, "has masks"),
        ({"masks": TWO["masks"].astype(np.int16)}, "has masks"),
        ({"scores": np.array(["a", "b"], object)}, "cannot be read"),  # would need pickle
    ],
)
def test_broken_detections_are_refused(tmp_path, change, said):
    detector = written(tmp_path, **{**TWO, **change})
    with pytest.raises(DataError, match=said):
        detector.detect(NAME, PIXELS)


def test_missing_detections_name_the_script(tmp_path):
    detector = written(tmp_path, **TWO)
    with pytest.raises(DataError, match=r"no .*00002\.npz; run the script"):
        detector.detect("00003/samples/00002.png", PIXELS)
    with pytest.raises(ConfigError, match="geneval_pictures"):
        DetectionFiles(str(tmp_path / "none"), "mmdet", True)


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path):
    detector = written(tmp_path, **TWO)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(0, np.float32))
    with zipfile.ZipFile(tmp_path / "00003" / "00001.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("boxes.npy", buffer.getvalue())
        archive.writestr("masks.npy", b"\0" * (FILE_BYTES + 1))
    with pytest.raises(DataError, match="unpacks to"):
        detector.detect(NAME, PIXELS)


def test_a_scorer_follows_the_detections(tmp_path):
    score = DetectionScorer(written(tmp_path, **TWO))
    assert score(NAME, PIXELS, request()).correct
    assert score(NAME, PIXELS, request("counting")).correct  # .95 is sure enough
    cat = request_of({"tag": "counting", "prompt": "p", "include": [{"class": "cat", "count": 1}]})
    assert not score(NAME, PIXELS, cat).correct  # .5 is not
    with pytest.raises(DataError, match="scorer.colours"):
        score(NAME, PIXELS, request("colors", color="red"))


def test_what_is_not_genevals_own_is_said(tmp_path):
    detector = written(tmp_path, **TWO)
    assert DetectionScorer(detector).describe()["differences"] == []
    other = DetectionFiles(str(tmp_path), "YOLO", official=False)
    differences = DetectionScorer(other, thresholds=Thresholds(score=0.5)).describe()["differences"]
    assert len(differences) == 2
    assert "YOLO" in differences[0]


RESULT = {
    "filename": f"somewhere/out/{NAME}",
    "tag": "single_object",
    "prompt": "a photo of a dog",
    "correct": False,
    "reason": "expected dog>=1, found 0",
    "metadata": "{}",
}


def test_the_official_tools_own_verdicts(tmp_path):
    right = {**RESULT, "filename": "out/00000/samples/0000.png", "correct": True}
    results = OfficialResults(lines(tmp_path / "results.jsonl", [RESULT, right]))
    assert results(NAME, PIXELS, request()) == (False, "expected dog>=1, found 0")
    assert results("00000/samples/00000.png", PIXELS, request()) == (True, "")
    assert results.describe()["differences"] == []
    with pytest.raises(DataError, match="no verdict on 00004"):
        results("00004/samples/00000.png", PIXELS, request())
    cat = request_of({"tag": "counting", "prompt": "p", "include": [{"class": "cat", "count": 1}]})
    with pytest.raises(DataError, match="it was drawn for 'p'"):
        results(NAME, PIXELS, cat)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([RESULT, RESULT], "line 2 judges .* a second time"),
        ([{**RESULT, "filename": "a.png"}], "filename"),
        ([{**RESULT, "correct": 1}], "correct"),
    ],
)
def test_results_that_do_not_fit_are_refused(tmp_path, rows, said):
    with pytest.raises(DataError, match=said):
        OfficialResults(lines(tmp_path / "results.jsonl", rows))


@pytest.mark.parametrize(
    ("name", "want"),
    [
        (NAME, (3, 1)),
        ("/a/b/3/samples/1.png", (3, 1)),
        (r"C:\out\00003\samples\0001.png", (3, 1)),
        ("00003/00001.png", None),
        ("a/samples/1.png", None),
        ("1/samples/x1.png", None),
        ("\u0663/samples/1.png", None),  # a digit of another script
    ],
)
def test_places(name, want):
    assert place_of(name) == want
