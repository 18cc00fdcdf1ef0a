"""Colours by a tiny CLIP against its parts, and what is cut out of a picture."""

import numpy as np
import pytest
import torch

from unified_rl.core.errors import ConfigError
from unified_rl.evaluation.geneval.colours import ColourClassifier, cut_out
from unified_rl.evaluation.geneval.detections import Found
from unified_rl.prompting.everyday import COLORS
from unified_rl.rewards.specimens import clip_folder

RNG = np.random.default_rng(1)
PICTURE = RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8)
MASK = RNG.random((40, 48)) < 0.5


def found(*box, mask=None):
    return Found(np.array(box, np.float64), 0.9, mask)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return ColourClassifier(str(clip_folder(tmp_path_factory.mktemp("clip"))))


def test_the_colour_is_that_of_the_nearest_captions(classifier):
    objects = [found(i, i, 20 + i, 30) for i in range(8)]
    model, tokenizer = classifier._model, classifier._tokenizer
    near = []
    with torch.no_grad():
        for colour in COLORS:
            texts = [
                f"a photo of a {colour} hot dog",
                f"a photo of a {colour}-colored hot dog",
                f"a photo of a {colour} object",
            ]
            each = []
            for text in texts:  # one by one, so that padding cannot matter
                words = tokenizer(text, return_tensors="pt")
                told = model.text_projection(model.text_model(**words).pooler_output)[0]
                each.append(told / told.norm())
            mean = sum(each) / 3
            near.append(mean / mean.norm())
        want = []
        for one in objects:
            crop = classifier._processor(images=cut_out(PICTURE, one), return_tensors="pt")
            seen = model.visual_projection(model.vision_model(**crop).pooler_output)[0]
            want.append(COLORS[int(torch.stack(near).mv(seen).argmax())])
    assert classifier(PICTURE, objects, "hot dog") == want
    assert len(set(want)) > 1, "a constant would pass"


def test_colours_of_one_batch_do_not_depend_on_each_other(classifier):
    objects = [found(i, 0, 20 + i, 30, mask=MASK) for i in range(20)]
    together = classifier(PICTURE, objects, "dog")
    assert together == [classifier(PICTURE, [one], "dog")[0] for one in objects]


def test_an_object_without_pixels_has_no_colour(classifier):
    nothing = found(5, 5, 5.4, 20)
    colours = classifier(PICTURE, [nothing, found(0, 0, 9, 9), nothing], "dog")
    assert colours[0] is colours[2] is None
    assert colours[1] in COLORS
    assert classifier(PICTURE, [], "dog") == []


def test_all_but_the_mask_is_grey():
    crop = np.array(cut_out(PICTURE, found(10.4, 4.6, 20, 15, mask=MASK)))
    want = np.where(MASK[..., None], PICTURE, 0x99)[5:15, 10:20]
    assert (crop == want).all()


def test_without_a_mask_the_box_is_taken():
    assert (np.array(cut_out(PICTURE, found(1, 2, 11, 12))) == PICTURE[2:12, 1:11]).all()


def test_an_empty_mask_leaves_grey():
    crop = cut_out(PICTURE, found(0, 0, 8, 8, mask=np.zeros((40, 48), bool)))
    assert set(np.array(crop).ravel()) == {0x99}


def test_a_box_beyond_the_picture_is_black_there_and_never_large():
    crop = np.array(cut_out(PICTURE, found(40, 30, 50, 42)))
    assert crop.shape == (12, 10, 3)
    assert (crop[:10, :8] == PICTURE[30:, 40:]).all()
    assert not crop[10:].any()
    huge = cut_out(PICTURE, found(-1e9, -1e9, 1e9, 1e9))
    assert huge.size == (3 * 48, 3 * 40)
    assert cut_out(PICTURE, found(1e6, 1e6, 2e6, 2e6)) is None


def test_a_mask_of_another_picture_is_refused():
    with pytest.raises(ConfigError, match=r"\(8, 8\)"):
        cut_out(PICTURE, found(0, 0, 5, 5, mask=np.ones((8, 8), bool)))
