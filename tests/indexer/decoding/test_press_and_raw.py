"""What a press or a camera writes: CMYK with a profile of its inks, and RAW as each maker lays it out."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.decode import decode_image, read_metadata
from indexer.files.kinds import kind_of
from indexer.store import Store
from tests.fakes import COLOURS, FakeEncoder
from tests.indexer.decoding.test_decode import encoded
from tests.indexer.decoding.test_formats import BLUE, GREEN, RED, TOLERANCE, assert_quarters, decoded, quarters
from tests.indexer.raw_layouts import CAMERAS, LAYOUTS, LOSSLESS

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


def jpegs(orientation: int = 1) -> tuple[bytes, bytes]:
    """A preview as large as `assert_quarters` wants it, turned as the camera was held, and a black thumbnail."""
    turn = {1: None, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[orientation]
    image = quarters() if turn is None else quarters().transpose(turn)
    return encoded(image, "JPEG", quality=95), encoded(Image.new("RGB", (16, 12)), "JPEG")


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("maker", LAYOUTS)
def test_raw_by_its_preview_upright(maker: str, orientation: int) -> None:
    data = LAYOUTS[maker](*jpegs(orientation), orientation)
    assert kind_of(data[:64]) in ("raw", "tiff")
    picture = decoded(data)
    assert (picture.width_px, picture.height_px) == (64, 48)
    assert_quarters(picture.image, TOLERANCE["JPEG"])
    assert picture.metadata.camera == CAMERAS[maker]
    assert read_metadata(io.BytesIO(data)).camera == CAMERAS[maker]


@pytest.mark.parametrize("maker", LAYOUTS)
def test_the_order_of_previews_does_not_matter(maker: str) -> None:
    large, small = jpegs()
    assert_quarters(decoded(LAYOUTS[maker](small, large, 1)).image, TOLERANCE["JPEG"])


@pytest.mark.parametrize("maker", LAYOUTS)
def test_sensor_data_is_no_preview(maker: str) -> None:
    data = LAYOUTS[maker](LOSSLESS, b"", 1)
    with pytest.raises(DecodeError, match="RAW without a JPEG preview"):
        decode_image(io.BytesIO(data), side_px=32)


def test_a_folder_of_them(store: Store, encoder: FakeEncoder, photos: Path) -> None:
    for number, (maker, make) in enumerate(LAYOUTS.items()):
        colour = list(COLOURS.values())[number]
        preview = encoded(Image.new("RGB", (96, 64), colour), "JPEG", quality=95)
        (photos / f"photo.{maker}").write_bytes(make(preview, jpegs()[1], 1))
    report = store.ingest(photos, encoder)
    assert (report.added, report.skipped) == (8, 0), store.errors()
    query = encoder.embed_texts([list(COLOURS)[2]]).mu[0]
    assert store.search(query, 1, fingerprint=encoder.fingerprint)[0].path.name == f"photo.{list(LAYOUTS)[2]}"
