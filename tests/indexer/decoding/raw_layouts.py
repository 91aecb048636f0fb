"""Camera RAW as each maker lays it out, small and byte by byte: directories, previews, sensor data.

In: a large and a small JPEG, an orientation. Out: a file of a few kilobytes. The layouts are those of the makers' files
(TIFF 6.0; the CR2, RAF and ORF notes of ExifTool; DNG 1.4; ISO 14496-12 for CR3); what no reader here looks at is left
out. Every file also holds sensor data as a lossless JPEG, larger than every preview, which is not to be taken.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SHORT, LONG, ASCII, UNDEFINED = 3, 4, 2, 7
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, MAKE, MODEL = 254, 256, 257, 258, 259, 262, 271, 272
STRIP, ORIENTATION, STRIP_BYTES, SUB_IFDS, JPEG_AT, JPEG_BYTES, DNG_VERSION = 273, 274, 279, 330, 513, 514, 50706
LOSSLESS: Final = b"\xff\xd8\xff\xc3\x00\x11\x08\x0f\xa0\x17\x70\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00" + bytes(900)


@dataclass(frozen=True)
class At:
    """The offset of a part, or with `size` its length."""

    part: str
    size: bool = False


Entry = tuple[int, int, "int | bytes | At"]  # tag, type, value
Directories = Mapping[str, tuple[Sequence[Entry], str]]  # name -> entries, the name of the next ('' for none)


def tiff_file(order: str, head: Callable[[int], bytes], folders: Directories, parts: Mapping[str, bytes]) -> bytes:
    """A file of `head` (given the first directory's offset), directories and parts, in this order."""
    places: dict[str, tuple[int, int]] = {}
    data = b""
    for _ in range(2):  # first for the lengths, then for the offsets
        data = head(places.get(next(iter(folders)), (0, 0))[0])
        for name, (entries, after) in folders.items():
            start = len(data)
            data += _directory(order, start, entries, places.get(after, (0, 0))[0] if after else 0, places)
            places[name] = (start, len(data) - start)
        for name, blob in parts.items():
            places[name] = (len(data), len(blob))
            data += blob
    return data


def _directory(
    order: str, start: int, entries: Sequence[Entry], after: int, places: dict[str, tuple[int, int]]
) -> bytes:
    table, spill = b"", b""
    spill_at = start + 2 + 12 * len(entries) + 4
    for tag, kind, value in sorted(entries, key=lambda one: one[0]):
        if isinstance(value, At):
            value = places.get(value.part, (0, 0))[value.size]
        if isinstance(value, int):
            packed = struct.pack(order + ("H2x" if kind == SHORT else "I"), value)
            table += struct.pack(order + "HHI", tag, kind, 1) + packed
        else:
            table += struct.pack(order + "HHII", tag, kind, len(value), spill_at + len(spill))
            spill += value + b"\0" * (len(value) % 2)
    return struct.pack(order + "H", len(entries)) + table + struct.pack(order + "I", after) + spill


def _camera(maker: bytes, model: bytes, orientation: int) -> list[Entry]:
    return [(MAKE, ASCII, maker + b"\0"), (MODEL, ASCII, model + b"\0"), (ORIENTATION, SHORT, orientation)]


SENSOR: Final[list[Entry]] = [
    (SUBFILE, LONG, 0), (WIDTH, LONG, 6000), (HEIGHT, LONG, 4000), (BITS, SHORT, 14), (COMPRESSION, SHORT, 7),
    (PHOTOMETRIC, SHORT, 32803), (STRIP, LONG, At("sensor")), (STRIP_BYTES, LONG, At("sensor", True)),
]  # fmt: skip


def cr2(large: bytes, small: bytes, orientation: int) -> bytes:
    """Canon: the preview in the first directory, a thumbnail in the second, the sensor in the last."""
    preview = [(WIDTH, SHORT, 64), (HEIGHT, SHORT, 48), (COMPRESSION, SHORT, 6), (STRIP, LONG, At("large"))]
    preview += [(STRIP_BYTES, LONG, At("large", True)), *_camera(b"Canon", b"EOS 6D", orientation)]
    folders = {
        "first": (preview, "thumbnail"),
        "thumbnail": ([(JPEG_AT, LONG, At("small")), (JPEG_BYTES, LONG, At("small", True))], "raw"),
        "raw": (SENSOR, ""),
    }
    return tiff_file(
        "<", lambda at: b"II*\0" + struct.pack("<I", at) + b"CR\x02\0" + bytes(4), folders,
        {"small": small, "sensor": LOSSLESS, "large": large},
    )  # fmt: skip


def nef(large: bytes, small: bytes, orientation: int) -> bytes:
    """Nikon, big-endian: pixels of a thumbnail in the first directory, JPEG and sensor in two below it."""
    first = [(SUBFILE, LONG, 1), (WIDTH, LONG, 4), (HEIGHT, LONG, 4), (BITS, SHORT, 8), (COMPRESSION, SHORT, 1)]
    first += [(PHOTOMETRIC, SHORT, 2), (STRIP, LONG, At("pixels")), (STRIP_BYTES, LONG, 48)]
    first += [(SUB_IFDS, LONG, At("preview")), *_camera(b"NIKON CORPORATION", b"D750", orientation)]
    jpeg = [
        (SUBFILE, LONG, 1),
        (COMPRESSION, SHORT, 6),
        (JPEG_AT, LONG, At("large")),
        (JPEG_BYTES, LONG, At("large", True)),
    ]
    return tiff_file(
        ">", lambda at: b"MM\0*" + struct.pack(">I", at),
        {"first": (first, ""), "preview": (jpeg, ""), "raw": (SENSOR, "")},
        {"pixels": bytes(48), "sensor": LOSSLESS, "small": small, "large": large},
    )  # fmt: skip


def arw(large: bytes, small: bytes, orientation: int) -> bytes:
    """Sony: the preview's place in the first directory, a thumbnail in the second, the sensor below."""
    first = [(SUBFILE, LONG, 1), (COMPRESSION, SHORT, 6), (JPEG_AT, LONG, At("large"))]
    first += [(JPEG_BYTES, LONG, At("large", True)), (SUB_IFDS, LONG, At("raw"))]
    first += _camera(b"SONY", b"ILCE-7M3", orientation)
    thumbnail = [(SUBFILE, LONG, 1), (JPEG_AT, LONG, At("small")), (JPEG_BYTES, LONG, At("small", True))]
    return tiff_file(
        "<", lambda at: b"II*\0" + struct.pack("<I", at),
        {"first": (first, "thumbnail"), "thumbnail": (thumbnail, ""), "raw": (SENSOR, "")},
        {"large": large, "small": small, "sensor": LOSSLESS},
    )  # fmt: skip


def dng(large: bytes, small: bytes, orientation: int) -> bytes:
    """Adobe and phones: a version in the first directory, the sensor there, the preview below."""
    first = [*SENSOR, (DNG_VERSION, 1, 0x01040000), (SUB_IFDS, LONG, At("preview"))]
    first += _camera(b"Google", b"Pixel 7", orientation)
    jpeg = [
        (SUBFILE, LONG, 1),
        (COMPRESSION, SHORT, 7),
        (STRIP, LONG, At("large")),
        (STRIP_BYTES, LONG, At("large", True)),
    ]
    return tiff_file(
        "<", lambda at: b"II*\0" + struct.pack("<I", at), {"first": (first, ""), "preview": (jpeg, "")},
        {"sensor": LOSSLESS, "large": large, "small": small},
    )  # fmt: skip


def orf(large: bytes, small: bytes, orientation: int) -> bytes:
    """Olympus: a magic number of its own; the preview in the maker's notes, which count from their own beginning."""
    first = [(COMPRESSION, SHORT, 1), *_camera(b"OLYMPUS IMAGING CORP.", b"E-M5", orientation)]
    first += [(37500, UNDEFINED, b"OLYMPUS\0II\x03\0" + small + large)]
    return tiff_file("<", lambda at: b"IIRO" + struct.pack("<I", at), {"first": (first, "")}, {"sensor": LOSSLESS})


def rw2(large: bytes, small: bytes, orientation: int) -> bytes:
    """Panasonic: a magic number of its own, the JPEG as the value of a tag (JpgFromRaw)."""
    first = [(46, UNDEFINED, large), *_camera(b"Panasonic", b"DMC-GX80", orientation), (280, LONG, At("sensor"))]
    return tiff_file(
        "<", lambda at: b"IIU\0" + struct.pack("<I", at) + bytes(16), {"first": (first, "")},
        {"sensor": LOSSLESS, "small": small},
    )  # fmt: skip


def raf(large: bytes, small: bytes, orientation: int) -> bytes:
    """Fujifilm: no TIFF; offsets in a header of 160 bytes, and the JPEG has the orientation itself."""
    exif = tiff_file(
        "<", lambda at: b"II*\0" + struct.pack("<I", at), {"first": (_camera(b"FUJIFILM", b"X-T3", orientation), "")},
        {},
    )  # fmt: skip
    segment = b"\xff\xe1" + struct.pack(">H", 8 + len(exif)) + b"Exif\0\0" + exif
    whole = large[:2] + segment + large[2:]
    head = b"FUJIFILMCCD-RAW 0201FF383501" + b"X-T3".ljust(32, b"\0") + b"0100".ljust(24, b"\0")
    head += struct.pack(">6I", 160, len(whole), 160 + len(whole), 0, 160 + len(whole), len(LOSSLESS))
    return head.ljust(160, b"\0") + whole + LOSSLESS + small


def cr3(large: bytes, small: bytes, orientation: int) -> bytes:
    """Canon since 2018: boxes; CMT1 holds the first directory, PRVW the preview."""

    def box(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + name + content

    exif = tiff_file(
        "<", lambda at: b"II*\0" + struct.pack("<I", at), {"first": (_camera(b"Canon", b"EOS R", orientation), "")}, {}
    )  # fmt: skip
    canon = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    brand = box(b"ftyp", b"crx \0\0\0\x01crx isom")
    moov = box(b"moov", box(b"uuid", canon + box(b"CMT1", exif) + box(b"THMB", bytes(16) + small)))
    preview = box(b"uuid", bytes(16) + bytes(8) + box(b"PRVW", bytes(16) + large))
    return brand + moov + preview + box(b"mdat", LOSSLESS)


LAYOUTS: Final = {one.__name__: one for one in (cr2, nef, arw, dng, orf, rw2, raf, cr3)}
CAMERAS: Final = {
    "cr2": "Canon EOS 6D", "nef": "NIKON CORPORATION D750", "arw": "SONY ILCE-7M3", "dng": "Google Pixel 7",
    "orf": "OLYMPUS IMAGING CORP. E-M5", "rw2": "Panasonic DMC-GX80", "raf": "FUJIFILM X-T3", "cr3": "Canon EOS R",
}  # fmt: skip
