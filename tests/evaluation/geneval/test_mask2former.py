"""Objects out of a mask classifier's queries: by hand, and end to end on a tiny random model."""

import numpy as np
import pytest
import torch
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    SwinConfig,
)

from unified_rl.core.errors import CheckpointError
from unified_rl.evaluation.geneval.mask2former import Mask2FormerDetector, box_of, read_queries
from unified_rl.evaluation.geneval.metadata import CLASSES


def folder(path, label_count=80):
    swin = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        image_size=32,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        num_attention_heads=2,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=5,
        num_labels=label_count,
    )
    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(config)
    for parameter in model.class_predictor.parameters():
        torch.nn.init.normal_(parameter, std=2.0)
    model.save_pretrained(path)
    size = {"shortest_edge": 64, "longest_edge": 100}
    Mask2FormerImageProcessorPil(size=size, size_divisor=32).save_pretrained(path)
    return str(path)


def test_queries_by_hand():
    """Two queries over a picture of 4 x 2; mask logits of ln 3 have a sigmoid of 3 / 4."""
    log3 = float(np.log(3))
    masks = torch.full((3, 2, 4), -1.0)
    masks[0, :, 1:3] = log3
    masks[1, 0, 0], masks[1, 1, 3] = 20, 20  # sigmoid 1
    classes = torch.full((3, 81), -1e9)
    classes[0, CLASSES.index("dog")] = classes[0, CLASSES.index("cat")] = 0  # half each
    classes[1, CLASSES.index("dog")], classes[1, 80] = 0, log3  # a quarter, the rest for none
    classes[2, CLASSES.index("bus")] = 0  # sure, but its mask is empty
    objects = read_queries(classes, masks)
    assert {name: len(found) for name, found in objects.items() if name in ("dog", "cat")} == {
        "dog": 2,
        "cat": 1,
    }
    by_box = {tuple(found.box): found for found in objects["dog"]}
    assert by_box[(1, 0, 3, 2)].score == pytest.approx(0.5 * 0.75, abs=1e-5)
    assert by_box[(0, 0, 4, 2)].score == pytest.approx(0.25, abs=1e-5)
    assert objects["cat"][0].score == pytest.approx(0.5 * 0.75, abs=1e-5)
    assert objects["cat"][0].mask.tolist() == [[False, True, True, False]] * 2
    assert "bus" not in objects


def test_only_the_surest_pairs_are_read():
    classes = torch.zeros(2, 81)
    classes[0, 3], classes[1, 7] = 5, 4
    objects = read_queries(classes, torch.ones(2, 3, 3), most=2)
    assert set(objects) == {CLASSES[3], CLASSES[7]}


def test_boxes_end_behind_the_mask():
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2] = True
    assert box_of(mask).tolist() == [2, 1, 3, 4]


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return Mask2FormerDetector(folder(tmp_path_factory.mktemp("mask2former")))


@pytest.mark.parametrize("shape", [(24, 36), (40, 40), (50, 20)])
def test_objects_lie_in_the_picture(detector, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    objects = detector.detect("x.png", pixels)
    count = sum(map(len, objects.values()))
    assert 0 < count <= 100
    assert set(objects) <= set(CLASSES)
    for found in (one for many in objects.values() for one in many):
        assert found.mask.shape == shape
        assert found.mask.any()
        assert 0 <= found.score <= 1
        assert (found.box == box_of(found.mask)).all()


def test_it_says_that_it_is_not_the_official_one(detector):
    described = detector.describe()
    assert described["official"] is False
    assert "not GenEval's" in described["note"]


def test_a_model_of_other_classes_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="3 classes, not COCO's 80"):
        Mask2FormerDetector(folder(tmp_path, 3))
