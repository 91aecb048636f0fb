"""What a picture says of itself: EXIF, XMP and IPTC as one `Metadata`. Broken metadata says nothing and costs nothing.

In: an opened Pillow image. Out: how it was held, and a `Metadata`. EXIF is the camera's, XMP and IPTC are the person's:
dates and places come from the first, words from the others before it. Next: `xmp.py`, the packets; `decode.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from PIL import ExifTags, Image

from indexer.decoding.xmp import Packet, read_iptc, read_xmp

WORDS_CHARS: Final = 2000  # of a title or a description; more than any text encoder reads
KEYWORDS: Final = 64
_IPTC_BLOCK: Final = 0x0404  # among the blocks Photoshop writes
_TIFF_XMP, _TIFF_IPTC = 700, 33723
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS = 0x9C9B, 0x9C9C, 0x9C9E  # what Windows' file manager writes, UTF-16


@dataclass(frozen=True)
class Metadata:
    """When, where and with what a picture was taken, and what was said of it. Times are the camera's clock."""

    taken_at: datetime | None = None
    camera: str | None = None
    lens: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    title: str | None = None
    description: str | None = None
    keywords: tuple[str, ...] = ()

    def over(self, other: Metadata) -> Metadata:
        """This, with `other` where this is silent; a place is taken whole."""
        gaps = {name: value for name, value in vars(other).items() if getattr(self, name) in (None, ())}
        if self.latitude_deg is not None and self.longitude_deg is not None:
            gaps.pop("latitude_deg", None)
            gaps.pop("longitude_deg", None)
        return replace(self, **gaps)


def metadata_of(image: Image.Image, around: Image.Exif | None = None) -> tuple[int, Metadata]:
    """The EXIF orientation (1 to 8) of an opened image, and what it says of itself.

    Args:
        image: opened by Pillow; its pixels need not be loaded.
        around: the EXIF of the file the image lies in, which comes first.
    """
    orientation, said = 1, Metadata()
    sources = [around] if around else []
    with contextlib.suppress(Exception):  # hostile bytes: Pillow raises SyntaxError, struct.error, KeyError, ...
        sources.append(image.getexif())
    for exif in reversed(sources):
        with contextlib.suppress(Exception):
            turned, of_exif = _of_exif(exif)
            orientation, said = turned or orientation, of_exif.over(said)
    for packet in _packets(image):
        said = _with_words(said, packet)
    return orientation, said


def from_packet(packet: Packet) -> Metadata:
    """An XMP packet by itself, as a sidecar holds it."""
    empty = Metadata(packet.taken_at, None, clean(packet.lens), packet.latitude_deg, packet.longitude_deg)
    return _with_words(empty, packet)


def clean(value: object) -> str | None:
    """Text as people wrote it, on one line: without NULs and control characters; None when nothing is left."""
    if not isinstance(value, str):
        return None
    text = "".join(c if c.isprintable() else " " for c in value[: 4 * WORDS_CHARS] if c != "\0")
    return " ".join(text.split())[:WORDS_CHARS].strip() or None


def keywords(values: Iterable[object]) -> tuple[str, ...]:
    """Distinct keywords in their order, `KEYWORDS` at most."""
    words = (clean(value) for value in values)
    return tuple(dict.fromkeys(word for word in words if word is not None))[:KEYWORDS]


def place(latitude_deg: object, longitude_deg: object) -> tuple[float, float] | None:
    """A place on earth, or None: half a place is none, and (0, 0) is what devices write that know none."""
    if not isinstance(latitude_deg, (int, float)) or not isinstance(longitude_deg, (int, float)):
        return None
    if not (-90 <= latitude_deg <= 90 and -180 <= longitude_deg <= 180):  # also false for nan
        return None
    return None if latitude_deg == longitude_deg == 0 else (float(latitude_deg), float(longitude_deg))


def _with_words(said: Metadata, packet: Packet) -> Metadata:
    found = place(packet.latitude_deg, packet.longitude_deg)
    words = Metadata(
        title=clean(packet.title),
        description=clean(packet.description),
        keywords=keywords([*packet.keywords, *said.keywords]),
    )
    rest = Metadata(packet.taken_at, None, clean(packet.lens), *(found or (None, None)))
    return words.over(said).over(rest)


def _packets(image: Image.Image) -> Iterable[Packet]:
    """IPTC, then XMP, whose words count more."""
    blocks, tags = image.info.get("photoshop"), getattr(image, "tag_v2", {})
    with contextlib.suppress(Exception):
        iptc = blocks.get(_IPTC_BLOCK) if isinstance(blocks, dict) else tags.get(_TIFF_IPTC)
        if isinstance(iptc, bytes):
            yield read_iptc(iptc)
    with contextlib.suppress(Exception):
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or tags.get(_TIFF_XMP)
        if isinstance(xmp, str):
            xmp = xmp.encode("utf-8", "surrogateescape")
        if isinstance(xmp, bytes):
            yield read_xmp(xmp)


def _of_exif(exif: Image.Exif) -> tuple[int | None, Metadata]:
    details, where = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    orientation = exif.get(ExifTags.Base.Orientation)
    make, model = (_latin(exif.get(tag)) or "" for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    latitude = _degrees(where, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S", 90)
    longitude = _degrees(where, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W", 180)
    found = place(latitude, longitude)
    said = Metadata(
        taken_at=_moment(details.get(ExifTags.Base.DateTimeOriginal)) or _moment(exif.get(ExifTags.Base.DateTime)),
        camera=(model if model.startswith(make) else f"{make} {model}").strip() or None,
        lens=_latin(details.get(ExifTags.Base.LensModel)),
        latitude_deg=found[0] if found else None,
        longitude_deg=found[1] if found else None,
        title=clean(_utf16(exif.get(_XP_TITLE))),
        description=_latin(exif.get(ExifTags.Base.ImageDescription)) or clean(_utf16(exif.get(_XP_COMMENT))),
        keywords=keywords((_utf16(exif.get(_XP_KEYWORDS)) or "").split(";")),
    )
    return orientation if isinstance(orientation, int) and orientation in range(1, 9) else None, said


def _latin(value: object) -> str | None:
    """EXIF's strings: ASCII by the standard, UTF-8 in life, Latin-1 as Pillow reads them."""
    if not isinstance(value, str):
        return None
    with contextlib.suppress(UnicodeError):
        value = value.encode("latin-1").decode("utf-8")
    return clean(value.split("\0")[0])


def _utf16(value: object) -> str | None:
    if isinstance(value, tuple):
        value = bytes(value)
    return value.decode("utf-16-le", "replace") if isinstance(value, bytes) else None


def _moment(value: object) -> datetime | None:
    try:
        return datetime.strptime(str(value).strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None


def _degrees(where: Mapping[int, object], tag: int, reference: int, negative: str, limit: float) -> float | None:
    parts = where.get(tag)
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    try:
        degrees = float(parts[0]) + float(parts[1]) / 60 + float(parts[2]) / 3600
    except (ZeroDivisionError, TypeError, ValueError):
        return None
    if not 0 <= degrees <= limit:  # also false for the nan of a 0/0
        return None
    return -degrees if str(where.get(reference, "")).upper().startswith(negative) else degrees
