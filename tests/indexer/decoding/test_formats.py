"""Known pixels through every format and colour model; the tolerance of a format is its compression's."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from indexer.base.errors import DecodeError
from indexer.decoding.decode import SCAN_LIMIT, Picture, decode_image, read_metadata
from indexer.files import kinds
from indexer.files.kinds import kind_of
from tests.indexer.decoding.test_decode import encoded

SIDE_PX = 32
RED, GREEN, BLUE = (200, 40, 30), (30, 160, 50), (40, 50, 210)
# per channel on flat colours: 0 where nothing is lost; the rest is chroma rounding at quality 95, measured at most 4
TOLERANCE = {"JPEG": 5, "PNG": 0, "WEBP": 5, "GIF": 0, "BMP": 0, "TIFF": 0, "AVIF": 5, "HEIF": 5}


def decoded(data: bytes) -> Picture:
    return decode_image(io.BytesIO(data), side_px=SIDE_PX)


def quarters() -> Image.Image:
    """64 x 48: red above left, green above right, blue below left, white below right: no symmetry."""
    image = Image.new("RGB", (64, 48), "white")
    for colour, corner in ((RED, (0, 0)), (GREEN, (32, 0)), (BLUE, (0, 24))):
        image.paste(colour, (*corner, corner[0] + 32, corner[1] + 24))
    return image


def assert_quarters(image: Image.Image, tolerance: int) -> None:
    assert (image.mode, image.size) == ("RGB", (64, 48))
    for where, wanted in (((16, 12), RED), ((48, 12), GREEN), ((16, 36), BLUE), ((48, 36), (255, 255, 255))):
        found = np.array(image.getpixel(where), int)
        assert np.abs(found - wanted).max() <= tolerance, (where, found, wanted)


def heif(image: Image.Image, **options: object) -> bytes:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return encoded(image, "HEIF", **options)


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


def swapped_profile() -> bytes:
    """SRGB whose red and green primaries have changed places, under another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    for entry in range(132, 132 + 12 * count, 12):
        tag = bytes(data[entry : entry + 4])
        data[entry : entry + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(tag, tag)
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


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


def tiff(tags: list[tuple[int, int, object]], strip: bytes, after: bytes = b"") -> bytes:
    """A TIFF of one directory by hand, then `after`; the tag whose value is None points to the strip."""
    entries, spill = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    room = sum(2 * len(value) for _, _, value in tags if isinstance(value, tuple))
    for tag, kind, value in sorted(tags, key=lambda one: one[0]):
        if value is None:
            value = start + room
        if isinstance(value, tuple):
            entries += struct.pack("<HHII", tag, kind, len(value), start + len(spill))
            spill += struct.pack(f"<{len(value)}H", *value)
        else:
            packed = struct.pack("<H", value) + b"\0\0" if kind == 3 else struct.pack("<I", value)
            entries += struct.pack("<HHI", tag, kind, 1) + packed
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + spill + strip + after


def test_palette_with_transparency() -> None:
    palette = quarters().quantize(4)
    clear = palette.getpixel((16, 12))
    for format in ("PNG", "GIF"):
        image = decoded(encoded(palette, format, transparency=clear)).image
        assert image.getpixel((16, 12)) == (255, 255, 255)
        assert image.getpixel((48, 12)) == GREEN


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


def dng(large: bytes, small: bytes, orientation: int = 1) -> bytes:
    """A DNG as far as this project looks at one: a tiny first directory, previews somewhere behind it."""
    tags = [(254, 4, 1), (256, 3, 4), (257, 3, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, None)]
    tags += [(274, 3, orientation), (277, 3, 1), (278, 3, 4), (279, 4, 16), (50706, 4, 0x0401)]
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes() + b"\xff\xd8\xff\xc0\xff\xd8\xff"
    return tiff(tags, bytes(16), small + noise + large + noise)


@pytest.mark.parametrize(
    "wrap", [lambda data: data, lambda data: b"FUJIFILMCCD-RAW " + data, lambda d: b"IIU\0" + d[4:]]
)
def test_raw_by_its_largest_preview(wrap: Callable[[bytes], bytes]) -> None:
    large, small = encoded(quarters(), "JPEG", quality=95), encoded(Image.new("RGB", (16, 16)), "JPEG")
    data = wrap(dng(large, small))
    assert_quarters(decoded(data).image, TOLERANCE["JPEG"])
    assert_quarters(decoded(wrap(dng(small, large))).image, TOLERANCE["JPEG"])


def test_raw_is_upright_by_the_file_around_the_preview() -> None:
    turned = quarters().transpose(Image.Transpose.ROTATE_90)
    picture = decoded(dng(encoded(turned, "JPEG", quality=95), b"", orientation=6))
    assert_quarters(picture.image, TOLERANCE["JPEG"])


def test_raw_without_a_preview() -> None:
    lossless = encoded(quarters(), "JPEG").replace(b"\xff\xc0\x00\x11", b"\xff\xc3\x00\x11")
    for data in (dng(b"", b""), dng(lossless, b"")):
        with pytest.raises(DecodeError, match="RAW without a JPEG preview"):
            decoded(data)


def test_heic_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heif(quarters())
    monkeypatch.setattr(kinds, "has_extra", lambda name: False)
    for read in (decoded, lambda data: read_metadata(io.BytesIO(data))):
        with pytest.raises(DecodeError, match=r"pip install 'mmsearch\[heif\]'$") as caught:
            read(data)
    assert not kinds.is_remedied(str(caught.value))
    monkeypatch.undo()
    assert kinds.is_remedied(str(caught.value))
    assert not kinds.is_remedied("broken picture (OSError: 'mmsearch[heif]' is a name)")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "avif"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"\xff\xff\xff\xffftypheic", "heif"),
        (b"ftyp", None),
        (b"", None),
    ],
)
def test_kinds(head: bytes, kind: str | None) -> None:
    assert kind_of(head) == kind


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(quarters(), "JPEG", progressive=True)
    assert_quarters(decoded(data).image, 12)  # the default quality, 75
    last = data.rindex(b"\xff\xda")
    bomb = data[:-2] + data[last:-2] * SCAN_LIMIT + b"\xff\xd9"
    with pytest.raises(DecodeError, match="scans, the limit is 500"):
        decoded(bomb)
