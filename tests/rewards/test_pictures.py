"""Pictures at another size, by hand."""

import numpy as np
import pytest

from unified_rl.rewards.pictures import resized

PICTURE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
"""Of 3 x 2 px; the first channel is 0, 3, 6 above 9, 12, 15."""


@pytest.mark.parametrize(
    ("size", "first_channel"),
    [
        (1, [[0]]),
        # rows 0 2/2 = 0 and 1 2/2 = 1; columns 0 3/2 = 0 and 1 3/2 = 1
        (2, [[0, 3], [9, 12]]),
        # rows 0, 0, 1, 1; columns 0, 3/4, 6/4, 9/4 are 0, 0, 1, 2
        (4, [[0, 0, 3, 6], [0, 0, 3, 6], [9, 9, 12, 15], [9, 9, 12, 15]]),
    ],
)
def test_each_pixel_is_the_nearest(size, first_channel):
    picture = resized(PICTURE, size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8
    assert picture[..., 0].tolist() == first_channel
    assert (picture[..., 2] - picture[..., 0] == 2).all()


def test_a_picture_of_that_size_stays_as_it_is():
    square = PICTURE[:, :2]
    assert np.array_equal(resized(square, 2), square)
