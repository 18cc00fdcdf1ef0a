"""Columns, padding, masks: small tapes laid out by hand."""

import torch

from unified_rl.decoding.tape import Columns, Kind, causal_visibility, image_visibility, stack

NO_IMAGES = torch.zeros(2, 0, 3, 8, 8)


def pair(left=False):
    """`5 6 | image of 2 codes | 7` beside `8`; two codes a position."""
    long = Columns(2).text([5, 6]).codes([[1, 2], [3, 4]], 0).text([7], 1, action=True)
    return stack([long, Columns(2).text([8])], NO_IMAGES, left)


def test_kinds():
    text, code, pad = Kind.TEXT, Kind.CODE, Kind.PAD
    assert pair().kind.tolist() == [[text, text, code, code, text], [text, pad, pad, pad, pad]]


def test_left_padding_leaves_the_same_columns():
    assert pair(left=True).kind[1].tolist() == [Kind.PAD] * 4 + [Kind.TEXT]
    assert pair(left=True).ids[1, :, 0].tolist() == [0, 0, 0, 0, 8]


def test_text_sits_at_depth_zero():
    assert pair().ids[0].tolist() == [[5, 0], [6, 0], [1, 2], [3, 4], [7, 0]]
    assert pair().action_mask[0].tolist() == [
        [False, False],
        [False, False],
        [True, True],
        [True, True],
        [True, False],
    ]


def test_positions_do_not_count_padding():
    assert pair(left=True).positions.tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 0, 0]]


def test_shown_images_are_no_actions():
    row = Columns(1).text([5]).shown_image(2)
    tape = stack([row], NO_IMAGES[:1])
    assert tape.kind.tolist() == [[Kind.TEXT, Kind.PIXEL, Kind.PIXEL]]
    assert not bool(tape.action_mask.any())


def test_causal_mask_of_a_left_padded_row():
    short, long = Columns(1).text([5, 6]), Columns(1).text([5, 6, 7])
    kind = stack([short, long], NO_IMAGES, left=True).kind
    mask = causal_visibility(kind)[0]
    # Padding sees padding, and no token does.
    assert mask.int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert torch.equal(causal_visibility(kind, 2)[0], mask[2:])


def test_blocks_join_an_image_and_its_borders():
    row = Columns(1).text([5], 0).text([6], 1).codes([[1], [2]], 1).text([7], 1).codes([[3]], 2)
    tape = stack([Columns(1).text([9]), row], NO_IMAGES)
    blocks = image_visibility(tape.kind, tape.segment)[1].int()
    image = [0, 1, 1, 1, 1, 0]
    assert blocks.tolist() == [[0] * 6, image, image, image, image, [0, 0, 0, 0, 0, 1]]
    assert not bool(image_visibility(tape.kind, tape.segment)[0].any())
    assert torch.equal(image_visibility(tape.kind, tape.segment, 2)[1].int(), blocks[2:])


def test_a_twin_ends_where_its_prompt_ends():
    shorter = Columns(1).text([5, 6, 7]).twin(Columns(1).text([8])).codes([[3]], 0)
    tape = stack([shorter], NO_IMAGES[:1])
    assert tape.twin.ids[0, :, 0].tolist() == [0, 0, 8, 3]
    assert tape.twin.kind.tolist() == [[Kind.PAD, Kind.PAD, Kind.TEXT, Kind.CODE]]
    longer = Columns(1).text([5]).twin(Columns(1).text([8, 9]))
    tape = stack([longer], NO_IMAGES[:1])
    assert tape.kind.tolist() == [[Kind.PAD, Kind.TEXT]]
    assert tape.twin.kind.tolist() == [[Kind.TEXT, Kind.TEXT]]


def test_a_twin_has_the_codes_of_its_row():
    tape = stack([Columns(1).text([5]).codes([[3]], 0)], NO_IMAGES[:1])
    moved = tape._replace(ids=tape.ids.index_fill(1, torch.tensor([1]), 4))
    assert moved.twin.ids[0, :, 0].tolist() == [5, 4]
