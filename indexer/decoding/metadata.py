"""Read the metadata of a picture: EXIF, XMP and IPTC merged into one `Metadata`. Broken metadata is ignored.

In: an opened Pillow image. Out: its orientation, and a `Metadata`. The camera writes EXIF, people write XMP and IPTC:
dates and places are taken from EXIF first, text from XMP and IPTC first. Next: `xmp.py`, the packets; `decode.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from PIL import ExifTags, Image

from indexer.decoding.xmp import Packet, read_iptc, read_xmp

TEXT_LIMIT_CHARS: Final = 2000  # of a title or a description; more than any text encoder reads
KEYWORD_LIMIT: Final = 64
_IPTC_BLOCK: Final = 0x0404  # of the resource blocks that Photoshop writes
_TIFF_XMP, _TIFF_IPTC = 700, 33723
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS = 0x9C9B, 0x9C9C, 0x9C9E  # written by the file manager of Windows, UTF-16


@dataclass(frozen=True)
class Metadata:
    """When, where and with what a picture was taken, and the text people wrote to it. Times are the camera's clock."""

    taken_at: datetime | None = None
    camera: str | None = None
    lens: str | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    title: str | None = None
    description: str | None = None
    keywords: tuple[str, ...] = ()

    def over(self, other: Metadata) -> Metadata:
        """This, with gaps filled from `other`; latitude and longitude are taken together."""
        gaps = {name: value for name, value in vars(other).items() if getattr(self, name) in (None, ())}
        if self.latitude_deg is not None and self.longitude_deg is not None:
            gaps.pop("latitude_deg", None)
            gaps.pop("longitude_deg", None)
        return replace(self, **gaps)


def metadata_of(image: Image.Image, container_exif: Image.Exif | None = None) -> tuple[int, Metadata]:
    """The EXIF orientation (1 to 8) of an opened image, and its metadata.

    Args:
        image: opened by Pillow; its pixels need not be loaded.
        container_exif: the EXIF of the file that holds the image; it comes first.
    """
    orientation, metadata = 1, Metadata()
    sources = [container_exif] if container_exif else []
    with contextlib.suppress(Exception):  # hostile bytes: Pillow raises SyntaxError, struct.error, KeyError, ...
        sources.append(image.getexif())
    for exif in reversed(sources):
        with contextlib.suppress(Exception):
            turned, of_exif = _from_exif(exif)
            orientation, metadata = turned or orientation, of_exif.over(metadata)
    for packet in _packets(image):
        metadata = _with_packet(metadata, packet)
    return orientation, metadata


def from_packet(packet: Packet) -> Metadata:
    """The metadata of an XMP packet alone, as in a sidecar file."""
    base = Metadata(packet.taken_at, None, clean(packet.lens), packet.latitude_deg, packet.longitude_deg)
    return _with_packet(base, packet)


def clean(value: object) -> str | None:
    """Text on one line, without NULs and control characters; None when nothing is left."""
    if not isinstance(value, str):
        return None
    text = "".join(c if c.isprintable() else " " for c in value[: 4 * TEXT_LIMIT_CHARS] if c != "\0")
    return " ".join(text.split())[:TEXT_LIMIT_CHARS].strip() or None


def keywords(values: Iterable[object]) -> tuple[str, ...]:
    """Distinct keywords in their order, `KEYWORD_LIMIT` at most."""
    cleaned = (clean(value) for value in values)
    return tuple(dict.fromkeys(word for word in cleaned if word is not None))[:KEYWORD_LIMIT]


def place(latitude_deg: object, longitude_deg: object) -> tuple[float, float] | None:
    """A valid (latitude, longitude), or None; devices without a position write (0, 0)."""
    if not isinstance(latitude_deg, (int, float)) or not isinstance(longitude_deg, (int, float)):
        return None
    if not (-90 <= latitude_deg <= 90 and -180 <= longitude_deg <= 180):  # also false for nan
        return None
    return None if latitude_deg == longitude_deg == 0 else (float(latitude_deg), float(longitude_deg))


def _with_packet(metadata: Metadata, packet: Packet) -> Metadata:
    found = place(packet.latitude_deg, packet.longitude_deg)
    text = Metadata(
        title=clean(packet.title),
        description=clean(packet.description),
        keywords=keywords([*packet.keywords, *metadata.keywords]),
    )
    rest = Metadata(packet.taken_at, None, clean(packet.lens), *(found or (None, None)))
    return text.over(metadata).over(rest)


def _packets(image: Image.Image) -> Iterable[Packet]:
    """IPTC, then XMP, whose text takes precedence."""
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


def _from_exif(exif: Image.Exif) -> tuple[int | None, Metadata]:
    details, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    orientation = exif.get(ExifTags.Base.Orientation)
    make, model = (_latin(exif.get(tag)) or "" for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    latitude = _degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, "S", 90)
    longitude = _degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, "W", 180)
    found = place(latitude, longitude)
    metadata = Metadata(
        taken_at=_moment(details.get(ExifTags.Base.DateTimeOriginal)) or _moment(exif.get(ExifTags.Base.DateTime)),
        camera=(model if model.startswith(make) else f"{make} {model}").strip() or None,
        lens=_latin(details.get(ExifTags.Base.LensModel)),
        latitude_deg=found[0] if found else None,
        longitude_deg=found[1] if found else None,
        title=clean(_utf16(exif.get(_XP_TITLE))),
        description=_latin(exif.get(ExifTags.Base.ImageDescription)) or clean(_utf16(exif.get(_XP_COMMENT))),
        keywords=keywords((_utf16(exif.get(_XP_KEYWORDS)) or "").split(";")),
    )
    return orientation if isinstance(orientation, int) and orientation in range(1, 9) else None, metadata


def _latin(value: object) -> str | None:
    """A string of EXIF: ASCII by the standard, UTF-8 in practice, decoded as Latin-1 by Pillow."""
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


def _degrees(gps: Mapping[int, object], tag: int, reference: int, negative: str, limit: float) -> float | None:
    parts = gps.get(tag)
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    try:
        degrees = float(parts[0]) + float(parts[1]) / 60 + float(parts[2]) / 3600
    except (ZeroDivisionError, TypeError, ValueError):
        return None
    if not 0 <= degrees <= limit:  # also false for the nan of a 0/0
        return None
    return -degrees if str(gps.get(reference, "")).upper().startswith(negative) else degrees
