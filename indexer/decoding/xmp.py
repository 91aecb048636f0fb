"""Parse the two formats in which programs store titles and keywords: XMP (XML, Adobe) and IPTC-IIM (binary records).

In: the bytes of a packet. Out: a `Packet`. The XML is parsed as events, without entities and up to a fixed size, so
that a hostile packet can neither expand nor nest without bound. Next: `metadata.py`, which joins packets and EXIF.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from xml.parsers import expat

PACKET_LIMIT_BYTES: Final = 1 << 20
VALUES_LIMIT: Final = 256  # of one property
VALUE_LIMIT_CHARS: Final = 8192

_DC = "http://purl.org/dc/elements/1.1/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_PROPERTIES: Final = {
    f"{_DC} title": "title",
    f"{_DC} description": "description",
    f"{_DC} subject": "keywords",
    f"{_EXIF} DateTimeOriginal": "taken_at",
    "http://ns.adobe.com/photoshop/1.0/ DateCreated": "created_at",
    f"{_EXIF} GPSLatitude": "latitude",
    f"{_EXIF} GPSLongitude": "longitude",
    "http://ns.adobe.com/exif/1.0/aux/ Lens": "lens",
    "http://cipa.jp/exif/1.0/ LensModel": "lens",
}


@dataclass(frozen=True)
class Packet:
    """The values this project uses of a packet: text as it is written there, positions in degrees."""

    title: str | None = None
    description: str | None = None
    keywords: tuple[str, ...] = ()
    taken_at: datetime | None = None
    latitude_deg: float | None = None
    longitude_deg: float | None = None
    lens: str | None = None


def read_xmp(data: bytes) -> Packet:
    """Parse an XMP packet. Raises: ValueError when it is not XML, declares entities, or is too large."""
    if len(data) > PACKET_LIMIT_BYTES:
        raise ValueError(f"an XMP packet of {len(data)} bytes; at most {PACKET_LIMIT_BYTES} are read")
    found = _Properties()
    try:
        found.read(data.strip(b"\0 \r\n\t"))
    except expat.ExpatError as error:
        raise ValueError(f"XMP is not XML ({error})") from error
    first = {name: values[0] for name, values in found.values.items()}
    return Packet(
        title=first.get("title"),
        description=first.get("description"),
        keywords=tuple(found.values.get("keywords", ())),
        taken_at=_iso(first.get("taken_at")) or _iso(first.get("created_at")),
        latitude_deg=_degrees(first.get("latitude")),
        longitude_deg=_degrees(first.get("longitude")),
        lens=first.get("lens"),
    )


def read_iptc(data: bytes) -> Packet:
    """Parse IPTC-IIM records: object name (2:5), caption (2:120), keywords (2:25), date and time (2:55, 2:60)."""
    records: dict[tuple[int, int], list[bytes]] = {}
    at = 0
    while at + 5 <= len(data) and data[at] == 0x1C:
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if size & 0x8000:  # an extended length, which no program writes for text
            break
        values = records.setdefault((data[at + 1], data[at + 2]), [])
        if len(values) < VALUES_LIMIT:
            values.append(data[at + 5 : at + 5 + size])
        at += 5 + size
    is_utf8 = records.get((1, 90), [b""])[0] == b"\x1b%G"

    def words(number: int) -> tuple[str, ...]:
        return tuple(_decoded(value, is_utf8) for value in records.get((2, number), ()))

    def first(number: int) -> str | None:
        return next(iter(words(number)), None)

    day, time = first(55) or "", (first(60) or "")[:6]
    moment = f"{day}T{time}" if re.fullmatch(r"\d{8}", day) and re.fullmatch(r"\d{6}", time) else None
    return Packet(first(5), first(120), words(25), _iso(moment))


class _Properties:
    """Collects `_PROPERTIES`, whether written as elements or as attributes of `rdf:Description`."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self._name: str | None = None
        self._depth = 0  # below the wanted property
        self._text: list[str] = []

    def read(self, data: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = _refuse
        parser.Parse(data, True)

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if self._name is not None:
            self._depth += 1
            if name == f"{_RDF} li":
                self._text = []
        elif name in _PROPERTIES:
            self._name, self._depth, self._text = _PROPERTIES[name], 0, []
        elif name == f"{_RDF} Description":
            for attribute, value in attributes.items():
                if attribute in _PROPERTIES:
                    self._put(_PROPERTIES[attribute], value)

    def _end(self, name: str) -> None:
        if self._name is None:
            return
        if name == f"{_RDF} li" or self._depth == 0:
            self._put(self._name, "".join(self._text))
            self._text = []
        self._depth -= 1
        if self._depth < 0:
            self._name = None

    def _characters(self, text: str) -> None:
        if self._name is not None and len(self._text) < VALUE_LIMIT_CHARS:
            self._text.append(text[:VALUE_LIMIT_CHARS])

    def _put(self, name: str, value: str) -> None:
        values = self.values.setdefault(name, [])
        if value.strip() and len(values) < VALUES_LIMIT:
            values.append(value.strip()[:VALUE_LIMIT_CHARS])
        if not values:
            del self.values[name]


def _refuse(*_: object) -> None:
    raise ValueError("XMP that declares entities is not read")


def _decoded(value: bytes, is_utf8: bool) -> str:
    if is_utf8:
        return value.decode("utf-8", "replace")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _iso(value: str | None) -> datetime | None:
    """An ISO date and time as the camera's clock showed it: the zone is dropped; None for a date without a time."""
    if value is None or "T" not in value:
        return None
    try:
        return datetime.fromisoformat(value).replace(tzinfo=None, microsecond=0)
    except ValueError:
        return None


def _degrees(value: str | None) -> float | None:
    """`47,22.5N` or `47,22,30N` -> 47.375."""
    found = re.fullmatch(
        r"(\d{1,3}),(\d{1,2}(?:\.\d{1,9})?)(?:,(\d{1,2}(?:\.\d{1,9})?))?([NSEW])", (value or "").strip()
    )
    if found is None:
        return None
    degrees = float(found[1]) + float(found[2]) / 60 + float(found[3] or 0) / 3600
    return -degrees if found[4] in "SW" else degrees
