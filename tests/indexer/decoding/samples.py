"""Small sample files in every format, with known pixels and metadata, for the tests of decoding."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

from indexer.decoding.decode import Picture, decode_image


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size: valid header, one empty row of data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


SIDE_PX = 32


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def decoded(data: bytes, **options: int) -> Picture:
    return decode_image(io.BytesIO(data), side_px=SIDE_PX, **options)


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None, :]
    pixels[..., 2] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


RED, GREEN, BLUE = (200, 40, 30), (30, 160, 50), (40, 50, 210)


# per channel on flat colours: 0 where nothing is lost; the rest is chroma rounding at quality 95, measured at most 4
TOLERANCE = {"JPEG": 5, "PNG": 0, "WEBP": 5, "GIF": 0, "BMP": 0, "TIFF": 0, "AVIF": 5, "HEIF": 5}


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


def swapped_profile() -> bytes:
    """SRGB whose red and green primaries have changed places, under another name."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    for entry in range(132, 132 + 12 * count, 12):
        tag = bytes(data[entry : entry + 4])
        data[entry : entry + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(tag, tag)
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


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


def dng(large: bytes, small: bytes, orientation: int = 1) -> bytes:
    """A DNG as far as this project looks at one: a tiny first directory, previews somewhere behind it."""
    tags = [(254, 4, 1), (256, 3, 4), (257, 3, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, None)]
    tags += [(274, 3, orientation), (277, 3, 1), (278, 3, 4), (279, 4, 16), (50706, 4, 0x0401)]
    noise = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes() + b"\xff\xd8\xff\xc0\xff\xd8\xff"
    return tiff(tags, bytes(16), small + noise + large + noise)


XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:aux="http://ns.adobe.com/exif/1.0/aux/" aux:Lens="EF50mm f/1.4"
 exif:DateTimeOriginal="2020-05-04T03:02:01+02:00" exif:GPSLatitude="47,22.5N">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Zürich at night</rdf:li><rdf:li xml:lang="de">Nachts</rdf:li></rdf:Alt>
</dc:title><dc:description><rdf:Alt><rdf:li>Lights &amp; water</rdf:li></rdf:Alt></dc:description>
<dc:subject><rdf:Bag><rdf:li>lake</rdf:li><rdf:li>Anna</rdf:li></rdf:Bag></dc:subject>
<exif:GPSLongitude>8,33,0E</exif:GPSLongitude>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


def iptc(*records: tuple[int, bytes], utf8: bool = True) -> bytes:
    data = b"\x1c\x01\x5a\x00\x03\x1b%G" if utf8 else b""
    return data + b"".join(b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(v)) + v for number, v in records)


def with_iptc(jpeg: bytes, packet: bytes) -> bytes:
    """The JPEG with a Photoshop block of IPTC records behind its first marker."""
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    segment = b"Photoshop 3.0\0" + block
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
