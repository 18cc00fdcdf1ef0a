"""Masks as bits and back."""

import pytest
import torch

from unified_rl.decoding.support import pack, unpack


def test_bits_by_hand():
    # 1 + 4 of the first eight, 128 of them in the second row; 2 of the rest.
    kept = torch.zeros(2, 10, dtype=torch.bool)
    kept[0, 0] = kept[0, 2] = kept[1, 7] = kept[1, 9] = True
    assert pack(kept).tolist() == [[5, 0], [128, 2]]
    assert pack(kept).dtype == torch.uint8


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 67])
def test_what_was_packed_comes_back(count):
    kept = torch.rand(3, 2, count, generator=torch.Generator().manual_seed(0)) < 0.5
    packed = pack(kept)
    assert packed.shape == (3, 2, -(-count // 8))
    assert torch.equal(unpack(packed, count), kept)


def test_all_and_nothing_come_back():
    for kept in (torch.ones(2, 16, dtype=torch.bool), torch.zeros(2, 16, dtype=torch.bool)):
        assert torch.equal(unpack(pack(kept), 16), kept)
    assert unpack(pack(torch.zeros(0, 9, dtype=torch.bool)), 9).shape == (0, 9)
