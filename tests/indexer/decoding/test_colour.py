"""Colours through every colour model, profile and depth; the tolerance of a format is that of its compression."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.indexer.decoding.samples import (
    BLUE,
    GREEN,
    RED,
    TOLERANCE,
    assert_quarters,
    decoded,
    encoded,
    quarters,
    swapped_profile,
    tiff,
)


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decoded(encoded(clear, "PNG")).image.getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 255, 0, 0, 0, 255] + [0] * 762)
    palette.putpixel((1, 1), 1)
    picture = decoded(encoded(palette, "PNG", transparency=0)).image
    assert picture.getpixel((0, 0)) == (255, 255, 255)
    assert picture.getpixel((1, 1)) == (0, 0, 255)
    grey = Image.new("LA", (8, 8), (0, 128))
    value = decoded(encoded(grey, "PNG")).image.getpixel((0, 0))
    assert value == (127, 127, 127)


def test_cmyk() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for format in ("JPEG", "TIFF"):
        red, green, blue = decoded(encoded(cyan, format)).image.getpixel((8, 8))
        assert red < 30
        assert min(green, blue) > 140


def test_sixteen_bits() -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    for format in ("PNG", "TIFF"):
        pixels = np.asarray(decoded(encoded(Image.fromarray(ramp), format)).image, np.int16)
        np.testing.assert_allclose(pixels[..., 0], ramp / 257, atol=1.01)
        assert (pixels[..., 0] == pixels[..., 2]).all()


def test_floats_and_bits() -> None:
    picture = decoded(encoded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"))
    assert picture.image.getpixel((0, 0)) == (127, 127, 127)
    assert decoded(encoded(Image.new("1", (4, 4), 1), "PNG")).image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_colour_profiles_are_applied(format: str) -> None:
    data = encoded(Image.new("RGB", (16, 16), (255, 0, 0)), format, icc_profile=swapped_profile(), quality=100)
    red, green, blue = decoded(data).image.getpixel((8, 8))
    assert (red <= 12, green >= 243, blue <= 12) == (True, True, True), (red, green, blue)


def test_srgb_and_broken_profiles_change_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", srgb[:200]):
        assert_quarters(decoded(encoded(quarters(), "PNG", icc_profile=profile)).image, 0)


def test_a_profile_of_another_colour_model_is_left_out() -> None:
    grey = Image.new("L", (8, 8), 90)
    assert decoded(encoded(grey, "PNG", icc_profile=swapped_profile())).image.getpixel((4, 4)) == (90, 90, 90)


def test_lab() -> None:
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(quarters(), transform)
    assert_quarters(decoded(encoded(lab, "TIFF")).image, 10)  # a step of a or b is that much of red in deep blue


def test_sixteen_bits_a_channel() -> None:
    values = np.array(quarters(), np.uint16) * 257  # [48, 64, 3]
    strip = values.astype("<u2").tobytes()
    tags = [(256, 3, 64), (257, 3, 48), (259, 3, 1), (262, 3, 2), (277, 3, 3), (278, 3, 48)]
    assert_quarters(
        decoded(tiff([*tags, (258, 3, (16, 16, 16)), (273, 4, None), (279, 4, len(strip))], strip)).image, 0
    )


def test_palette_with_transparency() -> None:
    palette = quarters().quantize(4)
    clear = palette.getpixel((16, 12))
    for format in ("PNG", "GIF"):
        image = decoded(encoded(palette, format, transparency=clear)).image
        assert image.getpixel((16, 12)) == (255, 255, 255)
        assert image.getpixel((48, 12)) == GREEN


Colour = tuple[int, int, int]


WHITE, BLACK = (255, 255, 255), (0, 0, 0)


# no press has such inks: with any other profile, and with none, cyan is cyan
INKS: dict[tuple[int, int, int, int], Colour] = {
    (0, 0, 0, 0): WHITE, (1, 0, 0, 0): RED, (0, 1, 0, 0): GREEN, (0, 0, 1, 0): BLUE, (1, 1, 0, 0): (120, 120, 40),
}  # fmt: skip


def lab(colour: Colour) -> tuple[float, float, float]:
    """CIE L*a*b* under D50 of a colour in sRGB (IEC 61966-2-1, Bradford-adapted as in ICC.1)."""
    linear = [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in (v / 255 for v in colour)]
    to_xyz = [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
    x, y, z = (
        sum(a * c for a, c in zip(row, linear, strict=True)) / white
        for row, white in zip(to_xyz, (0.9642, 1.0, 0.8249), strict=True)
    )
    fx, fy, fz = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def cmyk_profile() -> bytes:
    """An ICC profile (v2, a printer's) of four inks by the colours of their sixteen full mixtures, nothing between."""
    table = b""
    for mixture in itertools.product((0, 1), repeat=4):
        lightness, a, b = lab(INKS.get(mixture, BLACK))
        table += struct.pack("3B", round(lightness * 2.55), round(a + 128), round(b + 128))
    identity = struct.pack(">9i", *(65536 * (at in (0, 4, 8)) for at in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + struct.pack("4B", 4, 3, 2, 0) + identity + ramp * 4 + table + ramp * 3
    text = b"desc\0\0\0\0" + struct.pack(">I", 9) + b"odd inks\0" + bytes(78)
    right = b"text\0\0\0\0none\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    tags, body, start = b"", b"", 128 + 4 + 12 * 4
    for name, content in ((b"desc", text), (b"cprt", right), (b"wtpt", white), (b"A2B0", lut)):
        tags += name + struct.pack(">2I", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytes(4) + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    head = head.replace(bytes(4), b"none", 1) + b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    head = struct.pack(">I", 128 + 4 + len(tags) + len(body)) + head
    return head.ljust(128, b"\0") + struct.pack(">I", 4) + tags + body


def inks() -> Image.Image:
    """The quarters of `test_formats`, in inks: the first three, each alone, and paper."""
    image = Image.new("CMYK", (64, 48), (0, 0, 0, 0))
    for ink, corner in (((255, 0, 0, 0), (0, 0)), ((0, 255, 0, 0), (32, 0)), ((0, 0, 255, 0), (0, 24))):
        image.paste(ink, (*corner, corner[0] + 32, corner[1] + 24))
    return image


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_by_its_profile(format: str) -> None:
    data = encoded(inks(), format, icc_profile=cmyk_profile(), quality=95)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "CMYK"
    assert_quarters(decoded(data).image, 10)  # a step of a or b is that much in deep blue; JPEG adds its own


def test_the_mixture_of_two_inks() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (255, 255, 0, 0)), "JPEG", icc_profile=cmyk_profile(), quality=95)
    found = np.array(decoded(data).image.getpixel((8, 8)), int)
    assert np.abs(found - (120, 120, 40)).max() <= 10


@pytest.mark.parametrize("profile", [None, b"no profile", cmyk_profile()[:300]])
def test_cmyk_without_a_profile_is_what_the_inks_are_called(profile: bytes | None) -> None:
    image = decoded(encoded(inks(), "JPEG", icc_profile=profile, quality=95)).image
    for where, wanted in (((16, 12), (0, 255, 255)), ((48, 12), (255, 0, 255)), ((16, 36), (255, 255, 0))):
        assert np.abs(np.array(image.getpixel(where), int) - wanted).max() <= TOLERANCE["JPEG"]
