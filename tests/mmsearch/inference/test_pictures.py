"""Whatever is given as a picture becomes one upright RGB image, or is refused with what was found and expected."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmsearch.errors import QueryError
from mmsearch.inference.pictures import to_image


def test_every_shape_of_picture_becomes_rgb() -> None:
    assert to_image(np.zeros((5, 7), np.uint8), 32).mode == "RGB"
    assert to_image(np.zeros((5, 7, 4), np.uint8), 32).getpixel((0, 0)) == (255, 255, 255)  # transparent: white
    assert to_image(Image.new("LA", (3, 3), (0, 0)), 32).getpixel((0, 0)) == (255, 255, 255)
    assert to_image(Image.new("L", (3, 3), 9), 32).getpixel((0, 0)) == (9, 9, 9)
    upright = Image.new("RGB", (10, 20))
    upright.getexif()[0x0112] = 6  # turned by a quarter
    assert to_image(upright, 32).size == (20, 10)


@pytest.mark.parametrize(
    "array", [np.zeros((5, 7, 3), np.float32), np.zeros((5, 7, 2), np.uint8), np.zeros((2, 5, 7, 3), np.uint8)]
)
def test_an_array_of_another_kind_is_refused_with_what_was_found_and_expected(array: np.ndarray) -> None:
    with pytest.raises(QueryError, match=r"the array is .*; expected uint8 \[h, w\]"):
        to_image(array, 32)
