"""Pixels and text are decoded from files of every kind; a broken file gives a reason in one line."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.decode import TEXT_LIMIT_BYTES, decode_image, decode_text
from tests.indexer.decoding.samples import SIDE_PX, decoded, encoded, gradient, png_header


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format(format: str) -> None:
    picture = decoded(encoded(gradient(), format))
    assert (picture.image.mode, picture.image.size) == ("RGB", (60, 40))
    difference = np.abs(np.asarray(picture.image, np.int16) - np.asarray(gradient(), np.int16))
    assert difference.mean() < 12


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    gradient().save(path, "PNG")
    with path.open("rb") as file:
        assert decode_image(file, side_px=SIDE_PX).width_px == 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = gradient(64, 32)
    turns = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # what the camera did: the inverse of what the tag asks for  # fmt: skip
    turn = turns[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decoded(encoded(stored, "JPEG", exif=exif, quality=95))
    assert picture.image.size == (64, 32)
    assert (picture.width_px, picture.height_px) == (64, 32)
    assert np.abs(np.asarray(picture.image, np.int16) - np.asarray(upright, np.int16)).mean() < 6


def test_large_jpegs_are_scaled_while_decoding() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decoded(encoded(gradient(1600, 1200), "JPEG", exif=exif))
    assert (picture.width_px, picture.height_px) == (1200, 1600)
    shorter = min(picture.image.size)
    assert 2 * SIDE_PX <= shorter < 1200 / 4


def test_one_pixel() -> None:
    assert decoded(encoded(Image.new("RGB", (1, 1), "red"), "PNG")).image.size == (1, 1)


def test_exif_description() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS 5D"
    exif.get_ifd(0x8769)[0x9003] = "2019:07:06 05:04:03"
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 52.0, 12.0), 3: "E", 4: (151.0, 12.0, 36.0)})
    picture = decoded(encoded(gradient(), "JPEG", exif=exif))
    assert picture.metadata.taken_at == datetime(2019, 7, 6, 5, 4, 3)
    assert picture.metadata.camera == "Canon EOS 5D"
    assert picture.metadata.latitude_deg == pytest.approx(-33.87)
    assert picture.metadata.longitude_deg == pytest.approx(151.21)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_picture() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = encoded(gradient(), "JPEG", exif=exif)
    start = data.index(b"Exif\0\0") + 6
    picture = decoded(data[: start + 4] + b"\xff" * 12 + data[start + 16 :])
    assert picture.image.size == (60, 40)
    exif.get_ifd(0x8825).update({1: "N", 2: (500.0, 0.0, 0.0)})
    exif.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    picture = decoded(encoded(gradient(), "JPEG", exif=exif))
    assert (picture.metadata.taken_at, picture.metadata.latitude_deg) == (None, None)


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (2_000_000, 500), (14_000, 13_000)])
def test_too_many_pixels_are_refused_from_the_header(width: int, height: int) -> None:
    started = time.perf_counter()
    with pytest.raises(DecodeError, match=f"too large: .*({width * height:,}|{width:,} x {height:,}) pixels"):
        decoded(png_header(width, height))
    assert time.perf_counter() - started < 0.5


def test_the_pixel_limit_can_be_lower() -> None:
    with pytest.raises(DecodeError, match="60 x 40 pixels"):
        decoded(encoded(gradient(), "PNG"), pixel_limit=2399)
    assert decoded(encoded(gradient(), "PNG"), pixel_limit=2400).width_px == 60


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encoded(gradient(400, 300), "JPEG")[:-800], "broken picture"),
        (encoded(gradient(400, 300), "JPEG")[:300], "picture"),
        (encoded(gradient(400, 300), "PNG")[:-300], "broken picture"),
        (encoded(gradient(), "TIFF")[:-4000], "broken picture"),
        (b"just words", "not a picture"),
        (b"", "not a picture"),
        (b"\xff\xd8\xff", "picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)
def test_broken_pictures_give_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason) as caught:
        decoded(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 240


SEEDS = [encoded(gradient(24, 16), format) for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.floats(0.2, 1),
)
def test_mutated_pictures_decode_or_give_a_reason(data: bytes, changes: list[tuple[float, int]], cut: float) -> None:
    mutated = bytearray(data)
    for place, value in changes:
        mutated[int(place * len(mutated))] = value
    with contextlib.suppress(DecodeError):  # any other exception fails the test
        assert decoded(bytes(mutated[: int(cut * len(mutated))]), pixel_limit=1_000_000).image.mode == "RGB"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße, 東京".encode(), "Grüße, 東京"),
        (b"\xef\xbb\xbfmarked", "marked"),
        ("Grüße".encode("latin-1"), "Grüße"),
        ("Grüße".encode("utf-16"), "Grüße"),
        (b"  padded \n", "padded"),
        (b"\xff\xfe", None),
        (b" \n\t ", None),
        (b"", None),
        (b"\xef\xbb\xbf", None),
        (b"ab\0cd", None),
    ],
)
def test_texts(data: bytes, text: str | None) -> None:
    if text is None:
        with pytest.raises(DecodeError):
            decode_text(data)
    else:
        assert decode_text(data) == text


def test_only_the_beginning_of_a_long_text_is_read() -> None:
    assert len(decode_text(b"x" * (TEXT_LIMIT_BYTES + 1))) == TEXT_LIMIT_BYTES
    cut = decode_text(b"x" * (TEXT_LIMIT_BYTES - 1) + "é".encode() * 9)
    assert cut == "x" * (TEXT_LIMIT_BYTES - 1)  # the cut runs through a character


@given(st.binary(max_size=200))
def test_any_bytes_are_a_text_or_a_reason(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert decode_text(data).strip()
