"""Hostile files for tests: small pictures of every kind with all metadata a file may carry, and mutations of them.

Out: `seeds()`, `sidecar_seeds()`, and `mutated(...)`, a Hypothesis strategy. The suite draws hundreds,
`tests/bench/hostile.py` ten thousand.
"""

from __future__ import annotations

import json
from functools import cache

from hypothesis import strategies as st
from PIL import Image

from tests.indexer.decoding.samples import XMP, dng, encoded, gradient, heif, iptc, swapped_profile, with_iptc
from tests.indexer.decoding.test_video import film

WORDS = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\1",
    b"\1\0\0\0",
    b"\x80\0",
)


@cache
def seeds() -> dict[str, bytes]:
    """Whole pictures by a name that begins with their kind."""
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "words", 6
    exif.get_ifd(0x8769).update({0x9003: "2019:07:06 05:04:03", 0xA434: "23mm F2"})
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 30.0, 0.0), 3: "E", 4: (8.0, 30.0, 0.0)})
    profile = swapped_profile()
    still, frames = gradient(40, 28), [gradient(24, 16).rotate(90 * turn) for turn in range(3)]
    moving = {"save_all": True, "append_images": frames[1:]}
    jpeg = encoded(still, "JPEG", exif=exif, xmp=XMP, icc_profile=profile)
    found = {
        "jpeg": with_iptc(jpeg, iptc((5, b"title"), (25, b"sea"))),
        "jpeg progressive": encoded(still, "JPEG", progressive=True),
        "jpeg cmyk": encoded(still.convert("CMYK"), "JPEG"),
        "png": encoded(still, "PNG", exif=exif, icc_profile=profile),
        "png palette": encoded(still.quantize(16), "PNG", transparency=3),
        "png 16 bits": encoded(Image.linear_gradient("L").resize((20, 20)).convert("I;16"), "PNG"),
        "png frames": encoded(frames[0], "PNG", **moving),
        "webp": encoded(still, "WEBP", exif=exif, xmp=XMP, icc_profile=profile),
        "webp frames": encoded(frames[0], "WEBP", lossless=True, **moving),
        "gif": encoded(frames[0], "GIF", **moving),
        "bmp": encoded(still, "BMP"),
        "tiff": encoded(still, "TIFF", exif=exif, save_all=True, append_images=[still]),
        "avif": encoded(still, "AVIF", exif=exif, xmp=XMP, icc_profile=profile),
        "avif frames": encoded(frames[0], "AVIF", **moving),
        "heif": heif(still, exif=exif, xmp=XMP),
        "video mp4": film("red", "blue", seconds_each=3, title="words"),
        "video mkv": film("red", seconds_each=2, form="matroska"),
        "raw": dng(jpeg, encoded(frames[0], "JPEG"), orientation=8),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        found[f"tiff {compression}"] = encoded(still, "TIFF", compression=compression)
    found["tiff fax"] = encoded(still.convert("1"), "TIFF", compression="group4")
    return found


def sidecar_seeds() -> dict[str, bytes]:
    """A sidecar of each kind, and an IPTC packet."""
    takeout = {
        "title": "a.jpg", "description": "a whale", "photoTakenTime": {"timestamp": "1562389443"},
        "geoData": {"latitude": 47.5, "longitude": 8.25}, "people": [{"name": "Anna"}],
    }  # fmt: skip
    return {
        "json": json.dumps(takeout).encode(),
        "xmp": XMP,
        "iptc": iptc((5, b"title"), (120, b"words"), (25, b"sea")),
    }


@st.composite
def mutated(draw: st.DrawFn, files: dict[str, bytes]) -> tuple[str, bytes]:
    """(name of the seed, broken bytes): a few bytes, words or blocks changed, then perhaps cut short."""
    name = draw(st.sampled_from(sorted(files)))
    data = bytearray(files[name])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.sampled_from((1, 2, 4, 16, 64, 1000)))
        match draw(st.sampled_from(("byte", "bit", "word", "drop", "twice", "splice"))):
            case "byte":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "bit":
                data[at : at + 1] = bytes(value ^ (1 << draw(st.integers(0, 7))) for value in data[at : at + 1])
            case "word":
                word = draw(st.sampled_from(WORDS))
                data[at : at + len(word)] = word
            case "drop":
                del data[at : at + size]
            case "twice":
                data[at:at] = data[at : at + size]
            case _:
                other = files[draw(st.sampled_from(sorted(files)))]
                start = draw(st.integers(0, len(other) - 1))
                data[at : at + size] = other[start : start + size]
    if draw(st.integers(0, 3)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return name, bytes(data)
