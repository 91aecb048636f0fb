"""Pixels as the model sees them: the whole picture, or a part of it, squashed to a square."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmsearch.inference.preprocess import square


def halves(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), (200, 0, 0))
    image.paste((0, 0, 200), (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize("size", [(640, 480), (100, 900), (33, 7), (1, 1)])
def test_any_size_becomes_the_square_with_nothing_cut_off(size: tuple[int, int]) -> None:
    pixels = square(halves(*size), 32)
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert pixels.flags.owndata or pixels.flags.writeable
    if size[0] > 1:
        np.testing.assert_allclose(pixels[:, 2].mean(0), (200, 0, 0), atol=2)
        np.testing.assert_allclose(pixels[:, -3].mean(0), (0, 0, 200), atol=2)


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(square(Image.fromarray(noise), 32), noise)


def test_a_box_is_the_part_inside() -> None:
    image = halves(64, 64)
    for box, colour in (((0, 0, 28, 64), (200, 0, 0)), ((36, 0, 64, 64), (0, 0, 200))):
        np.testing.assert_allclose(square(image, 16, box), np.full((16, 16, 3), colour), atol=2)
    assert square(image, 64, (0, 0, 28, 64))[:, :, 2].max() <= 2, "of the right size, and still only the part"


def test_other_modes_become_rgb() -> None:
    np.testing.assert_array_equal(square(Image.new("L", (32, 32), 90), 32), np.full((32, 32, 3), 90, np.uint8))
