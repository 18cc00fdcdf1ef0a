"""Weights of a mixed batch by hand (D15, D4), and what they must sum to."""

import pytest
import torch

from tests.objectives.reference import invent
from unified_rl.objectives.aggregation import Aggregation

# row 0: two text tokens, then one image position of two codes; row 1: one text token; row 2: none
MODALITY = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 0, 0]])
MASK = torch.tensor(
    [
        [[1, 0], [1, 0], [1, 1]],
        [[1, 0], [0, 0], [0, 0]],
        [[0, 0], [0, 0], [0, 0]],
    ]
).bool()


@pytest.mark.parametrize(
    ("settings", "text_in_row_0", "code", "text_in_row_1"),
    [
        # three positions in row 0, codes halve theirs; three rows, the empty one included
        ({}, 1 / 9, 1 / 18, 1 / 3),
        # four codes in row 0
        ({"count": "codes"}, 1 / 12, 1 / 12, 1 / 3),
        # weights 1 + 1 + 4 = 6 in row 0; row 1 is text alone, its mean is what it was
        ({"image_weight": 4.0}, 1 / 18, 2 / 18, 1 / 3),
        # four positions in the batch
        ({"normalisation": "token"}, 1 / 4, 1 / 8, 1 / 4),
        ({"normalisation": "token", "count": "codes"}, 1 / 5, 1 / 5, 1 / 5),
        # 1 + 1 + 4 + 1 = 7
        ({"normalisation": "token", "image_weight": 4.0}, 1 / 7, 2 / 7, 1 / 7),
        ({"normalisation": "token", "text_weight": 0.0}, 0.0, 1 / 2, 0.0),
        # three rows of length 5
        ({"normalisation": "constant", "constant_length": 5}, 1 / 15, 1 / 30, 1 / 15),
        (
            {"normalisation": "constant", "constant_length": 5, "image_weight": 4.0},
            1 / 15,
            2 / 15,
            1 / 15,
        ),
        # row 1 has no image: nothing over nothing is 0
        ({"text_weight": 0.0}, 0.0, 1 / 6, 0.0),
    ],
)
def test_weights_by_hand(settings, text_in_row_0, code, text_in_row_1):
    want = torch.zeros(3, 3, 2)
    want[0, 0, 0] = want[0, 1, 0] = text_in_row_0
    want[0, 2] = code
    want[1, 0, 0] = text_in_row_1
    torch.testing.assert_close(Aggregation(**settings).token_weights(MASK, MODALITY), want)


@pytest.mark.parametrize("count", ["positions", "codes"])
@pytest.mark.parametrize("normalisation", ["sequence", "token"])
def test_weights_are_a_mean(normalisation, count):
    batch = invent(0)
    aggregation = Aggregation(normalisation, text_weight=0.3, image_weight=2.0, count=count)
    weights = aggregation.token_weights(batch["action_mask"], batch["modality"])
    # of the six rows the last is empty, and counts in B
    want = {"sequence": 5 / 6, "token": 1.0}[normalisation]
    torch.testing.assert_close(weights.sum(), torch.tensor(want))
    assert torch.equal(weights > 0, batch["action_mask"])


def test_an_empty_batch_weighs_nothing():
    empty = torch.zeros(2, 3, 1).bool()
    for settings in ({}, {"normalisation": "token"}):
        weights = Aggregation(**settings).token_weights(empty, torch.zeros(2, 3).long())
        assert torch.equal(weights, torch.zeros(2, 3, 1))


def test_two_ranks_with_the_mean_total_average_to_the_whole_batch():
    batch = invent(1)
    aggregation = Aggregation("token", image_weight=0.5)
    arguments = batch["action_mask"], batch["modality"]
    whole = aggregation.token_weights(*arguments)
    ranks = [tuple(a[rows] for a in arguments) for rows in (slice(0, 2), slice(2, 6))]
    total = sum(aggregation.total(*rank) for rank in ranks) / 2
    parts = [aggregation.token_weights(*rank, total=total) for rank in ranks]
    torch.testing.assert_close(torch.cat(parts) / 2, whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalisation": "row"}, "normalisation='row'"),
        ({"count": "tokens"}, "count='tokens'"),
        ({"text_weight": -1.0}, "text_weight=-1.0"),
        ({"text_weight": 0.0, "image_weight": 0.0}, "nothing to train on"),
        ({"normalisation": "constant"}, "constant_length=None"),
        ({"constant_length": 5}, "constant_length=5 is read by"),
    ],
)
def test_settings_that_cannot_hold(settings, message):
    with pytest.raises(ValueError, match=message):
        Aggregation(**settings)


def test_calls_that_cannot_hold():
    with pytest.raises(ValueError, match="total=3 is read by 'token' only"):
        Aggregation().token_weights(MASK, MODALITY, total=3)
    with pytest.raises(ValueError, match=r"are not \(B, L, D\)"):
        Aggregation().token_weights(MASK[..., 0], MODALITY)
