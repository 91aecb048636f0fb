"""Known pixels, orientation and frames through every format; the tolerance is that of the format's compression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.decode import SCAN_LIMIT
from indexer.files.kinds import kind_of
from tests.indexer.decoding.samples import (
    BLUE,
    GREEN,
    RED,
    TOLERANCE,
    assert_quarters,
    decoded,
    encoded,
    heif,
    quarters,
)


@pytest.mark.parametrize("format", TOLERANCE)
def test_flat_colours(format: str) -> None:
    make: Callable[..., bytes] = heif if format == "HEIF" else lambda image, **rest: encoded(image, format, **rest)
    data = make(quarters(), quality=95)
    assert kind_of(data) == format.lower()
    assert_quarters(decoded(data).image, TOLERANCE[format])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_orientation(format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = quarters().transpose(Image.Transpose.ROTATE_90)
    turned.info["exif"] = exif.tobytes()  # what HEIF turns into an instruction of its own, as phones do
    data = heif(turned, quality=95) if format == "HEIF" else encoded(turned, format, exif=exif, quality=95)
    picture = decoded(data)
    assert (picture.width_px, picture.height_px) == (64, 48)
    assert_quarters(picture.image, TOLERANCE[format])


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_first_middle_and_last_frame(format: str) -> None:
    colours = [RED, (0, 0, 0), BLUE, (0, 0, 0), GREEN]
    frames = [Image.new("RGB", (32, 32), colour) for colour in colours]
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "AVIF" else {}
    picture = decoded(encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100, **options))
    shown = [np.array(frame.getpixel((16, 16)), int) for frame in (picture.image, *picture.later)]
    assert len(shown) == 3
    for found, wanted in zip(shown, (RED, BLUE, GREEN), strict=True):
        assert np.abs(found - wanted).max() <= TOLERANCE[format]


def test_a_still_picture_has_one_frame() -> None:
    for format in ("GIF", "WEBP", "PNG", "AVIF", "TIFF"):
        assert decoded(encoded(quarters(), format)).later == ()


def test_two_frames_and_a_broken_third() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    whole = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert [frame.getpixel((0, 0)) for frame in decoded(whole).later] == [BLUE]
    cut = decoded(whole[: whole.index(b"\x21\xf9", len(whole) // 2) + 6])
    assert cut.image.getpixel((0, 0)) == RED


def test_the_first_page_of_a_tiff() -> None:
    pages = [quarters(), Image.new("RGB", (10, 10), "black")]
    picture = decoded(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert_quarters(picture.image, 0)
    assert picture.later == ()


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(quarters(), "JPEG", progressive=True)
    assert_quarters(decoded(data).image, 12)  # the default quality, 75
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * SCAN_LIMIT + b"\xff\xd9"
    with pytest.raises(DecodeError, match="scans, the limit is 500"):
        decoded(bomb)
