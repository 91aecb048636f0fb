"""Camera RAW is read by its preview, as each maker lays it out."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from indexer.base.errors import DecodeError
from indexer.decoding.decode import decode_image, read_metadata
from indexer.files.kinds import kind_of
from tests.fakes import COLOURS, FakeEncoder
from tests.indexer.asking import Store
from tests.indexer.decoding.raw_layouts import CAMERAS, LAYOUTS, LOSSLESS
from tests.indexer.decoding.samples import TOLERANCE, assert_quarters, decoded, dng, encoded, quarters


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
